"""The toy: two trees of ever thinner Gaussians, and the small energy network that learns them.

    ln p(x; sigma) ~ gain mean(y^2) / sigma - |x|^2 / (2 (sigma_data^2 + sigma^2))
    y = MLP([x / sqrt(sigma_data^2 + sigma^2), ln(sigma) / 4, 1]),  D = x + sigma^2 grad_x ln p

with magnitude-preserving layers. The network is trained on the exact denoiser of the mixture.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import averaging
from jaxgen.common import params as parameters
from jaxgen.common import rng
from jaxgen.nn import magnitude
from jaxgen.noise import levels
from jaxgen.noise.mixture import Mixture
from jaxgen.train import optim, state, step
from jaxgen.train.plan import Aux, Phase, Plan, Player

SIGMA_DATA = 0.5
EMA = 0.01  # length of the power-function average


@dataclasses.dataclass(frozen=True)
class Tree:
    """A mixture and the branch (K,) that each of its components belongs to, in order of level."""

    mixture: Mixture
    branch: np.ndarray


def grow(
    seed: int, angle: float, depth: int, parts: int
) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Means, covariances and weights of a tree: branches fork `depth` - 1 times.

    A branch is a bent row of `parts` Gaussians, elongated along it. Its two children leave its
    end to both sides, 0.8 as long, 0.8 as wide, with half of the mass each.
    """
    random = np.random.default_rng(seed)
    tips = [(np.zeros(2), angle, 1.0, 0.05)]
    means, covs, weights = [], [], []
    for level in range(depth):
        following = []
        for point, angle, length, width in tips:
            bend, stride = random.uniform(-0.5, 0.5) / parts, length / parts
            for part in range(parts):
                angle += bend
                ahead = np.array([np.cos(angle), np.sin(angle)])
                aside = np.array([-ahead[1], ahead[0]])
                means.append(point + stride / 2 * ahead)
                wide = width * 0.8 ** ((part + 0.5) / parts)
                cov = (0.5 * stride) ** 2 * np.outer(ahead, ahead) + wide**2 * np.outer(
                    aside, aside
                )
                covs.append(cov)
                weights.append(1 / depth / 2**level / parts)
                point = point + stride * ahead
            for side in (-1, 1):
                turn = side * random.uniform(0.4, 0.8)
                shorter = length * random.uniform(0.7, 0.85)
                following.append((point, angle + turn, shorter, 0.8 * width))
        tips = following
    return means, covs, weights


def trees(depth: int = 5, parts: int = 6) -> tuple[Tree, Tree]:
    """Class A, and both classes together with half of the mass each; standard deviation 0.5."""
    a, b = grow(1, 0.9, depth, parts), grow(2, -0.4, depth, parts)
    mu, cov, w = (np.array(u + v) for u, v in zip(a, b))
    w = w / w.sum()
    mean = w @ mu
    scale = SIGMA_DATA / np.sqrt((w @ (mu - mean) ** 2).mean())
    mu, cov = scale * (mu - mean), scale**2 * cov
    n, branch = len(mu) // 2, np.arange(len(mu)) // parts
    return (
        Tree(Mixture(2 * w[:n], mu[:n], cov[:n]), branch[:n]),
        Tree(Mixture(w, mu, cov), branch),
    )


class Energy(nn.Module):
    """ln p(x; sigma) but for a constant of sigma: x (b, 2), sigma (b,) -> (b,)."""

    hidden: int
    layers: int = 5

    @nn.compact
    def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        total = SIGMA_DATA**2 + sigma**2
        column = [jnp.log(sigma)[:, None] / 4, jnp.ones_like(sigma)[:, None]]
        y = jnp.concatenate([x / jnp.sqrt(total)[:, None], *column], -1)
        for i in range(self.layers):
            y = magnitude.mp_silu(y) if i else y
            y = magnitude.MPConv(self.hidden, name=f"layer{i}")(y)
        gain = magnitude.Gain(name="out")()
        return gain * jnp.mean(y**2, -1) / sigma - jnp.sum(x**2, -1) / (2 * total)


def denoiser(network: Energy, params: Any) -> Callable[..., jax.Array]:
    """D = x + sigma^2 grad_x of the energy."""

    def denoise(x: jax.Array, sigma: jax.Array, cond: Any = None) -> jax.Array:
        total = lambda x: network.apply({"params": params}, x, sigma).sum()
        return x + sigma[:, None] ** 2 * jax.grad(total)(x)

    return denoise


def plan(network: Energy, data: Mixture, batch: int) -> Plan:
    """Trains on the mean of sigma^2 |score - exact score|^2, over ln sigma ~ N(-2.3, 1.5^2)."""
    draw = functools.partial(levels.lognormal, P_mean=-2.3, P_std=1.5)

    def loss(params, batch, keys, context):
        clean, level, noise = rng.split(keys, 3)
        y, sigma = data.sample(clean), draw(level)
        x = y + sigma[:, None] * rng.normal(noise, y.shape[1:])
        D, exact = denoiser(network, params["network"])(x, sigma), data.denoise(x, sigma)
        each = levels.noise_weight(sigma) * jnp.square(D - exact).mean(-1)
        return each, Aux()

    rate = optim.inverse_sqrt(0.01, ref_images=512 * batch)
    start = lambda key: parameters.init(network, key, jnp.zeros((1, 2)), jnp.ones(1))
    player = Player(start, optim.adam(rate, b1=0.9, b2=0.99), magnitude.project)
    return Plan(
        players={"network": player},
        phases=[Phase("score", ("network",), loss)],
        averages=averaging.tracks((EMA,)),
    )


def trainer(network: Energy, data: Mixture, steps: int, batch: int) -> Callable[[int], Any]:
    """seed -> averaged weights after `steps` of the library's training step, in one program."""
    made = plan(network, data, batch)
    one = step.make_step(made, batch=batch)

    @jax.jit
    def run(params: Any, key: jax.Array) -> Any:
        start = state.from_params(made, params)
        body = lambda s, _: (one(s, {}, {}, key)[0], None)
        final = jax.lax.scan(body, start, None, length=steps)[0]
        (average,) = final.averages.values()
        return average["network"]

    return lambda seed: run(state.init_params(made, seed), jax.random.key(seed))
