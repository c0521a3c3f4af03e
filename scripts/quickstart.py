#!/usr/bin/env python
"""The main job, end to end, on the digits that ship with scikit-learn.

Trains the score network of configs/edm2/digits.py, rebuilds three EMA lengths from its snapshots,
draws a class-ordered grid for each, and compares each with the training images.
"""

import json
import sys
import time
from pathlib import Path

from jaxgen.cli import common, evaluate, sampling, train
from jaxgen.cli.average import table

LENGTHS = (0.03, 0.08, 0.15)


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser("quickstart", __doc__.partition("\n")[0], "scripts/quickstart")
    p.prog = "scripts/quickstart"
    p.add_argument("--config", default="configs/edm2/digits.py", help="another config")
    p.add_argument("--workdir", default="runs/quickstart", help="folder of the run")
    p.add_argument("--num", type=int, help="samples to score (default: as many as test images)")
    return p


def main(argv: list[str]) -> int:
    """Trains, or finds the finished run, and shows the table."""
    args = parser().parse_args(argv)
    workdir = Path(args.workdir)
    path = workdir / "results.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    if "averages" in found:
        print(f"found the finished run in {workdir} (delete the folder to start over)\n")
        show(found, workdir)
        return 0
    start = time.perf_counter()
    code = train.main(["--config", args.config, "--workdir", str(workdir)])
    if code:
        return code
    print("\nchoosing EMA lengths after training, drawing and scoring ...")
    results = score(workdir, args.num)
    trained = json.loads(path.read_text())
    results = {**trained, **results, "seconds": round(time.perf_counter() - start, 1)}
    from jaxgen.train.store import write_json

    write_json(path, results)
    show(results, workdir)
    return 0


def score(workdir: Path, num: int | None) -> dict:
    """Draws and scores an average of every length, the held-out images and noise."""
    import numpy as np

    from jaxgen.common import pictures

    run = common.Run.open(workdir)
    if num is None:
        num = len(common.load_source(run.config.data.source, "test"))
    scorer = evaluate.Scorer(run, ("frechet", "kernel"), None, num, seed=0)
    classes = list(range(run.facts["label_dim"]))
    labels = sampling.class_labels(100, classes, ordered=True)
    batch = sampling.inputs(run.plan, run.facts, 100, labels=labels)
    averages = []
    for length in LENGTHS:
        average = run.average(length)
        images = sampling.collect(scorer.sampler(average.params, batch, 100, 0))
        file = workdir / f"samples_{average.facts['profile']}.png"
        pictures.save_png(sampling.picture(images, columns=10), file)
        scores = short(scorer(average.params))
        averages.append({"length": length, **scores, "grid": file.name, **average.facts})
    shape = (num, *run.facts["shape"])
    noise = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    return {
        "averages": averages,
        "floor": short(scorer.floor),
        "noise": short(scorer.score(iter([{"image": noise}]))),
        "feature_net": scorer.net.name,
        "scoring": {k: v for k, v in scorer.facts().items() if k != "floor"},
    }


def short(scores: dict[str, float]) -> dict[str, float]:
    """Metric names without the feature net, which the results name once."""
    return {name.partition("@")[0]: value for name, value in scores.items()}


def show(results: dict, workdir: Path) -> None:
    """The table and where the pictures are."""
    rows = [[f"EMA {a['length']:.2f}", a["frechet"], a["kernel"]] for a in results["averages"]]
    rows.append(["real (floor)", results["floor"]["frechet"], results["floor"]["kernel"]])
    rows.append(["noise", results["noise"]["frechet"], results["noise"]["kernel"]])
    net = results["feature_net"]
    print(f"\n{results['scoring']['num']} images each against the training images, lower is better")
    print(table(["", f"frechet@{net}", f"kernel@{net}"], rows))
    print("\nsamples, one class a row:")
    for a in results["averages"]:
        print(f"  {workdir / a['grid']}")
    print(f"numbers: {workdir / 'results.json'}   ({results['seconds']:.0f} s)")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError, RuntimeError) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
