"""An estimate as text: tables of memory, work and time, the largest leaves and where they lie."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxgen.common import sharding
from jaxgen.planning.chips import GIB
from jaxgen.planning.estimate import STATE, WORK, Estimate
from jaxgen.planning.hlo import KINDS
from jaxgen.planning.search import Found

CLOCK = {"v4": 1.05e9, "v5e": 1.5e9, "v5p": 1.75e9, "v6e": 1.75e9}  # Hz: peak / FLOPs a cycle

ABOUT = {
    "parameters": "trained networks, float32",
    "optimizer": "its moments",
    "averages": "of the weights, every track",
    "frozen": "networks that are not trained",
    "batch": "this step's images and labels",
    "other": "statistics and counts",
    "padding": "tiles of the above that are not full",
    "activations": "kept for the backward pass, and its temporaries",
    "weights": "as products read them: gathered, cast",
    "gradients": "and updates",
}


def gib(n: float) -> str:
    """Bytes as GiB, small ones as MiB."""
    return f"{n / GIB:.2f} GiB" if n >= GIB / 100 else f"{n / 2**20:.2f} MiB"


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows with aligned columns, all but the first and last to the right."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    last = len(widths) - 1
    pad = lambda i, x: x if i == last else x.ljust(widths[i]) if i == 0 else x.rjust(widths[i])
    return "\n".join(indent + "  ".join(pad(i, x) for i, x in enumerate(r)).rstrip() for r in rows)


def memory(e: Estimate, measured: int | None = None) -> str:
    """Memory a chip by kind, and whether it fits; beside the compiler's number if given."""
    rows = [
        (kind, gib(e.memory[kind]), ABOUT[kind])
        for kind in (*STATE, "padding", *WORK)
        if e.memory[kind]
    ]
    left = e.hbm - e.need
    says = f"fits, {gib(left)} left" if e.fits else f"DOES NOT FIT, {gib(-left)} too much"
    rows.append(("need", gib(e.need), f"of {gib(e.hbm)}: {says}"))
    if measured:
        rows.append(("compiler", gib(measured), f"the estimate is {e.need / measured - 1:+.0%}"))
    return "memory of a chip\n" + table(rows)


def remat(other: Estimate, on: bool) -> str:
    """The line of the same run with remat switched; on: whether it is on now."""
    return (
        f"  {'without' if on else 'with'} --config.model.remat=true: activations "
        f"{gib(other.memory['activations'])}, need {gib(other.need)}, step "
        f"{seconds(other.seconds['step'])}"
    )


def work(e: Estimate) -> str:
    """FLOPs, bytes and collectives of a step and a chip."""
    rows = [(f"products, {n}", f"{x / 1e12:.4g} TFLOP", "") for n, x in sorted(e.flops.items())]
    rows.append(("HBM traffic", gib(e.traffic), ""))
    for c in e.collectives:
        where = [f"{gib(c[n])} over {w}" for n, w in (("near", "links"), ("outside", "the network"))
                 if c[n]]  # fmt: skip
        rows.append((f"{c['kind']} over {' x '.join(c['axes'])}", gib(c["bytes"]),
                     "a chip sends " + ", ".join(where)))  # fmt: skip
    return "work of a step, a chip\n" + table(rows)


def compiled(e: Estimate, found: Mapping[str, Any], chip: str) -> str:
    """The compiler's numbers beside the estimate's.

    Args:
      e: the estimate. found: see `aot.combined`. chip: its name.
    """
    state = sum(e.memory[kind] for kind in (*STATE, "padding"))
    guess = {kind: sum(c["bytes"] for c in e.collectives if c["kind"] == kind) for kind in KINDS}
    rows = [
        ("need", e.need, found["need"], gib),
        ("state and batch", state, found["arguments"], gib),
        ("temporary", e.need - state, found["temporary"], gib),
        ("products", sum(e.flops.values()), found["flops"], lambda n: f"{n / 1e12:.4g} TFLOP"),
        *((k, guess[k], found["collectives"].get(k, 0), gib) for k in KINDS),
    ]
    if found["cycles"] and chip in CLOCK:
        rows.append(("computation", e.seconds["compute"], found["cycles"] / CLOCK[chip], seconds))
    text = [
        (name, unit(mine), unit(its), f"{mine / its - 1:+.0%}" if its else "")
        for name, mine, its, unit in rows
        if mine or its
    ]
    head = ("", "estimate", "compiler", "difference")
    return (
        f"compiled in {found['seconds']:.0f} s; a chip, a step\n{table([head, *text])}\n"
        f"  the program itself takes {gib(found['code'])} more"
    )


def seconds(n: float) -> str:
    """With a unit that suits."""
    return f"{n:.3f} s" if n >= 1 else f"{n * 1e3:.3g} ms"


def time(e: Estimate, measured: float | None = None) -> str:
    """The step's time, rates and what the whole run takes."""
    s = e.seconds
    rows = [
        ("computation", seconds(s["compute"]), ""),
        ("collectives", seconds(s["collectives"]), "mostly beside it"),
        ("step", seconds(s["step"]), f"{e.images_per_second:.4g} images/s, MFU {e.mfu:.0%}"),
    ]
    if measured:
        rows.append(("measured", seconds(measured), f"{e.batch / measured:.4g} images/s"))
    step = measured or s["step"]
    days = e.images / e.batch * step / 86400
    rows.append(
        ("run", f"{days:.3g} days", f"{days * 24 * e.chips:.4g} chip-hours, {e.images:,} images")
    )
    parts = [p for p in e.programs if p["every"] > 1 or len(e.programs) > 1]
    for p in parts:
        name = " + ".join(p["phases"]) or "end of the step"
        rows.append((name, seconds(p["seconds"]), f"every {p['every']} steps"))
    return "time\n" + table(rows)


def layout(state: Any, largest: int = 6) -> str:
    """Where the largest parameters lie, and how many are whole on every chip."""
    rows = sharding.layout(state.params)
    whole = [r for r in rows if r[2] == "whole"]
    top = sorted(rows, key=lambda r: -r[3])[:largest]
    text = [(name, "x".join(map(str, shape)), spec, gib(size)) for name, shape, spec, size in top]
    share = sum(r[3] for r in whole)
    return (
        f"layout: {len(rows)} parameters, {len(whole)} of them whole on every chip ({gib(share)}); "
        "the largest parts\n" + table(text)
    )


def found(results: Sequence[Found], now: Estimate) -> str:
    """What a search found."""
    if not results:
        return "search: nothing that was tried fits; use more chips or a smaller batch"
    rows = [
        (
            gib(f.estimate.need),
            seconds(f.estimate.seconds["step"]),
            f"{f.estimate.seconds['step'] / now.seconds['step'] - 1:+.0%}",
            f.flags or "as it is",
        )
        for f in results[:5]
    ]
    return "search: these fit, the quickest first (need, step, against now)\n" + table(rows)
