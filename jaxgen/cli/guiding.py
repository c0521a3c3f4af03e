"""`--guide`, `--guidance`, `--interval`: another run, or the run without labels, steers."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxgen.cli import common

UNCONDITIONAL = "unconditional"


def add_flags(parser: common.Parser) -> None:
    """The flags, for commands that draw samples."""
    group = parser.add_argument_group("guidance (score networks)")
    group.add_argument(
        "--guide",
        metavar="RUN[@AVERAGE]",
        help="workdir of a guide and its average, such as runs/small@0.05: a score network "
        f"(weaker, or without labels) or a classifier; '{UNCONDITIONAL}': this run without labels",
    )
    group.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        metavar="W",
        help="guide + W (run - guide), 1 is none; the scale of a classifier, 0 is none (default 1)",
    )
    group.add_argument(
        "--interval", metavar="LO,HI", help="guide only at noise levels LO < sigma <= HI"
    )


@dataclasses.dataclass(frozen=True)
class Guide:
    """What steers a sampler.

    wrap(denoise, params, frozen) -> denoise, with the guide's params and frozen weights, which are
    arguments of the compiled program. facts: what a result file records. classes: of a classifier
    that guides a run without labels, else 0.
    """

    wrap: Callable[[Callable, Any, Any], Callable]
    params: Mapping[str, Any]
    frozen: Mapping[str, Any]
    facts: dict[str, Any]
    classes: int = 0


def parse_interval(text: str | None) -> tuple[float, float] | None:
    """(lo, hi) of "LO,HI".

    Raises:
      ValueError: not two numbers.
    """
    if not text:
        return None
    try:
        lo, hi = (float(v) for v in text.split(","))
    except ValueError as e:
        raise ValueError(f"--interval is LO,HI in noise levels, such as 0.2,3, got {text!r}") from e
    return lo, hi


def open_guide(run: common.Run, args: argparse.Namespace) -> Guide | None:
    """The guide that the flags ask for, checked against the run; None for none.

    Raises:
      ValueError: a guide of other images or classes, a run that cannot be guided, flags without a
        guide, an interval or weight that makes no sense.
    """
    from jaxgen.samplers import guidance

    limits = parse_interval(args.interval)
    if args.guide is None:
        if limits or args.guidance != 1.0:
            raise ValueError("--guidance and --interval need a --guide")
        return None
    if "denoise" not in run.plan.exports:
        raise ValueError(f"{run.workdir} is no score network; only those can be guided")
    combine, params, frozen, facts, classes = _combination(run, args)

    def wrap(denoise: Callable, params: Any, frozen: Any) -> Callable:
        guided = combine(denoise, params, frozen)
        return guided if limits is None else guidance.interval(guided, denoise, *limits)

    wrap(lambda x, sigma, cond=None: x, params, frozen)  # weight and interval are checked here
    facts = {"guide": facts, "guidance": args.guidance, "interval": limits}
    return Guide(wrap, params, frozen, facts, classes)


def _combination(run: common.Run, args: argparse.Namespace) -> tuple[Callable, Any, Any, str, int]:
    from jaxgen.samplers import guidance

    w = args.guidance
    if args.guide == UNCONDITIONAL:
        if run.facts["label_kind"] == "none" or not run.config.loss.label_dropout:
            raise ValueError(
                f"--guide {UNCONDITIONAL} needs a run that was trained with labels of which some "
                "were dropped (--config.loss.label_dropout=0.1); give the workdir of a run without "
                "labels in its place (--config.data.labels=False)"
            )
        return lambda d, p, f: guidance.classifier_free(d, w), {}, {}, UNCONDITIONAL, 0
    workdir, _, average = args.guide.partition("@")
    other = common.Run.open(workdir, verify=run.verify)
    kinds = [k for k in ("denoise", "log_prob") if k in other.plan.exports]
    if not kinds:
        raise ValueError(f"--guide {workdir} is neither a score network nor a classifier")
    _check_facts(run.facts, other.facts, workdir, kinds[0])
    export = other.plan.exports[kinds[0]]
    found = other.average(average or None, None, export.players)
    classes = 0
    said = f"{workdir}: {found}"
    if kinds[0] == "log_prob":
        rule = lambda d, p, f: guidance.classifier(d, export.fn(p, f), w)
        classes = other.facts["label_dim"] if run.facts["label_kind"] == "none" else 0
    elif other.facts["label_kind"] == "none":
        rule = lambda d, p, f: guidance.classifier_free(d, w, export.fn(p, f))
    else:
        rule = lambda d, p, f: guidance.autoguide(d, export.fn(p, f), w)
    return rule, found.params, dict(other.plan.frozen), said, classes


def _check_facts(run: Mapping, guide: Mapping, workdir: str, kind: str) -> None:
    """Raises when the guide was made for other images or other classes."""
    if tuple(run["shape"]) != tuple(guide["shape"]):
        raise ValueError(
            f"--guide {workdir} makes images {tuple(guide['shape'])} (h, w, c), this run "
            f"{tuple(run['shape'])}; a guide must be trained on the same images"
        )
    same = (guide["label_kind"], guide["label_dim"]) == (run["label_kind"], run["label_dim"])
    if kind == "denoise" and guide["label_kind"] == "none":
        return
    if kind == "log_prob" and run["label_kind"] == "none":
        return
    if not same:
        raise ValueError(
            f"--guide {workdir} knows {guide['label_dim']} classes ({guide['label_kind']}), this "
            f"run {run['label_dim']} ({run['label_kind']}); a guide has the same classes or none"
        )
