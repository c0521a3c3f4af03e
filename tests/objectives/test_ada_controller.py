"""ADA's controller: where p goes, by itself and in a plan."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.objectives import ada_controller
from jaxgen.train.plan import Aux, Phase, Plan, Player
from jaxgen.train.state import from_params
from jaxgen.train.step import make_step


def test_steps_of_p():
    adjust = ada_controller.adjust
    assert adjust(jnp.float32(0.3), 0.7, images=1000, speed=50_000) == pytest.approx(0.32)
    assert adjust(jnp.float32(0.3), 0.5, images=1000, speed=50_000) == pytest.approx(0.28)
    assert adjust(jnp.float32(0.3), jnp.float32(0.6), images=1000) == pytest.approx(0.3)
    assert adjust(jnp.float32(0.001), -1.0, images=1000) == 0  # never below
    assert adjust(jnp.float32(1), 1.0, images=5000, speed=50_000) == pytest.approx(1.1)


def test_mean_of_all_that_was_reported_since_the_last_move():
    """Four steps: the main phase reports in each, a lazy one in the first, NaN in the others."""
    control = jax.jit(ada_controller.controller(("disc/s", "r1/s"), batch=64, speed=512))
    stats, other = {"ada": ada_controller.init(0.5), "w_avg": jnp.ones(2)}, jnp.nan
    for main, lazy, p in ((0.9, 1.0, 0.5), (0.9, other, 0.5), (0.1, other, 0.5), (0.0, other, 0.0)):
        stats = control(stats, {"disc/s": jnp.float32(main), "r1/s": jnp.float32(lazy)})
        assert float(stats["ada"]["p"]) == p  # 2.9 / 5 < 0.6, where the main phase's is 0.475
    assert not any(float(v) for v in stats["ada"].values())
    for _ in range(4):
        stats = control(stats, {"disc/s": jnp.float32(0.61), "r1/s": jnp.float32(0.6)})
    assert float(stats["ada"]["p"]) == 0.5
    for _ in range(4):  # nothing reported, nothing done
        stats = control(stats, {"disc/s": jnp.float32(other), "r1/s": jnp.float32(other)})
    assert float(stats["ada"]["p"]) == 0.5
    np.testing.assert_array_equal(stats["w_avg"], 1)


def test_in_a_plan_p_settles_where_signs_are_at_the_target_without_compiling_again():
    """A discriminator whose mean sign is 1 - p: p rises to 0.4 and stays within a step of it."""
    traces = []

    def loss(params, batch, key, context):
        traces.append(None)
        p = context.stats["ada"]["p"]
        sign = jnp.where(jnp.arange(100) < 50 * (2 - p), 1.0, -1.0)
        return params["disc"] * jnp.ones(100), Aux({"real_sign": sign, "p": p})

    control = ada_controller.controller(("disc/real_sign",), batch=100, every=2, speed=4000)
    plan = Plan(
        players={"disc": Player(lambda key: jnp.zeros(()), optax.sgd(0.1))},
        phases=[Phase("disc", ("disc",), loss)],
        stats={"ada": ada_controller.init()},
        controllers=[control],
    )
    step = jax.jit(make_step(plan, batch=100))
    state, seen = from_params(plan, {"disc": jnp.zeros(())}), []
    for _ in range(40):
        state, metrics = step(state, {"index": jnp.arange(100)}, {}, jax.random.key(0))
        seen.append(float(metrics["disc/p"]))
    np.testing.assert_allclose(seen[:8], np.repeat([0, 0.05, 0.1, 0.15], 2), atol=1e-6)
    assert min(seen[20:]) > 0.34 and max(seen[20:]) < 0.46
    assert len(traces) == 1
