"""Inversion: the style and the noise with which a generator makes an image (arXiv:1912.04958).

Appendix D. Adam looks for one style w, from the mean of styles on, and for the noise planes n,
which make

    d(g(w + e), x) + alpha sum_ij L_ij

small. e ~ N(0, (0.05 sigma_w t^2)^2) lets w leave poor minima while t falls from 1 to 0 during the
first three quarters. L_ij is the squared correlation of plane i with itself moved by one pixel, at
1 / 2^j of its size, without which planes would hold what the style should. The distance d to the
image x is an argument.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from numpy.typing import ArrayLike

SMALLEST = 8  # planes of this size and below are not halved
Planes = Mapping[str, jax.Array]


class Settings(NamedTuple):
    """The paper's numbers.

    steps: of Adam. rate: its largest learning rate, which rises over a share `up` of the steps and
    falls over the last share `down`. spread: of e, in sigma_w. noisy: the share of the steps with
    it. alpha: weight of the regulariser.
    """

    steps: int = 1000
    rate: float = 0.1
    up: float = 0.05
    down: float = 0.25
    spread: float = 0.05
    noisy: float = 0.75
    alpha: float = 1e5


class State(NamedTuple):
    """w (w_dim,), planes by name (r, r), and the moments of Adam."""

    w: jax.Array
    planes: dict[str, jax.Array]
    moments: Any


def centre(ws: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean (w_dim,) and spread sigma_w of styles (n, w_dim): sigma_w^2 = E |w - mean|^2."""
    mean = ws.mean(0)
    return mean, jnp.sqrt(jnp.square(ws - mean).sum(-1).mean())


def start(w: jax.Array, planes: Mapping[str, ArrayLike], key: jax.Array) -> State:
    """The state before the first step: w (w_dim,), normal planes of the sizes of `planes`."""
    sizes = {name: jnp.shape(x) for name, x in planes.items()}
    keys = jax.random.split(key, max(len(sizes), 1))
    drawn = {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, sizes.items())}
    return State(w, drawn, optax.scale_by_adam().init((w, drawn)))


def advance(
    state: State,
    first: jax.Array | int,
    last: jax.Array | int,
    key: jax.Array,
    sigma_w: jax.Array | float,
    synthesis: Callable[[jax.Array, Planes], jax.Array],
    distance: Callable[[jax.Array], jax.Array],
    settings: Settings,
) -> State:
    """The state after the steps first..last - 1, which may be traced.

    Args:
      key: of the whole inversion; steps fold it. sigma_w: as from `centre`. synthesis: (w (1,
        w_dim), planes) -> images (1, h, w, c). distance: images -> (1,), differentiable.
    """

    def loss(found: tuple[jax.Array, Planes], e: jax.Array) -> jax.Array:
        w, planes = found
        total = distance(synthesis((w + e)[None], planes)).sum()
        return total + settings.alpha * sum(map(autocorrelation, planes.values()))

    def step(i: jax.Array, state: State) -> State:
        t = i / settings.steps
        left = jnp.maximum(0.0, 1 - t / settings.noisy)
        e = jax.random.normal(jax.random.fold_in(key, i), state.w.shape)
        e = settings.spread * sigma_w * left**2 * e
        grads = jax.grad(loss)((state.w, state.planes), e)
        updates, moments = optax.scale_by_adam().update(grads, state.moments)
        rate = rate_at(t, settings)
        w, planes = jax.tree.map(lambda x, u: x - rate * u, (state.w, state.planes), updates)
        return State(w, {n: renormalised(x) for n, x in planes.items()}, moments)

    return jax.lax.fori_loop(first, last, step, state)


def rate_at(t: jax.Array | float, settings: Settings) -> jax.Array:
    """The learning rate at share t of the steps: a line up, and the half of a cosine down."""
    rise = jnp.minimum(1.0, t / settings.up)
    fall = 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(1.0, (1 - t) / settings.down))
    return settings.rate * rise * fall


def autocorrelation(plane: jax.Array) -> jax.Array:
    """sum_j (mean of n(x, y) n(x - 1, y))^2 + (mean of n(x, y) n(x, y - 1))^2, edges wrapped.

    At sizes r, r / 2, ..., 8: each is the one before, averaged over 2 x 2 pixels, times 2, which
    keeps the variance of white noise. Of that, the expectation at size r is 2 / r^2.

    Args:
      plane: (r, r), r a power of two.
    """
    total = jnp.zeros(())
    while True:
        for axis in (0, 1):
            total += jnp.square((plane * jnp.roll(plane, 1, axis)).mean())
        r = plane.shape[0]
        if r <= SMALLEST:
            return total
        plane = 2 * plane.reshape(r // 2, 2, r // 2, 2).mean((1, 3))


def renormalised(plane: jax.Array) -> jax.Array:
    """The plane with mean 0 and variance 1."""
    plane = plane - plane.mean()
    return plane * jax.lax.rsqrt(jnp.square(plane).mean())
