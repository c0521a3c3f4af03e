"""Small plans for tests of the step and the loop: a four-phase GAN and a linear regression."""

import jax
import jax.numpy as jnp
import optax

from jaxgen import averaging
from jaxgen.common import rng
from jaxgen.train.optim import adam, lazy_adam
from jaxgen.train.plan import Aux, Phase, Plan, Player

Z, X, H = 4, 6, 16


def mlp_init(sizes):
    def init(key):
        keys = jax.random.split(key, len(sizes))
        return {
            f"layer{i}": {"w": jax.random.normal(k, (a, b)) / a**0.5, "b": jnp.zeros(b)}
            for i, (k, a, b) in enumerate(zip(keys, sizes[:-1], sizes[1:]))
        }

    return init


def mlp(params, x):
    for i in range(len(params)):
        p = params[f"layer{i}"]
        x = x @ p["w"] + p["b"]
        x = jax.nn.leaky_relu(x, 0.2) if i + 1 < len(params) else x
    return x


def generate(params, keys):
    return mlp(params["generator"], rng.normal(keys, (Z,)))


def discriminate(params, x):
    return mlp(params["discriminator"], x)[:, 0]


def g_main(params, batch, key, context):
    logits = discriminate(params, generate(params, key))
    return jax.nn.softplus(-logits), Aux({"fake": logits})


def g_path(params, batch, key, context):
    """A path-length penalty with a running mean in stats."""
    z = rng.normal(key, (Z,))
    noise = jax.random.normal(context.key, (X,))
    grad = jax.vmap(jax.grad(lambda z: jnp.sum(mlp(params["generator"], z[None])[0] * noise)))(z)
    length = jnp.sqrt(jnp.sum(grad**2, -1) + 1e-8)
    mean = context.stats["pl_mean"] + 0.01 * (length.mean() - context.stats["pl_mean"])
    return 2.0 * (length - mean) ** 2, Aux({}, {"pl_mean": jax.lax.stop_gradient(mean)})


def d_main(params, batch, key, context):
    real = discriminate(params, batch["image"])
    fake = discriminate(params, jax.lax.stop_gradient(generate(params, key)))
    return jax.nn.softplus(fake) + jax.nn.softplus(-real), Aux({"real": real})


def d_r1(params, batch, key, context):
    grad = jax.grad(lambda x: discriminate(params, x).sum())(batch["image"])
    return 0.5 * 16 * jnp.sum(grad**2, -1), Aux({})


def gan_plan(**kwargs):
    opt = lambda every: lazy_adam(2e-3, 0.0, 0.99, every)
    return Plan(
        players={
            "generator": Player(mlp_init((Z, H, X)), opt(4)),
            "discriminator": Player(mlp_init((X, H, 1)), opt(16)),
        },
        phases=[
            Phase("gen", ("generator",), g_main),
            Phase("gen_path", ("generator",), g_path, every=4),
            Phase("disc", ("discriminator",), d_main),
            Phase("disc_r1", ("discriminator",), d_r1, every=16),
        ],
        stats={"pl_mean": jnp.zeros(())},
        averages=averaging.tracks(power=(0.05, 0.10), halflife=1000.0),
        **kwargs,
    )


def regression_plan(loss=None, optimizer=None, **player):
    def default(params, batch, key, context):
        error = mlp(params["net"], batch["image"])[:, 0] - batch["image"].sum(-1)
        noise = rng.normal(key, ())
        return (error + 0.1 * noise) ** 2, Aux({"noise": noise})

    return Plan(
        players={"net": Player(mlp_init((X, H, 1)), optimizer or adam(1e-2), **player)},
        phases=[Phase("fit", ("net",), loss or default)],
        averages=averaging.tracks(power=(0.1,)),
    )


def batch_of(step, batch):
    key = jax.random.fold_in(jax.random.key(123), step)
    x = jax.random.normal(key, (batch, X)) + jnp.arange(X)
    return {"image": x, "index": jnp.arange(batch)}


sgd = optax.sgd
