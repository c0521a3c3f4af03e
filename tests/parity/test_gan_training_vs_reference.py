"""The GAN recipe's phases and optimizers against the authors' (see their README).

What is random here is dealt out from the reference's draws: latents, crossovers, the constant
noise, directions of path length and which half of the batch it takes, augmentations at a
percentile. Only where generated images have other labels than the real ones of their batch, which
the recipe never does, the discriminator's two sides are compared one by one.
"""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ada_vs_reference import at_percentile

from configs import gans
from jaxgen import recipes
from jaxgen.common import rng
from jaxgen.interop import stylegan2 as interop
from jaxgen.objectives import ada, path_length
from jaxgen.recipes import gan
from jaxgen.train.plan import Context

SLOW = pytest.mark.slow
RES, Z, W = 16, 16, 20
PLAYERS = {"G": "generator", "D": "discriminator"}


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


@dataclasses.dataclass
class Reference:
    """A file of the reference, our plan of it, and its networks as interop reads them."""

    arrays: dict
    meta: dict
    plan: object
    params: dict
    G: object
    D: object

    def official(self, player, tree):
        """A tree of `player` by official names."""
        if player == "G":
            return interop.dump_generator(dataclasses.replace(self.G, variables={"params": tree}))
        return interop.dump_discriminator(dataclasses.replace(self.D, variables={"params": tree}))


def read(goldens, name, combined=False):
    """`combined`: regularisers in the main phases."""
    with np.load(goldens / f"gan/{name}.npz", allow_pickle=False) as z:
        a, meta = {k: z[k] for k in z.files if k != "meta"}, json.loads(str(z["meta"]))
    c_dim, widths = meta["c_dim"], {k: meta["G"][k] for k in ("channel_base", "channel_max")}
    of = lambda p: {k.split(".", 2)[2]: v for k, v in a.items() if k.split(".")[:2] in p}
    G = interop.load_generator(
        of([["param", "G"], ["buffer", "G"]]), z_dim=Z, w_dim=W, c_dim=c_dim,
        img_resolution=RES, img_channels=3, mapping_kwargs={"num_layers": 2},
        synthesis_kwargs=widths,
    )  # fmt: skip
    D = interop.load_discriminator(
        of([["param", "D"], ["buffer", "D"]]), c_dim=c_dim, img_resolution=RES, img_channels=3,
        mapping_kwargs={"num_layers": 2}, **widths,
    )  # fmt: skip
    c = gans.base("digits", "stylegan2")
    c.dtype, c.batch = "float32", meta["batch"]
    c.generator.update(z_dim=Z, w_dim=W, mapping_layers=2, **widths)
    c.discriminator.update(mapping_layers=2, **widths)
    c.loss.update(
        r1_gamma=meta["r1_gamma"],
        r1_every=1 if combined else 16,
        path_every=1 if combined else 4,
        style_mixing=meta["style_mixing_prob"],
    )
    if meta["augment"]:
        c.augment.update(kind="ada", recipe="bgc", p=1.0)
    kind = "class" if c_dim else "none"
    facts = {"shape": (RES, RES, 3), "label_dim": c_dim, "label_kind": kind}
    plan = recipes.build(c, facts)
    params = {"generator": G.variables["params"], "discriminator": D.variables["params"]}
    return Reference(a, meta, plan, params, G, D)


NOISY = ("b4_conv1", "b8_conv0", "b8_conv1", "b16_conv0", "b16_conv1")


