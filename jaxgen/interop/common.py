"""What the families share: checking names and shapes, layouts, and the imported denoiser."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import trees
from jaxgen.noise.precondition import Family, check_levels, expand

Arrays = Mapping[str, np.ndarray]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
    """A published network as a denoiser.

    module: the raw network, F = module.apply(variables, c_in x, c_noise, cond); its fields are
    hashable, tuples and not lists. variables: {"params": tree}, float32. family: the
    preconditioning. init: the official constructor's keywords, complete. shape: (h, w, c) of an
    image. label_dim, augment_dim: widths of the conditions, 0 for none. prefix: what stood before
    the names ("model.", "").
    """

    module: nn.Module
    variables: Mapping[str, Any]
    family: Family
    init: Mapping[str, Any]
    shape: tuple[int, int, int]
    label_dim: int = 0
    augment_dim: int = 0
    prefix: str = ""

    def __call__(
        self,
        x: jax.Array,
        sigma: jax.Array | float,
        labels: jax.Array | None = None,
        augment_labels: jax.Array | None = None,
    ) -> jax.Array:
        """x0 = c_skip x + c_out F (arXiv:2206.00364, Eq. 7), compiled once a batch size.

        Args:
          x: noisy images (b, h, w, c). sigma: noise levels > 0, (b,) or one for all.
          labels: one-hot (b, label_dim), None for zeros; an unconditional network ignores them, so
          that it can guide a conditional one. augment_labels: (b, augment_dim), None for zeros.
        Returns:
          x0 (b, h, w, c), float32.
        Raises:
          ValueError: shapes that do not fit, levels that the family does not support.
        """
        return self._outputs(x, sigma, labels, augment_labels)[1]

    def raw(
        self,
        x: jax.Array,
        sigma: jax.Array | float,
        labels: jax.Array | None = None,
        augment_labels: jax.Array | None = None,
    ) -> jax.Array:
        """F(c_in x, c_noise): the network's own output, all channels, for the arguments above."""
        return self._outputs(x, sigma, labels, augment_labels)[0]

    def levels(self, sigma: jax.Array | float, b: int) -> jax.Array:
        """sigma (b,) float32 from one level or b of them. Raises ValueError."""
        if np.shape(sigma) not in ((), (b,)):
            raise ValueError(
                f"sigma must be a number or have shape ({b},), one an image, got {np.shape(sigma)}"
            )
        if not isinstance(sigma, jax.core.Tracer):
            check_levels(np.asarray(sigma), self.family)
        return jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), (b,))

    def _outputs(self, x: Any, sigma: Any, labels: Any, augment_labels: Any) -> tuple:
        if np.ndim(x) != 4 or np.shape(x)[1:] != tuple(self.shape):
            raise ValueError(
                f"this network takes images (b, h, w, c) with (h, w, c) = {tuple(self.shape)}, "
                f"got {np.shape(x)}"
            )
        b = x.shape[0]
        if not self.label_dim:
            labels = None
        cond = {
            name: _condition(name, value, (b, width))
            for name, value, width in (
                ("label", labels, self.label_dim),
                ("augment", augment_labels, self.augment_dim),
            )
            if width or value is not None
        }
        x = jnp.asarray(x, jnp.float32)
        return _both(self.module, self.family, self.variables, x, self.levels(sigma, b), cond)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _both(
    module: nn.Module, family: Family, variables: Any, x: jax.Array, sigma: jax.Array, cond: Any
) -> tuple[jax.Array, jax.Array]:
    """(F, x0). One program for all networks of equal architecture (snapshots of a run, say)."""
    s = family.scaling(sigma)
    f = module.apply(variables, expand(s.c_in, x) * x, s.c_noise, cond).astype(jnp.float32)
    # iDDPM's second half is a learned variance, which no denoiser reads.
    return f, expand(s.c_skip, x) * x + expand(s.c_out, x) * f[..., : x.shape[-1]]


def _condition(name: str, value: Any, shape: tuple[int, int]) -> jax.Array:
    if value is None:
        return jnp.zeros(shape)
    if np.shape(value) != shape:
        form = "one-hot labels" if name == "label" else f"{name} labels"
        raise ValueError(
            f"{form} must have shape {shape}, got {np.shape(value)}"
            + ("" if shape[1] else f"; this network was made without {name} labels")
        )
    return jnp.asarray(value, jnp.float32)


def compute_dtype(use_fp16: bool) -> Any:
    """The feature maps' type: as the authors, half precision if asked and never on a CPU."""
    if not use_fp16 or jax.default_backend() == "cpu":
        return jnp.float32
    return jnp.bfloat16 if jax.default_backend() == "tpu" else jnp.float16


def strip(arrays: Arrays, prefixes: Sequence[str]) -> tuple[dict[str, np.ndarray], str]:
    """The arrays by name without the wrapper's prefix, and the prefix that was found ("" if none).

    Raises:
      ValueError: a name that is there with the prefix and without.
    """
    found: dict[str, np.ndarray] = {}
    prefix, twice = "", []
    for name, value in arrays.items():
        own = next((p for p in prefixes if name.startswith(p)), "")
        prefix = prefix or own
        if name[len(own) :] in found:
            twice.append(name)
        found[name[len(own) :]] = value
    if twice:
        raise ValueError(
            f"names that are there twice, with {prefix!r} before them and not: {twice}"
        )
    return found, prefix


