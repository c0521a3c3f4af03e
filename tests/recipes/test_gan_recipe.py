"""The GAN recipe: phases and gradients with StyleGAN2, every switch with tiny perceptrons."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gan_toys import DIGITS, KEYS, B, a_batch, a_context, loss_of, params_of, perceptrons

from configs import gans
from configs.stylegan2 import digits, fashion_mnist
from jaxgen import recipes
from jaxgen.averaging import HalfLife, Power
from jaxgen.common import mesh as meshes
from jaxgen.common import rng, trees
from jaxgen.objectives import cosine, orthogonal, relativistic
from jaxgen.recipes import gan
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.plan import Plan


@pytest.fixture(scope="module")
def plan():
    return recipes.build(digits.get_config("debug"), DIGITS)


@pytest.fixture(scope="module")
def params(plan):
    return params_of(plan)


def test_phases(plan):
    found = [(p.name, p.trains, p.every) for p in plan.phases]
    assert found == [
        ("gen", ("generator",), 1),
        ("gen_path", ("generator",), 4),
        ("disc", ("discriminator",), 1),
        ("disc_r1", ("discriminator",), 2),
    ]
    assert plan.players["generator"].fixed == (r"noise_const$",)
    assert plan.players["discriminator"].fixed == ()
    config = digits.get_config()
    config.loss.path_every = config.loss.r1_every = 0
    assert [p.name for p in recipes.build(config, DIGITS).phases] == ["gen", "disc"]
    config.loss.update(path_every=4, r1_every=1, d_steps=3)
    phases = recipes.build(config, DIGITS).phases
    assert {p.name: p.every for p in phases} == {"gen": 3, "gen_path": 12, "disc": 1}


@pytest.mark.parametrize("name", ["gen", "gen_path", "disc", "disc_r1"])
def test_every_phase_has_a_gradient(plan, params, name):
    phase = next(p for p in plan.phases if p.name == name)
    player = phase.trains[0]

    def mean_loss(p):
        each, aux = phase.loss({**params, player: p}, a_batch(), KEYS, a_context(plan))
        return each.mean(), (each, aux)

    grads, (each, aux) = jax.jit(jax.grad(mean_loss, has_aux=True))(params[player])
    assert each.shape == (B,) and set(aux.stats) <= set(plan.stats) and not aux.fixed
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
    draw = jax.jit(plan.sample.fn, static_argnames=("psi", "cutoff"))
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
    # The tools' functions give the same images; a cutoff spares the fine layers.
    g = plan.exports["generator"].fn(params, {})
    cond = {"label": batch["label"]}
    w = g.mapping(g.latents(keys), cond)
    ws = g.truncate(w, cond, psi=0.0, cutoff=2)
    assert ws.shape == (4, g.num_ws, g.w_dim)
    np.testing.assert_allclose(ws[0, :2], ws[3, :2], atol=1e-5)
    np.testing.assert_array_equal(ws[:, 2:], jnp.repeat(w[:, None], g.num_ws - 2, 1))
    np.testing.assert_allclose(g.synthesis(w, rng.split(keys, 2)[1]), images, atol=1e-5)


def test_padding_and_cropping_of_28x28_without_labels():
    facts = {"shape": (28, 28, 1), "label_dim": 0, "label_kind": "none", "name": "x", "length": 9}
    assert gan.resolution_of(28, 28) == 32 and gan.resolution_of(5, 3) == 8
    assert gan.resolution_of(32, 20) == 32 and gan.resolution_of(33, 33) == 64
    plan = recipes.build(fashion_mnist.get_config("debug"), facts)
    assert plan.sample.needs == ()
    shapes = jax.eval_shape(lambda: {n: p.init(jax.random.key(0)) for n, p in plan.players.items()})
    keys = rng.seed_keys(0, jnp.arange(2))
    out = jax.eval_shape(lambda p: plan.sample.fn(p, keys, {}, {}), shapes)
    assert out["image"].shape == (2, 28, 28, 1)
    each, _ = jax.eval_shape(
        lambda p: loss_of(plan, "disc")(p, a_batch((28, 28, 1), False), KEYS, a_context(plan)),
        shapes,
    )
    assert each.shape == (B,)


def run(config, name="disc", nimg=0.0, batch=None, **stats):
    """(loss of each image, aux) of a phase, at fixed random weights."""
    plan = recipes.build(config, DIGITS)
    context = a_context(plan, nimg, **stats)
    return loss_of(plan, name)(params_of(plan), batch or a_batch(), KEYS, context)


BASE, AUX = run(perceptrons())


def test_perceptrons_have_no_styles():
    plan = recipes.build(perceptrons(), DIGITS)
    assert not plan.stats and not plan.exports and dict(plan.sample.options) == {"z_max": 0.0}
    assert [p.name for p in plan.phases] == ["gen", "disc"] and not plan.controllers


@pytest.mark.parametrize("r2", [0.0, 3.0])
def test_penalties_in_the_main_phase_are_those_of_the_lazy_one(r2):
    config = perceptrons(loss_r1_gamma=2.0, loss_r2_gamma=r2, loss_r1_every=1)
    each, aux = run(config)
    config.loss.r1_every = 16
    lazy, lazy_aux = run(config, "disc_r1")
    np.testing.assert_allclose(each - BASE, lazy / 16, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(aux.metrics["penalty"], lazy_aux.metrics["penalty"], rtol=1e-5)
    config.loss.r2_gamma = 0.0
    alone = run(config, "disc_r1")[1].metrics["penalty"]
    assert bool((aux.metrics["penalty"] > alone).all()) == bool(r2)


def test_losses_by_name():
    """The logits are the same whatever the loss; relativistic pairs real and generated ones."""
    real, fake = AUX.metrics["real_logits"], AUX.metrics["fake_logits"]
    want = {
        "nonsaturating": jax.nn.softplus(fake) + jax.nn.softplus(-real),
        "minimax": jax.nn.softplus(fake) + jax.nn.softplus(-real),
        "hinge": jax.nn.relu(1 - real) + jax.nn.relu(1 + fake),
        "least_squares": 0.5 * (jnp.square(real - 1) + jnp.square(fake)),
        "wasserstein": fake - real + 0.5 * jnp.square(real),
        "relativistic": jax.nn.softplus(fake - real),
    }
    for name, each in want.items():
        config = perceptrons(loss_name=name, loss_epsilon_drift=0.5)
        np.testing.assert_allclose(run(config)[0], each, rtol=1e-5, err_msg=name)
    config = perceptrons(loss_name="relativistic")
    plain, aux = run(config, "gen")
    np.testing.assert_allclose(plain, relativistic.generator(real, aux.metrics["logits"]))


def test_gradient_penalty_and_orthogonality():
    config = perceptrons(loss_name="wasserstein", loss_gp_weight=10.0)
    each, aux = run(config)
    real, fake = AUX.metrics["real_logits"], AUX.metrics["fake_logits"]
    np.testing.assert_allclose(each, fake - real + aux.metrics["slope"], rtol=1e-5)
    assert (aux.metrics["slope"] > 0).all()
    each, aux = run(perceptrons(loss_orthogonal_weight=0.1), "gen")
    want = orthogonal.penalty(params_of(recipes.build(config, DIGITS))["generator"], 0.1)
    np.testing.assert_allclose(each - jax.nn.softplus(-aux.metrics["logits"]), want, rtol=1e-4)


def test_ada_follows_the_discriminator_in_one_compilation():
    """p rises by batch / images for each step while real logits are positive; no recompilation."""
    config = perceptrons(augment_kind="ada", augment_target=0.6, augment_recipe="color")
    config.augment.images = "320"
    plan = recipes.build(config, DIGITS)
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    params = params_of(plan)
    params["discriminator"]["out"]["b"] += 10.0
    state = jax.jit(lambda p: states.from_params(plan, p))(params)
    state = jax.device_put(state, meshes.replicated(mesh))
    step, found = steps.jit_step(plan, state, batch=B, mesh=mesh), []
    for _ in range(8):
        state, metrics = step(state, meshes.put_batch(a_batch(), mesh), {}, jax.random.key(0))
        found.append(float(state.stats["ada"]["p"]))
    assert metrics["disc/real_sign"] == 1
    np.testing.assert_allclose(metrics["disc/augment_p"], found[-2], rtol=1e-6)
    np.testing.assert_allclose(found, [0] * 3 + [4 * B / 320] * 4 + [8 * B / 320], rtol=1e-6)


def test_images_are_augmented_wherever_the_discriminator_looks(monkeypatch):
    """All logits move, with p: fixed, on its way, or that of the controller; equally in each phase.

    A stand-in for the transforms, since those have tests of their own.
    """

    def brighten(keys, x, p, recipe):
        del recipe
        return x + p * (1 + rng.uniform(keys)[:, None, None, None]), None

    monkeypatch.setattr(gan.gan_losses.ada, "augment", brighten)
    monkeypatch.setattr(
        gan.gan_losses.diffaugment, "augment", lambda keys, x, policy: brighten(keys, x, 1.0, 0)[0]
    )
    config = perceptrons(augment_kind="ada", augment_p=1.0)
    each, aux = run(config)
    for name in ("real_logits", "fake_logits"):
        assert (aux.metrics[name] != AUX.metrics[name]).all(), name
    logits = run(config, "gen")[1].metrics["logits"]
    np.testing.assert_allclose(logits, aux.metrics["fake_logits"], rtol=1e-5)  # of equal keys
    np.testing.assert_array_equal(run(perceptrons(augment_kind="diffaugment"))[0], each)
    config.augment.p = 0.0
    np.testing.assert_array_equal(run(config)[0], BASE)
    config.cosine.update(images="100", p=1.0)
    np.testing.assert_array_equal(run(config)[0], BASE)
    np.testing.assert_allclose(run(config, nimg=100.0)[0], each, rtol=1e-6)
    config.augment.target = 0.6
    np.testing.assert_array_equal(run(config, ada={"p": 1.0})[0], each)
    lazy = {"loss_r1_gamma": 1.0, "loss_r1_every": 4}
    penalty = run(perceptrons(augment_kind="ada", augment_p=1.0, **lazy), "disc_r1")[0]
    assert (penalty != run(perceptrons(**lazy), "disc_r1")[0]).any()


def test_multipliers_change_a_recipe():
    config = perceptrons(augment_kind="ada", augment_recipe="bgc")
    config.augment.multipliers = {"brightness": 0.5, "cutout": 1.0, "xflip": 0.0}
    made = recipes.gan.gan_losses.Augment.make(config)
    assert made.recipe["brightness"] == 0.5 and made.recipe["cutout"] == 1.0
    assert "xflip" not in made.recipe and made.recipe["hue"] == 1 and not made.adaptive


def test_blur_fades():
    config = perceptrons(loss_blur_sigma=2.0, loss_blur_images="100")
    assert (run(config)[0] != BASE).all()
    np.testing.assert_allclose(run(config, nimg=100.0)[0], BASE, rtol=1e-6)


def test_cosine_moves_rates_betas_gamma_and_the_average():
    """Against Adam by hand, with the second moment's beta of each step."""
    config = perceptrons(loss_r1_gamma=2.0, loss_r1_every=1, optimizer_b2=0.9)
    config.averages.update(halflife="50", power=(0.1,))
    config.cosine.update(images="100", g_lr=0.001, d_lr=0.001, b2=0.99, r1_gamma=0.2)
    at = lambda nimg, a, b: float(cosine.schedule(nimg, a, b, 100))
    first, last = (run(config, nimg=n)[1].metrics["penalty"] for n in (0.0, 100.0))
    np.testing.assert_allclose(last, first / 10, rtol=1e-5)
    half = {t.name: t for t in gan.averages(config).values()}["halflife_50"]
    beta = 0.5 ** (B / at(40, 0.0, 50.0))
    np.testing.assert_allclose(half.weight(jnp.float32(40 + B), B), 1 - beta, rtol=1e-5)
    assert half.weight(jnp.float32(B), B) == 1

    adam = gan.adam(config, "d_lr", every=1)
    x, v = np.zeros(3), np.zeros(3)
    params, state = jnp.zeros(3), adam.init(jnp.zeros(3))
    for i in range(4):
        g, b2 = np.array([1.0, -0.1, 1e-3]) * (i + 1), at(20 * i, 0.9, 0.99)
        v = b2 * v + (1 - b2) * g * g
        x = x - at(20 * i, 0.002, 0.001) * g / (np.sqrt(v / (1 - b2 ** (i + 1))) + 1e-8)
        u, state = adam.update(jnp.asarray(g), state, params, nimg=jnp.float32(20 * i))
        params = params + u
        np.testing.assert_allclose(params, x, rtol=1e-4)


