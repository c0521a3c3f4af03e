"""Accelerators and topologies: one table of chips, and `v5p:8x8x8` or `h200:64` read from text."""

import dataclasses
import difflib
import math
import re
from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """What one chip has; rates are the makers' peaks of dense products, without sparsity.

    hbm: GiB. bf16, f32: TFLOP/s of products of such arrays at JAX's default precision, which is one
    bfloat16 pass on a TPU and TF32 on a GPU. bandwidth: of HBM, GB/s. link: bytes that a chip can
    send to its neighbours at a time, GB/s one way, all links together. outside: the same between
    slices or nodes, GB/s a chip. host: chips a host. dims: of a slice's torus; 0 for a switch.
    slice: the most chips of a slice, 0 for no limit. kind: of jax's platform.
    """

    hbm: float
    bf16: float
    f32: float
    bandwidth: float
    link: float
    outside: float
    host: int
    dims: int
    slice: int
    kind: str


# TPUs: the tables of cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, where the links are given in
# both directions (halved here) and the network of the data centre in Gbit/s a chip. v4: its page
# gives 2,400 Gbit/s of links; outside as v5e. NVIDIA: data sheets of A100 80GB SXM, H100 SXM and
# H200 SXM (bfloat16 and TF32 dense, NVLink both directions, halved here), one 200 or 400 Gbit/s
# InfiniBand port a GPU as in DGX A100 and DGX H100; memory as the driver reports it.
# fmt: off
CHIPS = {
    #              hbm   bf16  f32   bandw. link outside host dims slice
    "v4":    Chip( 32.0,  275,  275, 1228,  150,  3.125, 4, 3, 4096, "tpu"),
    "v5e":   Chip( 16.0,  197,  197,  819,  200,  3.125, 4, 2,  256, "tpu"),
    "v5p":   Chip( 95.0,  459,  459, 2765,  600,  6.25,  4, 3, 6144, "tpu"),
    "v6e":   Chip( 32.0,  918,  918, 1638,  400, 12.5,   4, 2,  256, "tpu"),
    "tpu7x": Chip(192.0, 2307, 2307, 7380,  600, 12.5,   4, 3, 9216, "tpu"),
    "a100":  Chip( 80.0,  312,  156, 2039,  300, 25.0,   8, 0,    0, "gpu"),
    "h100":  Chip( 79.6,  989,  494, 3350,  450, 50.0,   8, 0,    0, "gpu"),
    "h200":  Chip(140.4,  989,  494, 4800,  450, 50.0,   8, 0,    0, "gpu"),
}
# fmt: on
SPELLINGS = {
    "v5litepod": "v5e",
    "v5lite": "v5e",
    "v5": "v5p",
    "v6": "v6e",
    "trillium": "v6e",
    "v7x": "tpu7x",
    "7x": "tpu7x",
    "ironwood": "tpu7x",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Topology:
    """Equal slices of chips. name: of the chip. shape: of a slice's torus, (n,) of GPUs.

    row: what a chip has, where it is no row of CHIPS.
    """

    name: str
    shape: tuple[int, ...]
    slices: int = 1
    row: Chip | None = None

    @property
    def chip(self) -> Chip:
        """What one has."""
        return self.row or CHIPS[self.name]

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.slices * math.prod(self.shape)

    @property
    def near(self) -> int:
        """Chips that reach each other over links: a slice, or a node of GPUs."""
        inside = math.prod(self.shape)
        return inside if self.chip.dims else min(inside, self.chip.host)

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"{self.name}:{shape}" + (f" x {self.slices} slices" if self.slices > 1 else "")


def parse(text: str, slices: int = 1) -> Topology:
    """`v5p:8x8x8`, `v5e:16x16`, `h200:64`.

    Args:
      text: chip and shape of one slice. slices: TPU slices that a data-centre network joins.
    Raises:
      ValueError: unknown chip, a shape that this chip has not, GPUs that are not whole nodes.
    """
    name, colon, shape = text.strip().lower().partition(":")
    if name not in CHIPS:
        near = SPELLINGS.get(name) or next(iter(difflib.get_close_matches(name, CHIPS, 1)), "")
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(f"--topology: unknown chip {name!r}, known are {list(CHIPS)}{hint}")
    chip = CHIPS[name]
    example = "h200:64" if not chip.dims else f"{name}:{'x'.join(['4'] * chip.dims)}"
    if not colon or not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)*", shape):
        raise ValueError(
            f"--topology is CHIP:SHAPE such as {example}, got {text!r}; SHAPE is "
            + ("the torus of a slice" if chip.dims else "the number of GPUs")
        )
    sides = tuple(map(int, shape.split("x")))
    if len(sides) != max(chip.dims, 1):
        raise ValueError(
            f"--topology: a slice of {name} has {chip.dims} sides, as in {example}, got {shape}"
            if chip.dims
            else f"--topology: {name} takes a number of GPUs, as in {example}, got {shape}"
        )
    n = math.prod(sides)
    if chip.slice and n > chip.slice:
        raise ValueError(
            f"--topology: a slice of {name} has at most {chip.slice} chips, got {shape} = {n}; "
            "join several with --slices"
        )
    if not chip.dims and n > chip.host and n % chip.host:
        raise ValueError(
            f"--topology: {name} come in nodes of {chip.host}, so more than {chip.host} must be a "
            f"multiple of it, got {n}"
        )
    if slices < 1 or (slices > 1 and not chip.dims):
        raise ValueError(
            f"--slices must be 1 or more, got {slices}"
            if slices < 1
            else f"--slices joins TPU slices; for {name} give the number of all GPUs"
        )
    return Topology(name, sides, slices)


def match(device_kind: str) -> str | None:
    """The chip of a device as jax names it ("TPU v5 lite", "NVIDIA H200"), None for others."""
    kind = device_kind.lower()
    names = {"v5 lite": "v5e", "v6 lite": "v6e", "tpu v5": "v5p", "tpu v4": "v4", "tpu7x": "tpu7x"}
    names |= {n: n for n in ("v5e", "v5p", "v6e", "a100", "h100", "h200")}
    return next((chip for word, chip in names.items() if word in kind), None)
