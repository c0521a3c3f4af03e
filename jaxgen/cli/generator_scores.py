"""Metrics of a generator without real images: path lengths, separability, equivariance."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxgen.cli import common, styles


class Scorer:
    """The scores of many averages of one run's generator with styles.

    Args:
      run: whose generator it is. names: out of metrics.evaluate.OF_GENERATORS. net: a feature net,
      None for equivariance only. num: pairs of latents, or images. seed: of them all. options: of
      the sampler, which must be the run's own.
    Raises:
      ValueError: a run without styles, sampler options, a net that does not classify.
    """

    def __init__(
        self,
        run: common.Run,
        names: Sequence[str],
        net: Any,
        num: int,
        seed: int,
        options: Mapping[str, Any],
    ):
        from jaxgen.metrics import evaluate

        styles.check(run, f"the metric {names[0]!r}")
        if options:
            raise ValueError(
                f"{', '.join(names)}: of latents as they are drawn, without truncation; leave "
                f"--option out, got {dict(options)}"
            )
        self.net, self.num = net, num
        self.rows = styles.rows_of(run, range(num), seed)
        h, w, _ = run.facts["shape"]
        chunk = min(num, 64, max(8, 2**24 // (h * w)))  # a path has two images and their features
        paths = [n for n in names if n in evaluate.PATHS]
        self.paths = styles.Tool(run, self.lengths(paths), chunk) if paths else None
        self.images = self.moves = None
        if "separability" in names:
            net.check_classifier()
            self.images = styles.Tool(run, self.classified, chunk)
        self.equivariance = [n for n in names if n in evaluate.EQUIVARIANCE]
        if self.equivariance:
            self.moves = Moves(run, num, seed)

    def lengths(self, names: Sequence[str]) -> Any:
        """The function of generator and rows that gives the path lengths of these names."""
        from jaxgen.metrics import evaluate, perceptual_path

        def f(generator: Any, rows: Mapping[str, Any]) -> dict[str, Any]:
            given = (generator.latents, generator.mapping, generator.synthesis, self.net)
            cond = styles.cond_of(rows)
            return {
                n: perceptual_path.lengths(rows["key"], *given, cond, **evaluate.PATHS[n])
                for n in names
            }

        return f

    def classified(self, generator: Any, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Latents and what the classifier says of their images."""
        from jaxgen.common import rng

        z = generator.latents(rows["key"])
        w = generator.mapping(z, styles.cond_of(rows))
        images = generator.synthesis(w, rng.split(rows["key"], 2)[1])
        return {"z": z, "w": w, "logits": self.net.logits(images)}

    def __call__(self, params: Mapping[str, Any]) -> dict[str, float]:
        """{"ppl_w_full@net": ..., "separability_w@net": ...} of one set of weights."""
        from jaxgen.metrics import perceptual_path, separability

        found: dict[str, float] = {}
        if self.paths:
            lengths = self.paths.whole(params, self.rows, self.num)
            found |= {n: perceptual_path.mean(x) for n, x in lengths.items()}
        if self.images:
            x = self.images.whole(params, self.rows, self.num)
            keep = separability.confident(x["logits"])
            label = x["logits"].argmax(-1)[keep]
            for space in ("z", "w"):
                found[f"separability_{space}"] = separability.separability(x[space][keep], label)
        found = {f"{n}@{self.net.name}": x for n, x in found.items()}
        if self.moves:
            decibels = self.moves(params)
            found |= {n: decibels[n] for n in self.equivariance}
        return found


class Moves:
    """EQ-T, EQ-T_frac and EQ-R in decibels of at least `num` images, in whole batches of the mesh.

    Raises:
      ValueError: a run whose generator cannot move its input.
    """

    def __init__(self, run: common.Run, num: int, seed: int):
        import jax

        from jaxgen.common import mesh as meshes

        export, self.seed, self.run = run.plan.exports["generator"], seed, run
        self.batch = -(-4 // run.mesh.size) * run.mesh.size  # the paper has batches of 4
        self.num = -(-num // self.batch) * self.batch
        self.rows = styles.rows_of(run, range(self.num), seed)
        find = lambda g, r: g.mapping(g.latents(r["key"]), styles.cond_of(r))
        self.find = styles.Tool(run, find, self.batch)
        whole, rows = meshes.replicated(run.mesh), meshes.batch_sharding(run.mesh)
        self.synthesis = jax.jit(
            lambda weights, ws, transform: export.fn(*weights).moved(ws, transform),
            in_shardings=(whole, rows, whole),
            out_shardings=rows,
        )

    def __call__(self, params: Mapping[str, Any]) -> dict[str, float]:
        """{"eq_t", "eq_t_frac", "eq_r"} of one set of weights."""
        from jaxgen.metrics import equivariance

        weights = self.find.put(params)
        if self.run.plan.exports["generator"].fn(*weights).moved is None:
            raise ValueError(
                "eq_t, eq_t_frac and eq_r need a generator whose input can be moved (stylegan3), "
                f"and that of {self.run.workdir} is {self.run.config.generator.network!r}"
            )
        synthesis = lambda ws, transform: self.synthesis(weights, ws, transform)
        ways = self.find(params, self.rows, self.num)
        return equivariance.measure(synthesis, ways, self.seed)
