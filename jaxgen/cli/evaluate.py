"""`jaxgen evaluate`: samples of an average against real images, or restorations against truth."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxgen.cli import common, guiding


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "evaluate",
        "Score samples of a run against real images. Every number names its feature net.",
        "jaxgen evaluate --workdir runs/digits --metrics frechet,kernel,precision_recall "
        "--num 2000\n"
        "  jaxgen evaluate --workdir runs/faces --metrics ppl_w_end,separability,eq_t",
    )
    common.add_run_flags(p)
    what = p.add_argument_group("metrics")
    what.add_argument("--metrics", help="comma-separated (default: those of the plan)")
    what.add_argument("--features", help="feature net (default: the config's)")
    what.add_argument("--num", type=int, default=2000, help="samples to draw (default 2000)")
    what.add_argument(
        "--num_real",
        type=int,
        help="training images to compare with, the first ones: not of data sorted by class "
        "(default: all)",
    )
    what.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    what.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="sampler option"
    )
    what.add_argument("--out", help="JSON file (default: WORKDIR/evaluations/...)")
    guiding.add_flags(p)
    return p


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    common.setup_jax()
    from pathlib import Path

    from jaxgen.common import provenance
    from jaxgen.train.store import write_json

    run = common.Run.open(args.workdir, verify=not args.no_verify)
    metrics = args.metrics.split(",") if args.metrics else list(run.plan.evals)
    options = common.parse_options(args.option, dict(run.plan.sample.options))
    guide = guiding.open_guide(run, args)
    scorer = Scorer(run, metrics, args.features, args.num, args.seed, options, guide, args.num_real)
    average = run.average(args.average, args.nimg)
    scores = scorer(average.params)
    for name, value in scores.items():
        floor = scorer.floor.get(name)
        print(
            f"{name:<40} {value:12.5g}" + (f"   (floor {floor:.5g})" if floor is not None else "")
        )
    name = f"{average.facts['profile']}@{average.facts['nimg']}-{args.num}-seed{args.seed}"
    how = [*args.option, *([f"guidance={args.guidance:g}", args.interval or ""] if guide else [])]
    how += [f"{args.num_real}real"] if args.num_real else []
    name = "-".join([name, *filter(None, how)]).replace("/", "_") + ".json"
    out = Path(args.out) if args.out else run.workdir / "evaluations" / name
    write_json(out, {"scores": scores, **scorer.facts(), **average.facts, **provenance.facts()})
    print(f"written to {out}")
    return 0


class Scorer:
    """Metrics of many averages against one set of real features.

    `floor` holds the same metrics of the real test split against the real training split.
    Plans that restore (they sample from held-out images) are scored by PSNR in decibels, of the
    restored and of the corrupted images against the clean ones. Metrics of a generator
    need no real images. num_real: training images to compare with, the first ones; None: all.
    """

    def __init__(
        self,
        run: common.Run,
        metrics: Sequence[str],
        features: str | None,
        num: int,
        seed: int,
        options: Mapping[str, Any] | None = None,
        guide: guiding.Guide | None = None,
        num_real: int | None = None,
    ):
        from jaxgen.cli import generator_scores, sampling
        from jaxgen.metrics import evaluate, stream
        from jaxgen.metrics import features as nets

        self.run, self.num, self.seed = run, num, seed
        self.options, self.guide = dict(options or {}), guide
        self.floor: dict[str, float] = {}
        self.net = None
        self.restores = "psnr" in metrics
        self.metrics = [m for m in metrics if m != "psnr"]
        evaluate.check(self.metrics)
        of_generator = [m for m in self.metrics if m in evaluate.OF_GENERATORS]
        self.held_out = run.held_out()
        self.sampler = sampling.Sampler(run.plan, run.mesh, min(num, 256), options, guide)
        if self.restores and "image" not in run.plan.sample.needs:
            raise ValueError("psnr needs a plan that restores images; this one makes new ones")
        if set(self.metrics) - set(evaluate.EQUIVARIANCE):
            name = features or run.config.features
            if name == "auto":
                name = nets.default_for(run.facts["name"], tuple(run.facts["shape"]))
            self.net = nets.load(name)
        self.generator = None
        if of_generator:
            self.metrics = [m for m in self.metrics if m not in of_generator]
            self.generator = generator_scores.Scorer(
                run, of_generator, self.net, num, seed, self.options
            )
        if self.metrics:
            if run.facts["name"] == "imported":
                raise ValueError(
                    f"{run.workdir} was imported without data to compare with; import it again "
                    "with --data SOURCE"
                )
            real, test = (
                common.load_source(run.config.data.source, split) for split in ("train", "test")
            )
            self.num_real = len(real) if num_real is None else num_real
            if not 2 <= self.num_real <= len(real):
                raise ValueError(f"num_real must be 2 to {len(real)}, the images, got {num_real}")
            of = lambda source, n: stream.features(self.net, _images(source, n), run.mesh)
            self.real, kept = of(real, self.num_real), of(test, min(num, len(test)))
            self.floor = evaluate.compare(kept, self.real, self.metrics, net_name=self.net.name)

    def __call__(self, params: Mapping[str, Any]) -> dict[str, float]:
        """The scores of one set of weights."""
        from jaxgen.cli import sampling

        plan, facts = self.run.plan, self.run.facts
        found = self.generator(params) if self.generator else {}
        if not self.metrics and not self.restores:
            return found
        batch = sampling.inputs(
            plan, facts, self.num, labels=None, source=self.held_out, guide=self.guide
        )
        return {**self.score(self.sampler(params, batch, self.num, self.seed)), **found}

    def score(self, parts: Iterator[Mapping[str, Any]]) -> dict[str, float]:
        """The scores of images that come in chunks."""
        import numpy as np

        from jaxgen.common import units
        from jaxgen.metrics import evaluate, psnr, stream

        restored: dict[str, list] = {"psnr": [], "psnr_input": []}

        def watch() -> Iterator[Any]:
            for part in parts:
                if self.restores:
                    restored["psnr"].append(psnr.psnr(part["image"], part["target"]))
                    restored["psnr_input"].append(psnr.psnr(part["input"], part["target"]))
                yield units.to_uint8(part["image"])  # scored as it would be saved

        if self.metrics:
            fake = stream.features(self.net, watch(), self.run.mesh)
            scores = evaluate.compare(fake, self.real, self.metrics, net_name=self.net.name)
        else:
            scores = {}
            for _ in watch():
                pass
        means = {n: float(np.mean(np.concatenate(v))) for n, v in restored.items() if v}
        return {**means, **scores}

    def facts(self) -> dict[str, Any]:
        """What the scores depend on."""
        found: dict[str, Any] = {"num": self.num, "seed": self.seed, "options": self.options}
        found |= self.guide.facts if self.guide else {}
        if self.net is not None:
            found |= {"feature_net": self.net.facts()}
        if self.metrics:
            found |= {"num_real": self.num_real, "floor": self.floor}
        return found


def _images(source: Any, num: int) -> Iterator[Any]:
    """The source's first `num` images, in chunks."""
    from jaxgen.data import pipeline

    for batch in itertools.islice(pipeline.epoch(source, 256), -(-num // 256)):
        yield batch["image"][:num]
        num -= len(batch["image"])
