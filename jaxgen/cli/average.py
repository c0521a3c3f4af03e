"""`jaxgen average`: EMA lengths rebuilt from snapshots, each scored if asked."""

from jaxgen.cli import common, values


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "average",
        "Rebuild EMA lengths (sigma_rel) from the snapshots of a run, after training.",
        "jaxgen average --workdir runs/digits --lengths 0.02:0.2:8 --metrics frechet",
    )
    group = p.add_argument_group("run")
    group.add_argument("--workdir", required=True, help="folder of the run")
    group.add_argument("--nimg", type=int, help="image count to end at (default: newest snapshot)")
    group.add_argument("--no_verify", action="store_true", help="skip the checksums")
    what = p.add_argument_group("lengths")
    what.add_argument(
        "--lengths", required=True, help="0.05,0.1 or first:last:count such as 0.02:0.2:8"
    )
    what.add_argument("--players", help="comma-separated (default: those that sampling reads)")
    what.add_argument("--out", help="folder of the weights (default: WORKDIR/averages)")
    score = p.add_argument_group("scores")
    score.add_argument("--metrics", help="score each length: frechet,kernel,...")
    score.add_argument("--num", type=int, default=2000, help="samples to score (default 2000)")
    score.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    score.add_argument("--features", help="feature net (default: the config's)")
    return p


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    lengths = values.parse_numbers(args.lengths)
    common.setup_jax()
    from pathlib import Path

    from jaxgen.cli import evaluate
    from jaxgen.common import provenance
    from jaxgen.train.store import Store, write_json

    run = common.Run.open(args.workdir, verify=not args.no_verify)
    players = tuple(args.players.split(",")) if args.players else run.plan.sample.players
    unknown = sorted(set(players) - set(run.plan.players))
    if unknown:
        raise ValueError(f"--players: {unknown} are not among {sorted(run.plan.players)}")
    scorer = None
    if args.metrics:
        scorer = evaluate.Scorer(run, args.metrics.split(","), args.features, args.num, args.seed)
    out = Path(args.out) if args.out else run.workdir / "averages"
    rows = []
    for length in lengths:
        average = run.average(length, args.nimg, players)
        folder = out / f"{average.facts['profile']}@{average.facts['nimg']}"
        with Store(folder, verify=run.verify) as store:
            store.save(average.facts["nimg"], average.params, average.facts)
        rows.append({"length": length, **average.facts, "folder": str(folder)})
        if scorer:
            rows[-1] |= scorer(average.params)
    write_json(
        out / "averages.json",
        {"averages": rows, **(scorer.facts() if scorer else {}), **provenance.facts()},
    )
    if scorer:
        names = [n for n in rows[0] if "@" in n or n.startswith(("psnr", "eq_"))]
        print(table(["length", *names], [[r["length"], *(r[n] for n in names)] for r in rows]))
    print(f"{len(rows)} averages in {out}")
    return 0


def table(head: list[str], rows: list[list]) -> str:
    """Right-aligned text columns."""
    cells = [head, *([v if isinstance(v, str) else f"{v:.4g}" for v in r] for r in rows)]
    widths = [max(len(r[i]) for r in cells) for i in range(len(head))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(r, widths)) for r in cells)
