"""What to change so that a plan fits, or takes less time: settings are tried, one estimate each."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxgen.planning.estimate import Estimate

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Found:
    """One setting that was tried: what differs from the config, and its estimate."""

    changes: dict[str, Any]
    estimate: Estimate

    @property
    def flags(self) -> str:
        """The changes as flags of a command."""
        return " ".join(f"--config.{n}={str(v).lower()}" for n, v in self.changes.items())


def divisors(n: int) -> list[int]:
    """All of them, small ones first."""
    return [d for d in range(1, n + 1) if n % d == 0]


def candidates(
    batch: int, chips: int, now: Settings, remat: bool, near: int, slices: int = 1
) -> list[dict[str, Any]]:
    """Settings of mesh.fsdp, microbatches and model.remat that a batch can have, cheapest first.

    Few microbatches and no remat cost the least time, so they come first.

    Args:
      batch: global. chips: all of them. now: the config's values of these keys. remat: whether the
        config has model.remat. near: chips that links join. slices: that fsdp must not span.
    """
    tensor = now.get("mesh.tensor", 1)
    room = chips // tensor // slices
    widths = [d for d in divisors(room) if d & (d - 1) == 0 or d in (near, room)]
    widths = sorted({w for w in widths if w <= max(near // tensor, 1)} | {now["mesh.fsdp"]})
    if len(widths) > 4:  # none, the config's, a node or a slice, one between
        middle = widths[len(widths) // 2]
        widths = sorted({1, now["mesh.fsdp"], middle, widths[-1]})
    share = chips // tensor
    if batch % share:
        return []
    parts = [m for m in divisors(batch // share) if m & (m - 1) == 0]
    found = [
        {"mesh.fsdp": f, "microbatches": m} | ({"model.remat": r} if remat else {})
        for m in parts
        for r in ((False, True) if remat else (False,))
        for f in widths
    ]
    return [c for c in found if any(now.get(n) != v for n, v in c.items())]


def search(
    estimate: Callable[[Settings], Estimate],
    tries: Sequence[dict[str, Any]],
    now: Settings,
    first: Estimate,
    log: Callable[[str], None] = lambda text: None,
    limit: int = 24,
) -> list[Found]:
    """Tries settings in their order until fewer microbatches cannot win any more.

    Args:
      estimate: of a setting; a ValueError is one that cannot be. tries: see `candidates`. now: the
        present setting, estimated as `first`. log: is told each. limit: most estimates.
    Returns:
      Those that fit, the quickest first; `first` among them if it fits.
    """
    fitting = [Found({}, first)] if first.fits else []
    enough = math.inf  # microbatches beyond which nothing is tried
    for setting in tries[:limit]:
        if setting["microbatches"] > enough:
            break
        changes = {n: v for n, v in setting.items() if now.get(n) != v}
        try:
            found = Found(changes, estimate(setting))
        except ValueError as e:
            log(f"{Found(changes, first).flags}: {e}")
            continue
        e = found.estimate
        log(f"{found.flags}: {e.need / 2**30:.1f} GiB, {e.seconds['step']:.3g} s a step")
        if e.fits:
            fitting.append(found)
            enough = min(enough, setting["microbatches"])
    return sorted(fitting, key=lambda f: f.estimate.seconds["step"])
