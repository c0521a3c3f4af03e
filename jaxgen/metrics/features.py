"""Feature nets: named maps from images to the vectors that distances compare (arXiv:1706.08500).

A distance means something only with the name of its net: `frechet@digits-classifier` cannot be
compared with `frechet@pixels`, and none of these is an "FID", which is Inception's. Weights are
files beside this module, each with a json that says how it was trained; a file whose checksum is
not the one noted there is refused. Images of another size or colour are brought to a net by the
rules that `facts()` names.
"""

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common.units import from_uint8
from jaxgen.metrics import classifier

WEIGHTS = pathlib.Path(__file__).parent / "weights"

SPECS = {
    "digits-classifier": classifier.Spec((8, 8, 1), ((32, 1), (64, 2), (64, 2)), 64),
    "fashion-classifier": classifier.Spec((28, 28, 1), ((16, 1), (48, 2), (96, 2), (96, 2)), 128),
}
# The sources that a net is the default of, by the source's name without its kind ("tfds:mnist").
SOURCES = {
    "digits-classifier": ("digits",),
    "fashion-classifier": ("fashion_mnist", "mnist", "kmnist", "emnist"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNet:
    """A named feature net; call it on images.

    name: as in `names()`. dim: width of the features. input_shape: (h, w, c) of the net. resizer:
    how other sizes are brought to it. weights_sha256: of the weights file, 64 hex digits. params:
    its arrays. `dim` and `input_shape` are None, and there are no weights, for `pixels`.
    """

    name: str
    dim: int | None
    input_shape: tuple[int, int, int] | None
    resizer: str
    weights_sha256: str
    params: dict[str, np.ndarray] = dataclasses.field(repr=False)

    def __call__(self, images: Any) -> jax.Array:
        """Features (n, dim) float32 of images (n, h, w, c), uint8 or float in [-1, 1].

        Floats are used as they are: quantise samples first (units.to_uint8) to measure what is
        saved.
        Raises:
          ValueError: for another rank, type or channel count.
        """
        shape, dtype = np.shape(images), images.dtype
        if len(shape) != 4 or not (dtype == jnp.uint8 or jnp.issubdtype(dtype, jnp.floating)):
            raise ValueError(
                f"{self.name} takes images (n, h, w, c), uint8 or float in [-1, 1], got "
                f"{dtype} {shape}"
            )
        if self.input_shape and shape[-1] not in (1, 3):
            raise ValueError(
                f"{self.name} takes images of 1 or 3 channels, got {shape[-1]} in {shape}; "
                "choose --features=pixels or drop channels"
            )
        return _apply(self.params, images, self.name)

    def logits(self, images: Any) -> jax.Array:
        """Class logits (n, classes) of a classifier."""
        self.check_classifier()
        return classifier.logits(self.params, self(images))

    def check_classifier(self) -> None:
        """Raises ValueError for a net without logits."""
        if not self.params:
            raise ValueError(f"{self.name} is no classifier; the classifiers are {sorted(SPECS)}")

    def facts(self) -> dict[str, Any]:
        """What a result file records about the net."""
        return {
            "name": self.name,
            "dim": self.dim,
            "input_shape": self.input_shape,
            "weights_sha256": self.weights_sha256[:16],
            "resizer": self.resizer,
        }


@functools.partial(jax.jit, static_argnames="name")
def _apply(params: dict[str, jax.Array], images: jax.Array, name: str) -> jax.Array:
    x = from_uint8(images)
    if name == "pixels":
        return x.reshape(len(x), -1)
    spec = SPECS[name]
    return classifier.features(params, fit(x, spec.input_shape), spec)


def fit(x: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Images (n, h, w, 1|3) in [-1, 1] brought to (n, *shape).

    Colour to grey by luma 0.299 R + 0.587 G + 0.114 B, grey to colour by repeating; then
    `jax.image.resize(bilinear, antialias=True)` (half-pixel centres) if the size differs.
    """
    if x.shape[-1] == 3 and shape[-1] == 1:
        x = jnp.dot(x, jnp.array([0.299, 0.587, 0.114]), precision="highest")[..., None]
    if x.shape[-1] == 1 and shape[-1] == 3:
        x = jnp.repeat(x, 3, axis=-1)
    if x.shape[1:] != shape:
        x = jax.image.resize(
            x, (len(x), *shape), "bilinear", antialias=True, precision=jax.lax.Precision.HIGHEST
        )
    return x


def names() -> list[str]:
    """The names `load` knows."""
    return [*SPECS, "pixels"]


def load(name: str, folder: pathlib.Path | str = WEIGHTS) -> FeatureNet:
    """The net `name`, its weights read from `folder` and their checksum verified.

    Raises:
      ValueError: for an unknown name, or weights that are not those that were trained.
    """
    if name == "pixels":
        return FeatureNet(name, None, None, "none", "none", {})
    if name not in SPECS:
        raise ValueError(f"there is no feature net {name!r}; the names are {names()}")
    path = pathlib.Path(folder) / f"{name}.npz"
    if not path.exists():
        raise ValueError(
            f"the weights of {name} are not at {path}; reinstall jaxgen, or run "
            "scripts/train_classifiers.py"
        )
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
    if digest != expected:
        raise ValueError(
            f"{path} is not the file its json describes: expected sha256 {expected[:16]}, got "
            f"{digest[:16]}; restore it, or retrain with scripts/train_classifiers.py"
        )
    with np.load(io.BytesIO(data)) as arrays:
        params = {k: arrays[k].astype(np.float32) for k in arrays.files}
    spec = SPECS[name]
    got = {k: v.shape for k, v in params.items()}
    if got != classifier.shapes(spec):
        raise ValueError(
            f"{path} holds arrays {got}, but {name} has {classifier.shapes(spec)}; retrain it with "
            "scripts/train_classifiers.py"
        )
    resizer = "jax-bilinear-antialias, luma 601"
    return FeatureNet(name, spec.dim, spec.input_shape, resizer, digest, params)


def default_for(source_name: str, shape: tuple[int, int, int]) -> str:
    """The net that belongs to a data source by its name, or else to its image shape (h, w, c).

    Raises:
      ValueError: when none does: one must then be chosen.
    """
    for name, sources in SOURCES.items():
        if source_name.rpartition(":")[2] in sources:
            return name
    for name, spec in SPECS.items():
        if tuple(shape) == spec.input_shape:
            return name
    suited = [n for n in SPECS if SPECS[n].input_shape[-1] == shape[-1]] + ["pixels"]
    raise ValueError(
        f"no feature net belongs to the source {source_name!r} with images {tuple(shape)}; choose "
        f"one with --features: the names are {names()}, with {shape[-1]} channel(s) {suited} suit"
    )