@contextlib.contextmanager
def dealt(params, latents, direction=None, crossover=None, percentile=None):
    """Draws in place of random ones, told apart by their shapes.

    latents: (b, z), in order. direction: of path length, before it is divided. crossover: layer.
    """
    queue = iter(latents)
    synthesis = params["generator"]["synthesis"]
    noise = jnp.concatenate([synthesis[n]["noise_const"].ravel() for n in NOISY])

    def normal(keys, shape):
        if shape == (Z,):
            return next(queue)[: len(keys)]
        if shape == noise.shape:
            return jnp.broadcast_to(noise, (len(keys), *shape))
        assert shape == (RES, RES, 3), shape
        return direction

    def uniform(keys, shape=()):
        assert shape == (2,)  # gate and crossover of style mixing
        return jnp.broadcast_to(jnp.array([0.0, (crossover - 0.5) / 5]), (len(keys), 2))

    def draw(keys, p, recipe):
        del p
        w = at_percentile(percentile, dict.fromkeys(recipe, 1))
        return {n: jnp.broadcast_to(w[n], (len(keys), len(w[n]))) for n in recipe}

    def first(tree, factor):
        return jax.tree.map(lambda x: x[: len(x) // factor], tree)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rng, "normal", normal)
        patch.setattr(rng, "uniform", uniform)
        patch.setattr(ada, "draw", draw)
        patch.setattr(path_length, "shrink", first)
        yield
        assert next(queue, None) is None, "a latent was not used"


def phase_at(reference, phase, name, labels=None):
    """(mean loss, aux) of our phase `name` as functions of its player's params, and what is stored.

    labels: whose they are, "gen_c" or "real_c"; by default those of the phase's player.
    """
    a, meta, player = reference.arrays, reference.meta, PLAYERS[phase[0]]
    stored = {k.removeprefix(f"{phase}."): v for k, v in a.items() if k.startswith(f"{phase}.")}
    drawn = [v for k, v in stored.items() if k.startswith("randn_like")]
    second = [d for d in drawn if d.ndim == 2]
    direction = next((nhwc(d) for d in drawn if d.ndim == 4), None)
    latents = [jnp.asarray(a["in.z"])] * {"Gboth": 2, "Dreg": 0}.get(phase, 1)
    if second:  # each run of the generator has a second latent
        latents = [jnp.asarray(x) for pair in zip(latents, second) for x in pair]
        ws = stored["ws_used0"]
        crossover = int((ws == ws[:, :1]).all((0, 2)).sum())
    batch = {"image": nhwc(a["in.real"])}
    if meta["c_dim"]:
        labels = labels or {"G": "gen_c", "D": "real_c"}[phase[0]]
        batch["label"] = jnp.asarray(a[f"in.{labels}"]).argmax(-1)
    draws = (
        latents,
        direction,
        crossover if second else None,
        meta["augment"][1] if meta["augment"] else None,
    )
    stats = {"w_avg": a["buffer.G.mapping.w_avg"], "pl_mean": meta["pl_mean_before"]}
    stats = {n: jnp.float32(s) for n, s in stats.items()}
    loss = next(p.loss for p in reference.plan.phases if p.name == name)
    keys = rng.image_keys(jax.random.key(0), meta["batch"])
    context = Context(jnp.int32(0), jnp.float32(0), jax.random.key(0), stats, {}, {})

    def mean(p):
        params = {**reference.params, player: p}
        with dealt(reference.params, *draws):
            each, aux = loss(params, batch, keys, context)
        return each.mean(), aux

    return mean, stored


def report(stored, name):
    return np.ravel(next(v for k, v in stored.items() if k.endswith(name)))


COMBINED = {"Gboth": "gen", "Dboth": "disc"}
NAMES = {"Gmain": "gen", "Greg": "gen_path", "Dmain": "disc", "Dreg": "disc_r1"} | COMBINED
SLOWER = [
    *(("losses_sg2", phase) for phase in NAMES),
    *(("losses_sg2_cond_mix", phase) for phase in ("Gmain", "Gboth", "Dreg")),
    *(("losses_sg2_aug", phase) for phase in ("Gmain", "Gboth", "Dmain", "Dboth")),
]


@pytest.mark.parametrize(
    "file, phase",
    [
        ("losses_sg2_cond_mix", "Greg"),
        ("losses_sg2_aug", "Dreg"),
        *(pytest.param(*case, marks=SLOW) for case in SLOWER),
    ],
)
def test_phases(goldens, file, phase, capsys):
    """Logits, penalties, statistics and every gradient."""
    reference, name = read(goldens, file, phase in COMBINED), NAMES[phase]
    mean, stored = phase_at(reference, phase, name)
    player = PLAYERS[phase[0]]
    run = jax.jit(jax.grad(mean, has_aux=True))
    with jax.default_matmul_precision("highest"):
        grads, aux = run(reference.params[player])
    got = aux.metrics
    wanted = {
        "gen": {"logits": "scores_fake", "path_penalty": "G_reg"},
        "gen_path": {"penalty": "G_reg"},
        "disc": {"real_logits": "scores_real", "fake_logits": "scores_fake", "penalty": "D_reg"},
        "disc_r1": {"penalty": "D_reg"},
    }[name]
    for ours, theirs in wanted.items():
        if ours in got:
            np.testing.assert_allclose(got[ours], report(stored, theirs), rtol=2e-4, atol=2e-6)
    if "pl_mean" in aux.stats:  # it is in the penalty; the files hold the mean before it moved
        lengths = got["length" if name == "gen_path" else "path_length"].mean()
        np.testing.assert_allclose(aux.stats["pl_mean"], 0.3 + 0.01 * (lengths - 0.3), rtol=1e-5)
    if phase == "Gmain":  # of the first latents, before mixing; the files hold the mean before
        w = stored["ws_used0"][:, 0].mean(0)
        before = reference.arrays["buffer.G.mapping.w_avg"]
        np.testing.assert_allclose(aux.stats["w_avg"], w + 0.995 * (before - w), atol=2e-6)
    tolerance, worst = 2e-4 if phase.endswith("main") else 1e-3, 0.0
    found, compared = reference.official(phase[0], grads), 0
    for key, g in found.items():
        if f"grad.{key}" in stored:
            want, compared = stored[f"grad.{key}"], compared + 1
            gap = np.abs(g - want).max() / (np.abs(want).max() or 1)  # of a penalty some are 0
            worst = max(worst, gap)
            assert gap < tolerance, (key, gap)
        if f"gradnorm.{key}" in stored:
            norm, compared = np.linalg.norm(g.ravel()), compared + 1
            want = stored[f"gradnorm.{key}"]
            np.testing.assert_allclose(norm, want, rtol=tolerance, atol=1e-6, err_msg=key)
    assert compared > 10
    with capsys.disabled():
        print(f"\n{file} {phase}: gradients off by at most {worst:.1e} of their largest entry")


@pytest.mark.slow
def test_each_side_has_its_own_labels(goldens):
    """The discriminator's logits of real images, and of mixed ones with other labels."""
    reference = read(goldens, "losses_sg2_cond_mix")
    for labels, ours, theirs in (
        ("real_c", "real_logits", "scores_real"),
        ("gen_c", "fake_logits", "scores_fake"),
    ):
        mean, stored = phase_at(reference, "Dmain", "disc", labels)
        _, aux = jax.jit(mean)(reference.params["discriminator"])
        want = report(stored, theirs)
        np.testing.assert_allclose(aux.metrics[ours], want, rtol=2e-4, atol=2e-6)


def test_optimizers_and_average_of_a_run(goldens):
    """Rates and betas of both players, corrected for lazy phases, and the average's of each step.

    The run itself cannot be repeated: where its initial parameters should be, the file holds the
    final ones.
    """
    with np.load(goldens / "gan/train_sg2_6steps.npz", allow_pickle=False) as z:
        meta = json.loads(str(z["meta"]))
        assert (z["param.D.b4.fc.weight"] == z["final.D.b4.fc.weight"]).all()
    c = gans.base("digits", "stylegan2")
    c.optimizer.g_lr = c.optimizer.d_lr = meta["lr"]
    c.averages.update(power=(), halflife="20", rampup=meta["ema_rampup"])
    (tracker,) = gan.averages(c).values()
    for it, beta in enumerate(meta["ema_betas"]):
        weight = tracker.weight(jnp.float32((it + 1) * meta["batch"]), meta["batch"])
        np.testing.assert_allclose(1 - weight, beta, atol=1e-6)
    for player, rate, every in (("G", "g_lr", "G_reg_interval"), ("D", "d_lr", "D_reg_interval")):
        optimizer, want = gan.adam(c, rate, meta[every]), meta["optimiser"][player]
        x, state = jnp.zeros(1), optimizer.init(jnp.zeros(1))
        v, position = 0.0, 0.0
        for i, g in enumerate((1.0, -3.0, 0.5)):
            v = want["beta2"] * v + (1 - want["beta2"]) * g * g
            position -= want["lr"] * g / np.sqrt(v / (1 - want["beta2"] ** (i + 1)))
            u, state = optimizer.update(jnp.array([g]), state, x, nimg=jnp.float32(0))
            x = x + u
            np.testing.assert_allclose(x, position, rtol=1e-4)