def test_averages_side_by_side():
    config = perceptrons()
    config.averages.update(halflife="1k", power=(0.05, 0.1), rampup=0.0)
    found = gan.averages(config)
    assert found == {
        "power_0.050": Power(0.05),
        "power_0.100": Power(0.1),
        "halflife_1000": HalfLife(1000.0, None),
    }
    config.averages.rampup = 0.25
    assert gan.averages(config)["halflife_1000"] == HalfLife(1000.0, 0.25)


def test_style_mixing_and_path_length_in_the_main_phase(params):
    """Mixing leaves the tracked mean of w alone, which is of the first latents."""
    config = digits.get_config("debug")
    config.loss.update(style_mixing=1.0, path_every=1, path_batch_shrink=2)
    mixed = recipes.build(config, DIGITS)
    assert [p.name for p in mixed.phases] == ["gen", "disc", "disc_r1"]
    _, aux = jax.eval_shape(
        lambda p: loss_of(mixed, "gen")(p, a_batch(), KEYS, a_context(mixed)), params
    )
    assert aux.metrics["path_penalty"].shape == (B // 2,) and set(aux.stats) == {"w_avg", "pl_mean"}
    networks = gan.Networks.make(config, DIGITS)

    @jax.jit
    def styles(params):
        cond = networks.condition(a_batch())
        style, _ = networks.mapping(params, networks.latents(rng.split(KEYS, 2)[0]), cond)
        return style, networks.mixed(params, KEYS, style, cond)

    style, ws = styles(params)
    same = np.isclose(ws, style[:, None]).all(-1)
    assert same[:, 0].all() and not same[:, -1].any()  # the first layer is the first latent's
    assert (np.diff(same.astype(int), axis=1) <= 0).all()  # one crossover


def test_bounded_latents():
    z = gan.gan_sampling.truncated(KEYS, 100, 0.5)
    assert z.shape == (B, 100) and float(jnp.abs(z).max()) < 0.5 and float(z.std()) > 0.2
    plan = recipes.build(perceptrons(sampler_z_max=0.5), DIGITS)
    assert dict(plan.sample.options) == {"z_max": 0.5}
    keys, labels = rng.seed_keys(0, jnp.arange(3)), {"label": jnp.eye(10)[:3]}
    images = plan.sample.fn(params_of(plan), keys, labels, {})["image"]
    other = plan.sample.fn(params_of(plan), keys, labels, {}, z_max=0.0)["image"]
    assert images.shape == (3, 8, 8, 1) and bool((images != other).any())


def test_stylegan3_tracks_its_magnitudes():
    """The generator's phase sets them; the discriminator's uses the batch's and keeps nothing."""
    c = gans.base("digits", "stylegan3")
    c.generator.update(z_dim=8, w_dim=8, channel_base=64, channel_max=8, num_layers=3)
    c.discriminator.update(channel_base=64, channel_max=8)
    c.loss.update(r1_gamma=1.0, r1_every=2)
    plan = recipes.build(c, DIGITS)
    fixed = plan.players["generator"].fixed
    assert any(r"magnitude" in r for r in fixed) and not plan.players["discriminator"].fixed
    shapes = jax.eval_shape(lambda: params_of(plan))
    for name, sets in (("gen", 4), ("disc", 0)):
        _, aux = jax.eval_shape(
            lambda p, name=name: loss_of(plan, name)(p, a_batch(), KEYS, a_context(plan)),
            shapes,
        )
        found = trees.leaves(dict(aux.fixed))
        assert len(found) == sets and all(n.endswith("magnitude") for n in found)


def test_growing_stages():
    """One stage a size, of equal names; samples have the data's size in each."""
    c = gans.base("digits", "pggan")
    c.images = "100"
    c.generator.update(z_dim=4, channel_base=16, channel_max=4)
    c.discriminator.update(channel_base=16, channel_max=4)
    c.growing.update(first=4, fade="20", stable="30")
    stages = recipes.build(c, DIGITS)
    assert [s.until for s in stages] == [30, 100] and stages[0].carry is None
    for stage, size in zip(stages, (4, 8)):
        plan, keys = stage.plan, rng.seed_keys(0, jnp.arange(2))
        shapes = jax.eval_shape(lambda: params_of(plan))  # noqa: B023
        assert f"b{size}_torgb/w" in trees.leaves(shapes["generator"])
        disc = lambda p: loss_of(plan, "disc")(p, a_batch(), KEYS, a_context(plan))  # noqa: B023
        assert jax.eval_shape(disc, shapes)[0].shape == (B,)
        draw = lambda p: plan.sample.fn(p, keys, {"label": jnp.eye(10)[:2]}, {})  # noqa: B023
        assert jax.eval_shape(draw, shapes)["image"].shape == (2, 8, 8, 1)
    assert not isinstance(recipes.build(perceptrons(), DIGITS), list)
    assert isinstance(recipes.build(perceptrons(), DIGITS), Plan)


def test_dropout_differs_between_sides():
    """A discriminator's dropout is drawn from the batch's key, apart for real and generated."""
    config = perceptrons(discriminator_dropout=0.5)
    plan = recipes.build(config, DIGITS)
    context, params = a_context(plan), params_of(plan)
    one = loss_of(plan, "disc")(params, a_batch(), KEYS, context)[0]
    other = dataclasses.replace(context, key=jax.random.key(4))
    assert (one != loss_of(plan, "disc")(params, a_batch(), KEYS, other)[0]).any()
