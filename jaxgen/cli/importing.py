"""What the imports of all families share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.cli import common

FIELDS_OF_DATA = (  # of a module: given by the data's facts, or by linen
    "resolution", "channels", "out_channels", "label_dim", "augment_dim", "dtype", "parent", "name",
)  # fmt: skip
SINGLE = "ema"  # profile of a file that says no length
NO_DATA = "none (imported without --data)"
MACHINE = {  # settings that have nothing to do with the weights, as in configs/common.py
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1, "rules": ()},
    "watchdog": {"factor": 20.0, "seconds": 300.0, "slow_seconds": 3600.0, "exit": False},
}


class Entry(NamedTuple):
    """A file and what it is an average of: `length` None is an unknown one."""

    path: Path
    nimg: int
    length: float | None


class Prepared(NamedTuple):
    """What an import is about to write.

    config: of the run. shape: (h, w, c) of the network's images. label_dim: its classes. save:
    (folder, run) -> None writes snapshots and, of some, a checkpoint; `run` is opened in `folder`.
    any_size: the network takes images of other h and w as well.
    """

    config: dict[str, Any]
    shape: tuple[int, int, int]
    label_dim: int
    save: Callable[[Path, common.Run], None]
    any_size: bool = False


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the arrays of a tree."""
    from jaxgen.common import trees

    return {name: tuple(x.shape) for name, x in trees.leaves(tree).items()}
