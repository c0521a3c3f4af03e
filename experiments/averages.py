"""What the experiments on post-hoc averages share: averages, tracked or rebuilt; distances."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxgen.averaging import posthoc
from jaxgen.cli import common as cli
from jaxgen.train import state
from jaxgen.train.store import Store

STORED = (0.05, 0.10)  # the only lengths that a rebuilt average may use
Tree = Any


class Snapshots:
    """The averages of a run's player: as tracked, or rebuilt from those of STORED."""

    def __init__(self, run: cli.Run, player: str):
        self.store = Store(run.workdir / "snapshots", verify=False)
        self.target, self.player = state.abstract(run.plan, run.mesh).params[player], player
        self.times = self.store.numbers()

    def profile(self, time: int, name: str) -> Tree:
        """The average of a tracked profile at `time` images."""
        return self.store.restore(time, f"{self.player}.{name}", self.target)

    def tracked(self, time: int, length: float) -> Tree:
        """The tracked power-function average of this length."""
        return self.profile(time, f"power_{length:.3f}")

    def rebuilt(self, times: Sequence[int], length: float) -> tuple[Tree, posthoc.Solution]:
        """The average at the last of `times` from the snapshots at `times`."""
        entries = [(t, s) for t in times for s in STORED]
        at, lengths = zip(*entries)
        solution = posthoc.solve(at, lengths, times[-1], length)
        params = posthoc.reconstruct(lambda i: self.tracked(*entries[i]), solution.coefficients)
        return params, solution


def distance(a: Tree, b: Tree) -> float:
    """L2 over all weights."""
    parts = jax.tree.map(lambda x, y: np.sum(np.square(np.float64(x) - np.float64(y))), a, b)
    return float(np.sqrt(sum(jax.tree.leaves(parts))))
