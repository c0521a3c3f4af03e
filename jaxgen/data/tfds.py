"""Prepared tfds sets by random access, without TensorFlow: array_record only.

A folder is checked before tfds sees it: tfds imports the module of whatever class its features.json
names, and believes its lengths.
"""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxgen.data import images
from jaxgen.data.source import Item, Source, check, split_off

# The kinds of features that a set may have: those that tfds decodes without starting a program.
FEATURES = (
    "FeaturesDict", "Image", "LabeledImage", "ClassLabel", "Tensor", "Scalar", "Text",
    "BBoxFeature", "Sequence",
)  # fmt: skip


def load(
    where: str,
    split: str,
    *,
    data_dir: str = "",
    train: str = "train",
    test: str = "",
    image: str = "image",
    label: str = "label",
    holdout: float = 0.1,
) -> Source:
    """A prepared set by its name, `cifar10` or `name/config`; nothing is downloaded.

    Args:
      data_dir: tfds' folder of sets; its default (or TFDS_DATA_DIR) when empty.
      train, test: tfds splits, sub-splits such as train[:90%] among them. Without `test`: "test",
        else "validation", else a fixed `holdout` (0..1) of `train` is the test split.
      image, label: names of the features; a set without a feature `label` has no labels.
    """
    if re.match(r"[^/]*:\D", where):
        raise ValueError(f"tfds set {where!r}: sets of other collections would be downloaded")
    builder = _builder(where, data_dir)
    if builder is None:
        raise FileNotFoundError(
            f"tfds has no prepared set {where!r} in {data_dir or 'its default folder'}; "
            + _prepare_advice(where)
        )
    return _open(builder, where.replace("/", "_"), split, train, test, image, label, holdout)


def load_dir(
    where: str,
    split: str,
    *,
    train: str = "train",
    test: str = "",
    image: str = "image",
    label: str = "label",
    holdout: float = 0.1,
) -> Source:
    """A prepared set by its folder: the one with dataset_info.json, or one that holds it below.

    Raises:
      FileNotFoundError: no such folder. ValueError, OSError: naming it: damaged, or refused.
    """
    import tensorflow_datasets as tfds

    found = sorted({p.parent for p in pathlib.Path(where).rglob("dataset_info.json")})
    if len(found) != 1:
        raise FileNotFoundError(
            f"{where}: expected one dataset_info.json in it or below, got "
            f"{', '.join(map(str, found)) or 'none'}; `jaxgen data prepare` makes such a folder"
        )
    with _explained(found[0]):
        check_folder(found[0])
        builder = tfds.builder_from_directory(str(found[0]))
        name = builder.info.name
        return check(_open(builder, name, split, train, test, image, label, holdout))


@contextlib.contextmanager
def _explained(where: object) -> Iterator[None]:
    """Errors as ValueError or OSError that name the place; tfds and its readers raise many kinds.

    Its own message stays if it names the place.
    """
    try:
        yield
    except Exception as e:
        text = str(e)
        if isinstance(e, ValueError | OSError) and str(where) in text:
            raise
        kind = OSError if isinstance(e, OSError) else ValueError
        raise kind(f"{where}: cannot be read ({type(e).__name__}: {text[:500]})") from e


def check_folder(folder: pathlib.Path) -> None:
    """Looks at a folder before tfds does.

    Raises:
      ValueError: features of other kinds than FEATURES, whose code tfds would import; something in
        the folder that is no file; JSON that is none.
    """
    import tensorflow_datasets as tfds
    from google.protobuf import json_format

    for path in folder.iterdir():
        if not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is not a regular file")
    path = folder / "features.json"
    try:
        # As tfds reads it; its older form, which names classes within texts, is not array_record's.
        root = type(tfds.features.Text().to_proto())()
        json_format.ParseDict(json.loads(path.read_text()), root)
    except (ValueError, TypeError, AttributeError, RecursionError, json_format.ParseError) as e:
        raise ValueError(f"{path}: no description of features ({e}); prepare the set anew") from e
    kinds = (getattr(tfds.features, name) for name in FEATURES)
    known = {f"{k.__module__}.{k.__name__}" for k in kinds}
    todo = [root]
    while todo:
        feature = todo.pop()
        if feature.python_class_name not in known or feature.WhichOneof("content") in (
            None,
            "json_feature",
        ):
            raise ValueError(
                f"{path}: refused: a feature of the kind {feature.python_class_name[:80]!r}; kinds "
                f"that are read are {', '.join(FEATURES)} of tfds"
            )
        todo += feature.features_dict.features.values()
        todo += [feature.sequence.feature] if feature.WhichOneof("content") == "sequence" else []


def _check_shards(builder: Any, split: str) -> None:
    """Raises ValueError for files that are not in the set's folder or cannot hold their records."""
    info, folder = builder.info.splits[split], os.path.normpath(builder.data_path)
    for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
        if os.path.dirname(os.path.normpath(path)) != folder or not os.path.isfile(path):
            raise ValueError(f"{folder}: no file {path} of split {split} in it")
        if not 0 <= length <= os.path.getsize(path):
            raise ValueError(f"{path}: said to hold {length} images, and has fewer bytes")


def prepared(name: str) -> bool:
    """Whether tfds finds the set prepared in its default folder, in any format."""
    return _builder(name, "") is not None


