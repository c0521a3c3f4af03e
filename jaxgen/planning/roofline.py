"""How long a step takes: a roofline for every kernel, and what links add.

A kernel takes the longer of two times: its products at PRODUCTS of the chip's peak, with channels
filled up to the width of the matrix unit, and its bytes at BANDWIDTH of the memory's peak.
Collectives go at LINKS of the links' rate. They run beside the computation, for at most OVERLAP of
its time: the share of the backward pass, in which gradients are summed as they appear.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jaxgen.planning.chips import Topology
from jaxgen.planning.collectives import Traffic
from jaxgen.planning.program import Op

PRODUCTS = 0.75  # of the peak: what large products and convolutions reach on TPUs and GPUs
BANDWIDTH = 0.8
LINKS = 0.8
OVERLAP = 2 / 3
ASSUMPTIONS = (
    f"products reach {PRODUCTS:.0%} of the peak, memory {BANDWIDTH:.0%}, links {LINKS:.0%}",
    "channels are filled up to the matrix unit's width (128, v6e and later 256; GPUs 64)",
    f"collectives hide behind at most {OVERLAP:.0%} of the computation",
    "input, logs and checkpoints take no time",
    "the compiled program comes on top of the memory (0.3 GiB for a U-Net)",
)


@dataclasses.dataclass(frozen=True)
class Rates:
    """Of one chip. flops: dtype -> FLOP/s reached. bytes: per second. width: of the matrix unit."""

    flops: Mapping[str, float]
    bytes: float
    width: int

    def seconds(self, op: Op, dtype: str, nbytes: float) -> float:
        """Of the kernel of an operation on arrays of `dtype` that moves `nbytes`.

        Two of a product's three sides fill the matrix unit, the third goes through it.
        """
        waste = sorted(filled(n, self.width) for n in op.sides)
        work = op.flops * waste[0] * waste[1]
        return max(work / self.flops.get(dtype, self.flops["float32"]), nbytes / self.bytes)


def rates(topology: Topology) -> Rates:
    """What a chip of the topology reaches."""
    chip = topology.chip
    width = 64 if chip.kind == "gpu" else 256 if topology.name in ("v6e", "tpu7x") else 128
    flops = {
        "bfloat16": chip.bf16 * 1e12 * PRODUCTS,
        "float16": chip.bf16 * 1e12 * PRODUCTS,
        "float32": chip.f32 * 1e12 * PRODUCTS,
    }
    return Rates(flops, chip.bandwidth * 1e9 * BANDWIDTH, width)


def filled(n: int, width: int) -> float:
    """n filled up to a multiple of the width, as a multiple of n."""
    return math.ceil(max(n, 1) / width) * width / max(n, 1)


def spanned(axes: Sequence[str], sizes: Mapping[str, int], topology: Topology) -> float:
    """The share of a chip's links that a group over `axes` uses: torus sides that it spans."""
    if not topology.chip.dims:
        return 1.0
    names = list(sizes)
    start = math.prod(sizes[a] for a in names[names.index(axes[-1]) + 1 :])
    end = start * math.prod(sizes[a] for a in axes)
    used, inner = 0, 1
    for side in reversed(topology.shape):
        used += side > 1 and inner < end and inner * side > start
        inner *= side
    return max(used, 1) / topology.chip.dims


def links(traffic: Sequence[Traffic], sizes: Mapping[str, int], topology: Topology) -> float:
    """Seconds of collectives, one after the other."""
    chip = topology.chip
    return sum(
        t.near / (chip.link * 1e9 * LINKS * spanned(t.axes, sizes, topology))
        + t.outside / (chip.outside * 1e9 * LINKS)
        for t in traffic
    )


def step(compute: float, collectives: float) -> float:
    """Seconds of a step: what collectives take beyond OVERLAP of the computation is waited for."""
    return compute + max(0.0, collectives - OVERLAP * compute)