def take(arrays: Arrays, expected: Mapping[str, Sequence[int]], what: str) -> dict[str, np.ndarray]:
    """The arrays in float32, when names, shapes and numbers are as they must be.

    Args:
      arrays: name -> numbers. expected: name -> shape. what: of the error's first words.
    Raises:
      ValueError: one, listing every unknown, missing and wrongly shaped name; or the names of
      arrays that hold NaN or infinity.
    """
    lines = []
    if unknown := sorted(set(arrays) - set(expected)):
        lines.append(f"unknown: {', '.join(unknown)}")
    if missing := sorted(set(expected) - set(arrays)):
        lines.append(f"missing: {', '.join(missing)}")
    for name in sorted(set(arrays) & set(expected)):
        if tuple(np.shape(arrays[name])) != tuple(expected[name]):
            lines.append(
                f"shape of {name}: expected {tuple(expected[name])}, got {np.shape(arrays[name])}"
            )
    if lines:
        raise ValueError(
            "\n  ".join([f"{what}: the arrays are not of a network made with this init", *lines])
        )
    with np.errstate(over="ignore"):  # what overflows is infinite, and named below
        found = {n: np.asarray(arrays[n]).astype(np.float32) for n in expected}
    if bad := sorted(n for n, x in found.items() if not np.isfinite(x).all()):
        raise ValueError(
            f"{what}: NaN or infinity in {', '.join(bad)}; the file is damaged, or the training "
            "that it comes from had diverged"
        )
    return found


def to_ours(w: np.ndarray) -> np.ndarray:
    """Convolutions OIHW to HWIO, matrices (out, in) to (in, out), the rest as it is."""
    return w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T if w.ndim == 2 else w


def to_official(w: np.ndarray) -> np.ndarray:
    """Convolutions HWIO to OIHW, matrices (in, out) to (out, in), the rest as it is."""
    return w.transpose(3, 2, 0, 1) if w.ndim == 4 else w.T if w.ndim == 2 else w


def official_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape that `to_official` gives."""
    s = tuple(shape)
    return (s[3], s[2], s[0], s[1]) if len(s) == 4 else s[::-1] if len(s) == 2 else s


def shapes(module: nn.Module, *args: Any) -> dict[str, tuple[int, ...]]:
    """{parameter's name: shape} of a module for these arguments, without drawing anything."""
    tree = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a), *args)["params"]
    return {name: leaf.shape for name, leaf in trees.leaves(tree).items()}


def params(found: Arrays, names: Mapping[str, str]) -> dict[str, Any]:
    """The parameter tree from official arrays; names: our name -> official name."""
    return trees.nest({ours: jnp.asarray(to_ours(found[o])) for ours, o in names.items()})


def official(tree: Any, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The official arrays from a parameter tree: the inverse of `params`."""
    flat = trees.leaves(tree)
    return {
        o: np.array(to_official(np.asarray(flat[ours])), order="C") for ours, o in names.items()
    }


def complete(given: Mapping[str, Any], defaults: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The constructor's keywords with their defaults; `...` marks one that must be given.

    Raises:
      ValueError: listing the unknown and the missing ones.
    """
    unknown = sorted(set(given) - set(defaults))
    missing = sorted(k for k, v in defaults.items() if v is ... and k not in given)
    if unknown or missing:
        raise ValueError(
            f"{what}: init has unknown keywords {unknown or 'none'} and lacks {missing or 'none'}; "
            f"known are {list(defaults)}"
        )
    if large := [k for k, v in given.items() if not _plausible(k, v)]:
        raise ValueError(
            f"{what}: init has {large[0]} = {str(given[large[0]])[:80]}, which no network has"
        )
    return {**defaults, **given}


def _plausible(name: str, value: Any, depth: int = 0) -> bool:
    """Whether a keyword is small enough to make a network of, of which nothing is known yet."""
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        deep = re.match("num_|.*(layers|blocks)", name, re.I)
        return abs(value) <= (2**6 if deep else 2**13 if "resolution" in name else 2**17)
    if isinstance(value, str | float):
        return isinstance(value, float) or len(value) <= 100
    if isinstance(value, dict | list | tuple) and len(value) <= 32 and depth < 4:
        parts = value.items() if isinstance(value, dict) else ((name, v) for v in value)
        return all(_plausible(str(k), v, depth + 1) for k, v in parts)
    return False


def explained(load: Callable[..., T]) -> Callable[..., T]:
    """The loader, with ValueError for keywords of which no network can be made.

    They come from files of strangers, and what is wrong with them may show anywhere.
    """

    @functools.wraps(load)
    def call(arrays: Arrays, **init: Any) -> T:
        try:
            return load(arrays, **init)
        except ValueError:
            raise
        except Exception as e:
            raise ValueError(
                f"no network can be made with this init {str(init)[:200]}: {type(e).__name__}: "
                f"{str(e)[:200]}"
            ) from e

    return call
