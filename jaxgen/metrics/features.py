"""Feature nets: named maps from images to the vectors that distances compare (arXiv:1706.08500).

A distance means something only with the name of its net: `frechet@digits-classifier` cannot be
compared with `frechet@pixels`, and none of these is an "FID", which is Inception's at 2048
dimensions. The small classifiers' weights are files beside this module, each with a json that says
how it was trained; a file whose checksum is not the one noted there is refused. Published nets take
arrays of a file that the caller has read (`jaxgen.cli.nets.open_net`). Images of another size or
colour are brought to a net by the rules that `facts()` names.
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
from jaxgen.metrics import (
    classifier,
    clip,
    dinov2,
    efficientnet,
    inception,
    lpips,
    random_net,
    vgg16,
)
from jaxgen.metrics.nets import SCALINGS, Arrays, Net
from jaxgen.metrics.resize import RESIZERS, resize

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
ANTIALIAS = "jax-bilinear-antialias, luma 601"
PIXELS = Net("pixels", None, None, "none", "x/127.5-1", lambda _, x: x.reshape(len(x), -1))


def _classifier(spec: classifier.Spec) -> Net:
    return Net(
        "classifier",
        spec.dim,
        spec.input_shape,
        ANTIALIAS,
        "x/127.5-1",
        features=lambda p, x: classifier.features(p, x, spec),
        head=classifier.logits,
    )


NETS: dict[str, Net] = {
    **{name: _classifier(spec) for name, spec in SPECS.items()},
    "pixels": PIXELS,
    **random_net.NETS,
    **inception.NETS,
    **efficientnet.NETS,
    **vgg16.NETS,
    **lpips.NETS,
    **dinov2.NETS,
    **clip.NETS,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """What a file of weights holds, for `load`.

    arrays: published name -> numbers. sha256: of the file, 64 hex digits. origin: the file, for
    errors.
    """

    arrays: Arrays
    sha256: str
    origin: str = "the file"


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNet:
    """A named feature net; call it on images.

    name: as in `names()`. net: its description. weights_sha256: of the weights file, 64 hex digits,
    "none" for nets without weights. params: its arrays.
    """

    name: str
    net: Net
    weights_sha256: str
    params: dict[str, np.ndarray] = dataclasses.field(repr=False)

    @property
    def dim(self) -> int | None:
        """Width of the features; None: it depends on the image's size."""
        return self.net.dim

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """(h, w, c) that images are brought to; None: they are taken as they are."""
        return self.net.input_shape

    @property
    def resizer(self) -> str:
        """How other sizes are brought to it."""
        return self.net.resizer

    def __call__(self, images: Any) -> jax.Array:
        """Features (n, dim) float32 of images (n, h, w, c), uint8 or float in [-1, 1].

        Floats are used as they are: quantise samples first (units.to_uint8) to measure what is
        saved.
        Raises:
          ValueError: for another rank, type or channel count.
        """
        self._check(images)
        return _apply(self.params, images, self.net)

    def maps(self, images: Any) -> jax.Array:
        """Activations (n, h', w', dim) before the last pooling: the features are their mean.

        Raises:
          ValueError: for a net that does not end with a spatial mean.
        """
        if self.net.maps is None:
            have = [n for n, net in NETS.items() if net.maps]
            raise ValueError(f"{self.name} does not end with a spatial mean; those that do: {have}")
        self._check(images)
        return _maps(self.params, images, self.net)

    def _check(self, images: Any) -> None:
        shape, dtype = np.shape(images), images.dtype
        if len(shape) != 4 or not (dtype == jnp.uint8 or jnp.issubdtype(dtype, jnp.floating)):
            raise ValueError(
                f"{self.name} takes images (n, h, w, c), uint8 or float in [-1, 1], got "
                f"{dtype} {shape}"
            )
        if self.net is not PIXELS and shape[-1] not in (1, 3):
            raise ValueError(
                f"{self.name} takes images of 1 or 3 channels, got {shape[-1]} in {shape}; "
                "choose --features=pixels or drop channels"
            )

    def logits(self, images: Any, bias: bool = True) -> jax.Array:
        """Class logits (n, classes) of a classifier; without its bias for the Inception Score."""
        return self.head(self(images), bias)

    def head(self, features: Any, bias: bool = True) -> jax.Array:
        """The same logits from features (n, dim) that have been computed."""
        self.check_classifier()
        return self.net.head(self.params, features, bias)

    def check_classifier(self) -> None:
        """Raises ValueError for a net without logits."""
        if self.net.head is None:
            have = [n for n, net in NETS.items() if net.head]
            raise ValueError(f"{self.name} is no classifier; the classifiers are {have}")

    def facts(self) -> dict[str, Any]:
        """What a result file records about the net."""
        return {
            "name": self.name,
            "dim": self.dim,
            "input_shape": self.input_shape,
            "weights_sha256": self.weights_sha256[:16],
            "resizer": self.resizer,
            "scaling": self.net.scaling,
        }