def _builder(name: str, data_dir: str) -> Any:
    """The builder of a prepared set, or None when it is not prepared."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import file_utils

    for root in file_utils.list_data_dirs(data_dir or None):
        for path in pathlib.Path(root, re.split("[/:]", name)[0]).rglob("features.json"):
            check_folder(path.parent)
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
        return None
    return builder if builder.info.splits else None


def _prepare_advice(name: str) -> str:
    return (
        "prepare it where TensorFlow is installed: tfds.builder("
        f"{name!r}, file_format='array_record').download_and_prepare()"
    )


def _open(
    builder: Any,
    name: str,
    split: str,
    train: str,
    test: str,
    image: str,
    label: str,
    holdout: float,
) -> Source:
    file_format = getattr(builder.info.file_format, "value", None)
    if file_format != "array_record":
        raise ValueError(
            f"tfds set {name} in {builder.data_path} is prepared as {file_format}, which has no "
            "random access; " + _prepare_advice(name)
        )
    splits = list(builder.info.splits)
    test = test or next((s for s in ("test", "validation") if s in splits), "")
    wanted = test if split == "test" and test else train
    if wanted.partition("[")[0] not in splits:
        raise ValueError(f"tfds set {name} has no split {wanted!r}; ?train= can be one of {splits}")
    _check_shards(builder, wanted.partition("[")[0])
    source = TfdsSource(builder, wanted, image, label, name=name, split=split)
    return source if test else split_off(source, split, holdout)


class TfdsSource(Source):
    """One split of a prepared set; stored image bytes are decoded by Pillow when asked for."""

    def __init__(self, builder: Any, tfds_split: str, image: str, label: str, **facts: Any):
        import tensorflow_datasets as tfds

        features = builder.info.features
        if image not in features:
            raise ValueError(
                f"tfds set {facts['name']} has no feature {image!r}; choose one with ?image= from "
                f"{list(features)}"
            )
        feature = features[image]
        self._encoded = isinstance(feature, tfds.features.Image)
        if feature.np_dtype != np.uint8 or len(feature.shape) != 3:
            raise ValueError(
                f"tfds set {facts['name']}: feature {image!r} must be a uint8 image (h, w, c), got "
                f"{np.dtype(feature.np_dtype)} {feature.shape}"
            )
        labels = _label_facts(features, label)
        decoders = _undecoded(features)
        if not self._encoded:
            decoders.pop(image)
        decoders.pop(label, None)
        self._data = builder.as_data_source(tfds_split, decoders=decoders)
        self._image, self._label, self._folder = image, label, builder.data_path
        shape = feature.shape if None not in feature.shape else self._read(0).shape
        super().__init__(shape=shape, **labels, **facts)

    def _read(self, i: int) -> np.ndarray:
        value = self._data[i][self._image]
        return images.read(value) if self._encoded else np.asarray(value)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> Item:
        with _explained(self._folder):
            return self._item(int(i))

    def _item(self, i: int) -> Item:
        record = self._data[i]
        image = record[self._image]
        if self._encoded:
            image = images.read(image, self.shape[2])
        if image.shape != self.shape:
            raise ValueError(
                f"{self.name}[{i}]: expected an image of {self.shape}, got {image.shape}; a data "
                "set must have one size (write it to a folder and use `jaxgen data prepare`)"
            )
        item = {"image": image}
        if self.label_kind == "class":
            label = int(record[self._label])
            if not 0 <= label < self.label_dim:
                raise ValueError(f"{self.name}[{i}]: class {label} of {self.label_dim}")
            item["label"] = np.asarray(label, np.int32)
        elif self.label_kind == "vector":
            item["label"] = np.asarray(record[self._label], np.float32).reshape(-1)
            if item["label"].shape != (self.label_dim,) or not np.isfinite(item["label"]).all():
                raise ValueError(f"{self.name}[{i}]: its label is no finite vector")
        return item


def _undecoded(features: Any) -> dict[str, Any]:
    """Decoders that leave all features as they are stored; tfds would open images of any format."""
    import tensorflow_datasets as tfds

    nested = lambda f: isinstance(f, tfds.features.FeaturesDict)
    skip = tfds.decode.SkipDecoding
    return {n: _undecoded(f) if nested(f) else skip() for n, f in features.items()}


def _label_facts(features: Any, name: str) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    if name not in features:
        if name == "label":
            return {}
        raise ValueError(f"no feature {name!r}; choose one with ?label= from {list(features)}")
    feature = features[name]
    if isinstance(feature, tfds.features.ClassLabel):
        names, count = feature.names, feature.num_classes
        return {"label_kind": "class", "label_dim": count, "class_names": names}
    if isinstance(feature, tfds.features.Tensor) and np.issubdtype(feature.np_dtype, np.number):
        floats = np.issubdtype(feature.np_dtype, np.floating)
        if len(feature.shape) == 1 and feature.shape[0]:
            return {"label_kind": "vector", "label_dim": feature.shape[0]}
        if feature.shape == () and floats:
            return {"label_kind": "vector", "label_dim": 1}
    raise ValueError(
        f"feature {name!r} must be a ClassLabel, a vector of fixed width or a float, got "
        f"{feature}; choose another with ?label="
    )
