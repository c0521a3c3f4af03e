"""The StyleGAN2 recipe: phases, gradients of each loss, optimizer, samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.stylegan2 import digits, fashion_mnist
from jaxgen.common import rng
from jaxgen.recipes import stylegan2
from jaxgen.train.plan import Context

DIGITS = {"shape": (8, 8, 1), "label_dim": 10, "label_kind": "class", "name": "digits", "length": 9}
B = 8


def _batch(shape, labels=True):
    images = jax.random.randint(jax.random.key(0), (B, *shape), 0, 256).astype(jnp.uint8)
    return {"image": images} | ({"label": jnp.arange(B) % 10} if labels else {})


@pytest.fixture(scope="module")
def plan():
    return stylegan2.build(digits.get_config("debug"), DIGITS)


@pytest.fixture(scope="module")
def params(plan):
    keys = jax.random.split(jax.random.key(7), 2)
    return {n: p.init(k) for (n, p), k in zip(plan.players.items(), keys)}


def _context(plan):
    stats = {n: jnp.asarray(s) for n, s in plan.stats.items()}
    return Context(jnp.int32(0), jnp.float32(0), jax.random.key(3), stats, {}, {})


def test_phases(plan):
    found = [(p.name, p.trains, p.every) for p in plan.phases]
    assert found == [
        ("gen", ("generator",), 1),
        ("gen_path", ("generator",), 4),
        ("disc", ("discriminator",), 1),
        ("disc_r1", ("discriminator",), 2),
    ]
    config = digits.get_config()
    config.loss.path_every = config.loss.r1_every = 0
    assert [p.name for p in stylegan2.build(config, DIGITS).phases] == ["gen", "disc"]


@pytest.mark.parametrize("name", ["gen", "gen_path", "disc", "disc_r1"])
def test_every_phase_has_a_gradient(plan, params, name):
    phase = next(p for p in plan.phases if p.name == name)
    player = phase.trains[0]
    keys = rng.image_keys(jax.random.key(5), B)

    def mean_loss(p):
        each, aux = phase.loss({**params, player: p}, _batch((8, 8, 1)), keys, _context(plan))
        return each.mean(), (each, aux)

    grads, (each, aux) = jax.jit(jax.grad(mean_loss, has_aux=True))(params[player])
    assert each.shape == (B,) and set(aux.stats) <= set(plan.stats)
    leaves = jax.tree.leaves(grads)
    assert all(bool(jnp.isfinite(g).all()) for g in leaves)
    assert sum(float(jnp.abs(g).sum()) for g in leaves) > 0
    if name == "gen":
        assert float(jnp.abs(aux.stats["w_avg"]).max()) > 0
    if name == "gen_path":
        np.testing.assert_allclose(
            aux.stats["pl_mean"], 0.01 * aux.metrics["length"].mean(), rtol=1e-3
        )
        np.testing.assert_allclose(each, 4 * aux.metrics["penalty"], rtol=1e-5)
    if name == "disc_r1":
        np.testing.assert_allclose(each, 2 * aux.metrics["penalty"], rtol=1e-5)


def test_samples(plan, params):
    keys = rng.seed_keys(0, jnp.arange(4))
    batch = {"label": jnp.eye(10)[jnp.array([1, 2, 3, 1])]}
    draw = jax.jit(plan.sample.fn, static_argnames=("psi",))
    images = draw(params, keys, batch, {})["image"]
    assert images.shape == (4, 8, 8, 1)
    last = draw(params, keys[3:], {"label": batch["label"][3:]}, {})["image"]
    np.testing.assert_allclose(last, images[3:], atol=1e-5)
    # psi = 0 leaves one style a label; noise strengths are still zero, so images 0 and 3 agree.
    mean = draw(params, keys, batch, {}, psi=0.0)["image"]
    np.testing.assert_allclose(mean[0], mean[3], atol=1e-4)
    assert float(jnp.abs(mean[0] - mean[1]).max()) > 1e-3
    near = draw(params, keys, batch, {}, psi=0.9999)["image"]
    np.testing.assert_allclose(near, images, atol=1e-2)


def test_padding_and_cropping_of_28x28_without_labels():
    facts = {"shape": (28, 28, 1), "label_dim": 0, "label_kind": "none", "name": "x", "length": 9}
    assert stylegan2.resolution_of(28, 28) == 32 and stylegan2.resolution_of(5, 3) == 8
    assert stylegan2.resolution_of(32, 20) == 32 and stylegan2.resolution_of(33, 33) == 64
    plan = stylegan2.build(fashion_mnist.get_config("debug"), facts)
    assert plan.sample.needs == ()
    shapes = jax.eval_shape(lambda: {n: p.init(jax.random.key(0)) for n, p in plan.players.items()})
    keys = rng.seed_keys(0, jnp.arange(2))
    out = jax.eval_shape(lambda p: plan.sample.fn(p, keys, {}, {}), shapes)
    assert out["image"].shape == (2, 28, 28, 1)
    disc = next(p for p in plan.phases if p.name == "disc")
    keys = rng.image_keys(jax.random.key(5), B)
    each, _ = jax.eval_shape(
        lambda p: disc.loss(p, _batch((28, 28, 1), labels=False), keys, _context(plan)), shapes
    )
    assert each.shape == (B,)