def prepare(images: jax.Array, net: Net) -> jax.Array:
    """The input (n, h', w', c') of a net, of images (n, h, w, 1|3), uint8 or in [-1, 1]."""
    if net.resizer == ANTIALIAS:
        return fit(from_uint8(images), net.input_shape)
    if net is PIXELS:
        return from_uint8(images)
    whole = images.dtype == jnp.uint8
    x = images.astype(jnp.float32) if whole else (images.astype(jnp.float32) + 1) * 127.5
    if x.shape[-1] == 1:
        x = jnp.repeat(x, 3, axis=-1)
    if net.input_shape:
        x = resize(x, net.input_shape[:2], net.resizer)
    return SCALINGS[net.scaling](x)


@functools.partial(jax.jit, static_argnames="net")
def _apply(params: dict[str, jax.Array], images: jax.Array, net: Net) -> jax.Array:
    return net.features(params, prepare(images, net))


@functools.partial(jax.jit, static_argnames="net")
def _maps(params: dict[str, jax.Array], images: jax.Array, net: Net) -> jax.Array:
    return net.maps(params, prepare(images, net))


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
    return list(NETS)


def published() -> list[str]:
    """Those of them that need a file of weights."""
    return [n for n, net in NETS.items() if net.convert]


def load(
    name: str,
    weights: Weights | None = None,
    *,
    resizer: str | None = None,
    scaling: str | None = None,
    folder: pathlib.Path | str = WEIGHTS,
) -> FeatureNet:
    """The net `name`.

    Args:
      name: of `names()`.
      weights: of a published net; the others have their own.
      resizer, scaling: another preprocessing of a published net (metrics.protocols says whose);
      None: the net's own.
      folder: of the small classifiers' weights, whose checksums are verified.
    Raises:
      ValueError: for an unknown name; weights that are not the net's, naming both sides; weights
      or a preprocessing of a net that takes none.
    """
    if name not in NETS:
        raise ValueError(f"there is no feature net {name!r}; the names are {names()}")
    net = NETS[name]
    if net.convert is None:
        if weights is not None or resizer is not None or scaling is not None:
            raise ValueError(
                f"{name} takes no weights, resizer or scaling of others; those that do are "
                f"{published()}"
            )
        return _own(name, net, folder)
    if weights is None:
        raise ValueError(
            f"{name} needs a file of weights: give --weights FILE or set JAXGEN_WEIGHTS to the "
            f"file or its folder; {net.source}"
        )
    try:
        params = net.convert(weights.arrays)
    except ValueError as e:
        raise ValueError(f"{weights.origin}: {e}") from e
    return FeatureNet(name, _prepared_by(net, resizer, scaling), weights.sha256, params)


def _prepared_by(net: Net, resizer: str | None, scaling: str | None) -> Net:
    if resizer is not None and (resizer not in RESIZERS or not net.input_shape):
        why = f"the names are {list(RESIZERS)}" if net.input_shape else "this net resizes nothing"
        raise ValueError(f"there is no resizer {resizer!r}; {why}")
    if scaling is not None and scaling not in SCALINGS:
        raise ValueError(f"there is no scaling {scaling!r}; the names are {list(SCALINGS)}")
    return net._replace(resizer=resizer or net.resizer, scaling=scaling or net.scaling)


def _own(name: str, net: Net, folder: pathlib.Path | str) -> FeatureNet:
    """A net that needs no file of the user's."""
    if name in random_net.NETS:
        params = random_net.params()
        return FeatureNet(name, net, random_net.digest(params), params)
    if name not in SPECS:
        return FeatureNet(name, net, "none", {})
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
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        params = {k: arrays[k].astype(np.float32) for k in arrays.files}
    got, shapes = {k: v.shape for k, v in params.items()}, classifier.shapes(SPECS[name])
    if got != shapes:
        raise ValueError(
            f"{path} holds arrays {got}, but {name} has {shapes}; retrain it with "
            "scripts/train_classifiers.py"
        )
    return FeatureNet(name, net, digest, params)


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
    suited = [n for n in SPECS if SPECS[n].input_shape[-1] == shape[-1]] + ["pixels", "random"]
    raise ValueError(
        f"no feature net belongs to the source {source_name!r} with images {tuple(shape)}; choose "
        f"one with --features: the names are {names()}, of which {suited} need no file of weights"
    )
