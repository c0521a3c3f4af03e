"""`jaxgen evaluate`: samples of an average against real images, or restorations against truth."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.cli import common, guiding, nets, references

FEW = 10  # samples a dimension up to which features are kept, whatever is asked for


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
    what.add_argument("--num", type=int, default=2000, help="samples to draw (default 2000)")
    what.add_argument(
        "--num_real", type=int, help="training images, of every class its share (all)"
    )
    what.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    what.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="sampler option"
    )
    what.add_argument("--out", help="JSON file (default: WORKDIR/evaluations/...)")
    net = p.add_argument_group("feature net and protocol")
    net.add_argument("--features", help="feature net (default: the config's)")
    nets.add_flags(net)
    net.add_argument("--k", type=int, help="neighbours (3; 5 for density and coverage)")
    net.add_argument("--ties", choices=("<=", "<"), help="whether a ball has its boundary")
    net.add_argument("--subsets", metavar="NxSIZE", help="of kernel_subsets (100x1000)")
    net.add_argument("--splits", type=int, help="of inception_score (10)")
    references.add_flags(net)
    guiding.add_flags(p)
    common.add_process_flags(p, explained=False)
    return p


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    with common.several(args):
        return _run(args)


def _run(args: Any) -> int:
    """Scores, in one process or in several that share the samples."""
    import jax

    from jaxgen.common import provenance
    from jaxgen.metrics import stream
    from jaxgen.train.store import write_json

    settings = settings_of(args)
    run = common.Run.open(args.workdir, verify=not args.no_verify)
    if jax.process_count() > 1:
        run.mesh = stream.local(run.mesh)  # each process draws and scores its share
    metrics = args.metrics.split(",") if args.metrics else list(run.plan.evals)
    options = common.parse_options(args.option, dict(run.plan.sample.options))
    guide = guiding.open_guide(run, args)
    scorer = Scorer(
        run,
        metrics,
        args.features,
        args.num,
        args.seed,
        options,
        guide,
        args.num_real,
        weights=args.weights,
        like=args.like,
        settings=settings,
        cache=None if args.cache == "none" else args.cache or references.folder(),
        reference=args.reference,
    )
    average = run.average(args.average, args.nimg)
    scores = scorer(average.params)
    for name, value in scores.items():
        floor = scorer.floor.get(name)
        print(
            f"{name:<40} {value:12.5g}" + (f"   (floor {floor:.5g})" if floor is not None else "")
        )
    for note in scorer.notes(scores):
        print(f"note: {note}")
    if jax.process_index() > 0:
        return 0
    name = f"{average.facts['profile']}@{average.facts['nimg']}-{args.num}-seed{args.seed}"
    how = [*args.option, *([f"guidance={args.guidance:g}", args.interval or ""] if guide else [])]
    how += [f"{args.num_real}real"] if args.num_real else []
    how += [args.features or "", args.like or "", *(f"{k}={v}" for k, v in chosen(args).items())]
    name = "-".join([name, *filter(None, how)]).replace("/", "_") + ".json"
    out = Path(args.out) if args.out else run.workdir / "evaluations" / name
    write_json(out, {"scores": scores, **scorer.facts(), **average.facts, **provenance.facts()})
    print(f"written to {out}")
    if scorer.pairs is not None:
        from jaxgen.common import pictures

        pictures.save_png(scorer.pairs, out.with_suffix(".nearest.png"))
        print(f"samples beside their nearest training images: {out.with_suffix('.nearest.png')}")
    return 0


def chosen(args: Any) -> dict[str, Any]:
    """The flags of metrics that were given."""
    return {n: v for n in ("k", "ties", "subsets", "splits") if (v := getattr(args, n))}


def settings_of(args: Any) -> Any:
    """metrics.evaluate.Settings of the flags: those of --like, changed by the others."""
    import dataclasses

    from jaxgen.metrics import evaluate

    found = evaluate.like(args.like) if args.like else evaluate.Settings()
    given = chosen(args)
    if "subsets" in given:
        n, _, size = given.pop("subsets").partition("x")
        if not (n.isdigit() and size.isdigit()):
            raise ValueError(f"--subsets must look like 100x1000, got {args.subsets!r}")
        given |= {"subsets": int(n), "subset_size": int(size)}
    if "k" in given:
        given["neighbours"] = given.pop("k")
    return dataclasses.replace(found, seed=args.seed, **given)


class Scorer:
    """Metrics of many averages against one set of real features.

    `floor` holds the same metrics of the real test split against the real training split.
    Plans that restore (they sample from held-out images) are scored by PSNR in decibels, of the
    restored and of the corrupted images against the clean ones. Metrics of a generator
    need no real images. num_real: training images to compare with, of every class its share; None:
    all. weights, like: of `nets.open_net`. settings: metrics.evaluate.Settings. cache, reference:
    of `references.find`, of the training images. Moments take the place of features when
    `frechet` is all that is asked for, of more than FEW images a dimension.
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
        *,
        weights: str | None = None,
        like: str | None = None,
        settings: Any = None,
        cache: str | Path | None = None,
        reference: str | Path | None = None,
    ):
        from jaxgen.cli import generator_scores, sampling
        from jaxgen.metrics import evaluate
        from jaxgen.metrics import features as feature_nets

        self.run, self.num, self.seed = run, num, seed
        self.settings = settings or evaluate.Settings()
        self.pairs: Any = None  # a picture of samples beside their nearest training images
        self.fake: Any = None
        self.real: Any = None
        self.kept: Any = None  # features of held-out images
        self.training: Any = None  # the images that `real` is of
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
            name = features or (None if like else run.config.features)
            if name == "auto":
                name = feature_nets.default_for(run.facts["name"], tuple(run.facts["shape"]))
            self.net = nets.open_net(name, weights, like)
            evaluate.check_net(self.metrics, self.net)
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
            real, test = (
                references.choose(real, num_real),
                references.choose(test, min(num, len(test))),
            )
            self.num_real, self.training = len(real), real
            self.real = references.find(
                real,
                self.net,
                self.keeps_moments(len(real)),
                run.mesh,
                cache=cache,
                file=reference,
            )
            self.kept = references.find(
                test, self.net, self.keeps_moments(len(test)), run.mesh, cache=cache
            )
            self.floor = self.floor_of(test)

    def keeps_moments(self, num: int) -> bool:
        """Whether moments of so many images are all that the metrics need."""
        import math

        from jaxgen.metrics import evaluate

        dim = self.net.dim or math.prod(self.run.facts["shape"])
        return set(self.metrics) <= set(evaluate.OF_MOMENTS) and num > FEW * dim

    def floor_of(self, test: Any) -> dict[str, float]:
        """The metrics of the test split; in subsets of half of it at most."""
        import dataclasses

        from jaxgen.metrics import evaluate

        names = [m for m in self.metrics if m != evaluate.MEMORISATION]
        size = min(self.settings.subset_size, max(len(test) // 2, 2))
        shown = None
        if evaluate.DIVERSITY in names:
            import numpy as np

            shown = np.concatenate(list(references.images(test, slice(0, len(test)))))
        return evaluate.compare(
            self.kept,
            self.real,
            names,
            net_name=self.net.name,
            net=self.net,
            settings=dataclasses.replace(self.settings, subset_size=size),
            images=shown,
        )

    def __call__(self, params: Mapping[str, Any]) -> dict[str, float]:
        """The scores of one set of weights."""
        import jax

        from jaxgen.cli import sampling
        from jaxgen.metrics import stream

        plan, facts = self.run.plan, self.run.facts
        found = self.generator(params) if self.generator else {}
        if not self.metrics and not self.restores:
            return found
        batch = sampling.inputs(
            plan, facts, self.num, labels=None, source=self.held_out, guide=self.guide
        )
        rows = stream.share(self.num)
        batch = jax.tree.map(lambda x: x[rows], batch)
        num = rows.stop - rows.start
        parts = self.sampler(params, batch, num, self.seed, first=rows.start)
        return {**self.score(parts, self.num), **found}

    def score(self, parts: Iterator[Mapping[str, Any]], num: int | None = None) -> dict[str, float]:
        """The scores of images that come in chunks; num: of all processes together, if known."""
        import numpy as np

        from jaxgen.common import units
        from jaxgen.metrics import evaluate, psnr, stream

        restored: dict[str, list] = {"psnr": [], "psnr_input": []}
        shown: list[np.ndarray] = []
        keep = {evaluate.DIVERSITY, evaluate.MEMORISATION} & set(self.metrics)

        def watch() -> Iterator[Any]:
            for part in parts:
                if self.restores:
                    restored["psnr"].append(psnr.psnr(part["image"], part["target"]))
                    restored["psnr_input"].append(psnr.psnr(part["input"], part["target"]))
                images = units.to_uint8(part["image"])  # scored as it would be saved
                shown.extend([images] if keep else [])
                yield images

        scores: dict[str, float] = {}
        if self.metrics:
            make = stream.moments if num and self.keeps_moments(num) else stream.features
            self.fake = stream.joined(make(self.net, watch(), self.run.mesh))
            images = stream.joined(np.concatenate(shown)) if keep else None
            scores = evaluate.compare(
                self.fake,
                self.real,
                self.metrics,
                net_name=self.net.name,
                net=self.net,
                settings=self.settings,
                images=images,
                held_out=self.kept,
            )
            if evaluate.MEMORISATION in self.metrics:
                self.pairs = self.picture(images)
        else:
            for _ in watch():
                pass
        values = {n: stream.joined(np.concatenate(v)) for n, v in restored.items() if v}
        return {**{n: float(np.mean(v)) for n, v in values.items()}, **scores}

    def picture(self, images: Any, most: int = 24) -> Any:
        """The samples that are nearest to training images, each beside that image, uint8."""
        import numpy as np

        from jaxgen.common import pictures
        from jaxgen.metrics import memorisation

        found = memorisation.to_training(self.fake, self.real)
        order = np.argsort(found.distance, kind="stable")[:most]
        nearest = np.stack([self.training[int(found.index[i])]["image"] for i in order])
        both = np.concatenate([images[order], nearest], axis=2)
        return pictures.grid(both, columns=6, scale=max(1, 64 // both.shape[1]), pad=3)

    def notes(self, scores: Mapping[str, float]) -> list[str]:
        """What is to be known of the last scores."""
        from jaxgen.metrics.frechet_infinity import bias_note
        from jaxgen.metrics.moments import Moments

        sets = self.fake, self.real
        if "frechet" not in self.metrics or isinstance(self.fake, Moments):
            return []
        value = scores[f"frechet@{self.net.name}"]
        note = bias_note(*sets, value, ddof=self.settings.ddof, seed=self.settings.seed)
        return [note] if note else []

    def facts(self) -> dict[str, Any]:
        """What the scores depend on."""
        found: dict[str, Any] = {"num": self.num, "seed": self.seed, "options": self.options}
        found |= self.guide.facts if self.guide else {}
        if self.net is not None:
            found |= {"feature_net": self.net.facts()}
        if self.metrics:
            found |= {"num_real": self.num_real, "floor": self.floor}
            found |= {"settings": self.settings.changed()} if self.settings.changed() else {}
        return found
