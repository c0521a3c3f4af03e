"""Well-known sets by name, wherever they lie: $JAXGEN_DATA, a system package, or tfds."""

import os
import pathlib

import numpy as np

from jaxgen.data import arrays, idx, images, tfds
from jaxgen.data.source import ArraySource, Source

DIGITS = tuple(str(i) for i in range(10))
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

DEBIAN_FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")


def _below_data(name: str) -> pathlib.Path | None:
    """$JAXGEN_DATA/name (or with dashes) if it is a folder."""
    root = os.environ.get("JAXGEN_DATA")
    for spelling in (name, name.replace("_", "-")):
        if root and (path := pathlib.Path(root, spelling)).is_dir():
            return path
    return None


def _named(source: Source, name: str, class_names: tuple[str, ...]) -> Source:
    if source.label_dim != len(class_names):
        raise ValueError(
            f"{name}: expected labels of {len(class_names)} classes, got {source.label_dim} "
            f"{source.label_kind}"
        )
    source.name, source.class_names = name, tuple(class_names)
    return source


def _absent(name: str, ways: list[str]) -> FileNotFoundError:
    return FileNotFoundError(
        f"{name} is not on this machine. Any one of these gives it:\n"
        + "\n".join(f"  - {way}" for way in ways)
    )


def _idx_or_tfds(name: str, split: str, class_names: tuple[str, ...], *places: pathlib.Path):
    for place in (_below_data(name), *places):
        if place is not None and place.is_dir():
            return _named(idx.load(str(place), split), name, class_names)
    if tfds.prepared(name):
        return _named(tfds.load(name, split), name, class_names)
    return None


_FILES = "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"


def mnist(split: str) -> Source:
    """MNIST, 28x28x1, 60,000 train and 10,000 test images, 10 digits."""
    source = _idx_or_tfds("mnist", split, DIGITS)
    if source is None:
        ways = [
            f"put {_FILES} into $JAXGEN_DATA/mnist",
            "name the folder with those files: idx:/path/to/mnist",
            "prepare tfds' mnist as array_record (needs TensorFlow once)",
        ]
        raise _absent("mnist", ways)
    return source


def fashion_mnist(split: str) -> Source:
    """Fashion-MNIST, 28x28x1, 60,000 train and 10,000 test images, 10 kinds of clothes."""
    source = _idx_or_tfds("fashion_mnist", split, FASHION, DEBIAN_FASHION)
    if source is None:
        ways = [
            "on Debian or Ubuntu: apt-get update && apt-get install -y dataset-fashion-mnist",
            f"put {_FILES} into $JAXGEN_DATA/fashion_mnist",
            "name the folder with those files: idx:/path/to/fashion_mnist",
            "prepare tfds' fashion_mnist as array_record (needs TensorFlow once)",
        ]
        raise _absent("fashion_mnist", ways)
    return source


def cifar10(split: str) -> Source:
    """CIFAR-10, 32x32x3, 50,000 train and 10,000 test images, 10 classes."""
    if place := _below_data("cifar10"):
        return _named(arrays.load_sheets(str(place), split), "cifar10", CIFAR10)
    if tfds.prepared("cifar10"):
        return _named(tfds.load("cifar10", split), "cifar10", CIFAR10)
    ways = [
        "put sheets train_00.webp.., test_00.webp.. and labels.npz into $JAXGEN_DATA/cifar10",
        "prepare tfds' cifar10 as array_record (needs TensorFlow once)",
        "name a folder or an archive of arrays: folder:DIR, npz:FILE",
    ]
    raise _absent("cifar10", ways)


def bsd400(split: str, *, size: int = 180) -> Source:
    """400 grey photographs to train on, and the middles of BSD68's to test on; size <= 180.

    The training set of grey denoisers since DnCNN (180x180 pixels each), and its customary test
    set. Whole photographs of any size are restored by `jaxgen restore`.
    """
    place = _below_data("denoise_gray")
    folder = place and place / {"train": "bsd400", "test": "bsd68"}[split]
    if not (folder and folder.is_dir()):
        ways = [
            "put the photographs into $JAXGEN_DATA/denoise_gray/bsd400 and .../bsd68",
            "train on the photographs in installed packages: photos?grey=1",
            "name a folder of photographs of one size: folder:DIR",
        ]
        raise _absent("bsd400", ways)
    found = []
    for path in sorted(folder.glob("*.png")):
        image = images.read(path, 1)
        top, left = ((n - size) // 2 for n in image.shape[:2])
        if size < 1 or min(top, left) < 0:
            raise ValueError(f"bsd400: size is 1 to {min(image.shape[:2])} for {path}, got {size}")
        found.append(image[top : top + size, left : left + size])
    if not found:
        raise FileNotFoundError(f"{folder}: no photographs (.png) in it")
    return ArraySource(np.stack(found), name="bsd400", split=split)
