"""The EDM recipe: networks under every preconditioning, conditions, settings that are wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.adm_classifier import digits as classifier_digits
from configs.edm import digits
from jaxgen import recipes
from jaxgen.common import rng
from jaxgen.recipes import edm
from jaxgen.train.plan import Context

FACTS = {"shape": (8, 8, 1), "label_dim": 10, "label_kind": "class", "name": "digits", "length": 9}
B = 4


def batch():
    images = jax.random.randint(jax.random.key(0), (B, 8, 8, 1), 0, 256).astype(jnp.uint8)
    return {"image": images, "label": jnp.arange(B)}


def weights(plan, scale):
    """Small random weights: drawing the real ones compiles for longer."""
    shapes = jax.eval_shape(plan.players["network"].init, jax.random.key(0))
    draw = np.random.default_rng(0).normal
    return {"network": jax.tree.map(lambda s: jnp.float32(draw(0, scale, s.shape)), shapes)}


def shallow(arg):
    """A debug config of the fewest blocks, for what holds whatever the network's depth."""
    config = digits.get_config(arg)
    config.model.update(channel_mult=(1,), num_blocks=0)
    return config


def losses(plan, params):
    context = Context(jnp.int32(0), jnp.float32(0), jax.random.key(3), {}, {}, {})
    keys = rng.image_keys(jax.random.key(5), B)
    return plan.phases[0].loss(params, batch(), keys, context)


@pytest.mark.parametrize("precond", ["edm", "vp", "ve", "iddpm"])
def test_a_denoiser_that_knows_nothing_has_the_loss_of_its_weights(precond):
    """With F = 0, D = c_skip x: the loss is that of a linear map, whatever the network."""
    plan = edm.build(shallow(f"debug,{precond}"), FACTS)
    each, aux = losses(plan, weights(plan, 0.0))
    assert each.shape == (B,) and bool(jnp.all(jnp.isfinite(each)))
    if precond == "edm":  # weighted error of c_skip (y + n) has mean one on data of sigma_data
        assert 0.2 < float(aux.metrics["mse"].mean()) < 5
    else:  # lambda = 1 / sigma^2 times the noise's own square
        assert float(aux.metrics["mse"].mean()) == pytest.approx(1, abs=0.3)


def test_augmentation_and_label_dropout_reach_the_network():
    config = shallow("debug,adm")
    config.augment.p = 0.5
    config.loss.label_dropout = 1.0
    plan = edm.build(config, FACTS)
    params = weights(plan, 0.1)
    grads = jax.jit(jax.grad(lambda p: losses(plan, p)[0].sum()))(params)["network"]
    norm = lambda part: sum(
        float(jnp.abs(g).sum()) for n, t in grads.items() if part in n for g in jax.tree.leaves(t)
    )
    assert norm("label") == 0, "every label was dropped"
    assert norm("augment") > 0


def test_samples_and_exports():
    plan = edm.build(shallow("debug"), FACTS)
    params = weights(plan, 0.1)
    keys, label = rng.seed_keys(0, np.arange(B)), jnp.eye(10)[:B]
    options = {"steps": 2, "solver": "dpmpp_2m", "grid": "geometric"}
    draw = jax.jit(lambda p, k, y: plan.sample.fn(p, k, {"label": y}, {}, **options)["image"])
    x = draw(params, keys, label)
    assert x.shape == (B, 8, 8, 1) and bool(jnp.all(jnp.isfinite(x)))
    denoise = plan.exports["denoise"].fn(params, {})
    shapes = jax.eval_shape(denoise, x, jnp.ones(B), {"label": label})
    assert shapes.shape == x.shape


@pytest.mark.parametrize(
    "change, text",
    [
        ({"model.network": "unet"}, "config.model.network must be one of"),
        ({"precond.name": "cosine"}, "unknown preconditioning 'cosine'"),
        ({"loss.levels": "uniform"}, "unknown training levels 'uniform'"),
        ({"sampler.solver": "rk4"}, "unknown solver 'rk4'"),
    ],
)
def test_wrong_settings_are_found_before_training(change, text):
    config = digits.get_config("debug")
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=text):
        edm.build(config, FACTS)


def test_levels_outside_of_the_network_are_refused():
    config = digits.get_config("debug,ve")
    config.sampler.sigma_min = 0.001
    with pytest.raises(
        ValueError, match=r"'ve' preconditioning supports, 0.02 to 100: got \[0.001"
    ):
        edm.build(config, FACTS)


def test_a_classifier_needs_classes():
    config = classifier_digits.get_config("debug")
    with pytest.raises(ValueError, match=r"a classifier needs data with classes, got .*'none'"):
        recipes.build(config, {**FACTS, "label_kind": "none"})
