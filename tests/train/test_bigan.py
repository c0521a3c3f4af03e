"""Three players through the same step: BiGAN (arXiv:1605.09782), whose encoder inverts G.

The discriminator sees pairs (x, E(x)) and (G(z), z); generator and encoder are trained together to
make them alike. At the solution E and G are each other's inverse, though nothing compares E(G(z))
with z.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import mlp, mlp_init

from jaxgen import averaging
from jaxgen.common import mesh as meshes
from jaxgen.common import rng
from jaxgen.objectives import nonsaturating, r1
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.optim import adam
from jaxgen.train.plan import Aux, Phase, Plan, Player

Z, X, B, STEPS = 2, 4, 128, 500
A = np.array([[1.0, 0.5], [-0.5, 1.0], [0.5, 0.5], [1.0, -1.0]])  # the data are A u, u normal


def pairs(params, batch, key):
    """(x, E(x)) and (G(z), z), each (b, X + Z)."""
    x, z = batch["image"], rng.normal(key, (Z,))
    join = lambda *parts: jnp.concatenate(parts, -1)
    return join(x, mlp(params["encoder"], x)), join(mlp(params["generator"], z), z)


def judge(params, pair):
    return mlp(params["discriminator"], pair)[:, 0]


def both(params, batch, key, context):
    data, made = (judge(params, pair) for pair in pairs(params, batch, key))
    return nonsaturating.discriminator(made, data), Aux({"data": data})  # the sides exchanged


def disc(params, batch, key, context):
    data, made = pairs(params, batch, key)
    penalty = r1.penalty(lambda x: judge(params, x), data, 0.1)
    each = nonsaturating.discriminator(judge(params, data), judge(params, made))
    return each + penalty, Aux()


@pytest.fixture(scope="module")
def trained():
    opt = lambda: adam(3e-3, 0.0, 0.99)
    plan = Plan(
        players={
            "encoder": Player(mlp_init((X, 16, Z)), opt()),
            "generator": Player(mlp_init((Z, 16, X)), opt()),
            "discriminator": Player(mlp_init((X + Z, 32, 32, 1)), opt()),
        },
        phases=[
            Phase("both", ("generator", "encoder"), both),
            Phase("disc", ("discriminator",), disc),
        ],
        averages=averaging.tracks(power=(0.1,)),
    )
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    state = states.create(plan, 0, mesh)
    step = steps.jit_step(plan, state, batch=B, mesh=mesh)
    before = jax.device_get(state.params)
    gen = np.random.default_rng(0)
    for _ in range(STEPS):
        x = (gen.normal(size=(B, Z)) @ A.T).astype(np.float32)
        state, _ = step(state, meshes.put_batch({"image": x}, mesh), {}, jax.random.key(1))
    return before, jax.device_get(state)


def error(params):
    """E |E(G(z)) - z|^2 / E |z' - z|^2 of independent z, z': 1/2 for E = 0, 1 for chance."""
    z = jax.random.normal(jax.random.key(9), (2000, Z))
    back = mlp(params["encoder"], mlp(params["generator"], z))
    return float(jnp.square(back - z).mean() / jnp.square(z[::-1] - z).mean())


def test_the_encoder_inverts_the_generator(trained, capsys):
    before, state = trained
    found = [error(p) for p in (before, state.params, state.averages["power_0.100"])]
    with capsys.disabled():
        print(f"\nBiGAN: {found}")
    assert found[0] > 0.3 and found[1] < 0.1 and found[2] < 0.1


def test_the_generator_has_the_data_s_covariance(trained):
    params = trained[1].averages["power_0.100"]
    x = mlp(params["generator"], jax.random.normal(jax.random.key(9), (5000, Z)))
    np.testing.assert_allclose(np.cov(np.asarray(x).T), A @ A.T, atol=0.5)


def test_every_player_has_moved(trained):
    before, state = trained
    for name in ("encoder", "generator", "discriminator"):
        assert not np.allclose(before[name]["layer0"]["w"], state.params[name]["layer0"]["w"])
        assert name in state.averages["power_0.100"] and name in state.opt
    assert {n: int(g["total"]) for n, g in state.guard.items()} == {"both": 0, "disc": 0}
