"""What the tests of the GAN recipe share: facts, batches, contexts, plans of tiny perceptrons."""

import jax
import jax.numpy as jnp

from configs import gans
from jaxgen.common import rng
from jaxgen.train.plan import Context

DIGITS = {"shape": (8, 8, 1), "label_dim": 10, "label_kind": "class", "name": "digits", "length": 9}
B = 8


def a_batch(shape=(8, 8, 1), labels=True):
    images = jax.random.randint(jax.random.key(0), (B, *shape), 0, 256).astype(jnp.uint8)
    return {"image": images} | ({"label": jnp.arange(B) % 10} if labels else {})


def a_context(plan, nimg=0.0, **stats):
    stats = jax.tree.map(jnp.asarray, {**plan.stats, **stats})
    return Context(jnp.int32(0), jnp.float32(nimg), jax.random.key(3), stats, {}, {})


KEYS = rng.image_keys(jax.random.key(5), B)


def params_of(plan):
    keys = jax.random.split(jax.random.key(7), len(plan.players))
    return {n: p.init(k) for (n, p), k in zip(plan.players.items(), keys)}


def loss_of(plan, name):
    return next(p.loss for p in plan.phases if p.name == name)


def perceptrons(**changes):
    """A config of tiny networks, with changes such as loss_name="hinge"."""
    c = gans.base("digits", "gan_mlp")
    c.batch = B
    c.generator.update(z_dim=4, features=(8,))
    c.discriminator.update(features=(4,), pieces=2, dropout=0.0, dropout_pixels=0.0)
    for name, value in changes.items():
        part, _, key = name.partition("_")
        c[part][key] = value
    return c
