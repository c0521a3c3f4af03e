"""Damaged prepared sets: their JSON, their names of classes, their ArrayRecord files, records."""

import io
import json
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from fuzzing import COUNTS, damaged, fuzz, json_values, memory, replaced, tame
from hypothesis import strategies as st
from PIL import Image

from jaxgen.data import prepare, sources, tfds


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{file: bytes} of a set of four images in two classes."""
    root = tmp_path_factory.mktemp("made")
    for c in "ab":
        (root / "set" / c).mkdir(parents=True)
        for k in range(2):
            image = Image.fromarray(np.full((4, 4, 3), 50 * k, np.uint8))
            image.save(root / "set" / c / f"{k}.png")
    prepare.prepare(root / "set", root / "out", progress=False)
    folder = next(root.rglob("dataset_info.json")).parent
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def folder(made, tmp_path):
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    assert len(read_all(tmp_path)) == 4  # and what is imported late is there
    return tmp_path


def read_all(folder):
    source = sources.load(f"tfds_dir:{folder}", "train", holdout=0.0)
    return [source[i] for i in range(min(len(source), 8))]


def attempt(folder, made, files):
    """Reads the set with these files in place of its own, then puts its own back."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    items, _ = tame(lambda: read_all(folder), folder, folder.name)
    for item in items or ():
        assert item["image"].dtype == np.uint8 and item["image"].shape == items[0]["image"].shape
    for name in files:
        (folder / name).write_bytes(made[name])


def shard_of(made):
    return next(n for n in made if "array_record" in n)


@COUNTS
def test_files_of_a_set(count, made, folder):
    shard = shard_of(made)
    small = {n: d for n, d in made.items() if n != shard}
    files = st.one_of(damaged(small), damaged({shard: made[shard]}), damaged(small))
    with memory(128):
        fuzz(count, files, lambda e: attempt(folder, made, dict([e])))


@COUNTS
def test_json_of_a_set(count, made, folder):
    dumps = lambda v: json.dumps(v).encode("utf-8", "surrogatepass")
    trees = st.one_of(
        *(
            st.tuples(st.just(n), st.one_of(replaced(json.loads(made[n])), json_values()))
            for n in ("dataset_info.json", "features.json")
        )
    )
    with memory(128):
        fuzz(count, trees, lambda e: attempt(folder, made, {e[0]: dumps(e[1])}))


def example(features):
    """A record of tfds: a message tf.train.Example of {name: (field, bytes of its values)}."""
    message = lambda n, data: bytes([n << 3 | 2]) + _varint(len(data)) + data
    entries = b""
    for name, (kind, values) in features.items():
        feature = message(kind, values)
        entries += message(1, message(1, name.encode()) + message(2, feature))
    return message(1, entries)


def _varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def records():
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    png = out.getvalue()
    as_bytes = lambda d: (1, b"\x0a" + _varint(len(d)) + d)
    as_ints = lambda *v: (3, b"".join(b"\x08" + _varint(n % 2**64) for n in v))
    good = example({"image": as_bytes(png), "label": as_ints(1)})
    values = st.one_of(
        damaged([png]).map(as_bytes),
        st.integers(-(2**63), 2**64 - 1).map(as_ints),
        st.just(as_ints(1, 2)),
        st.tuples(st.integers(1, 3), st.binary(max_size=8)),
    )
    made = st.fixed_dictionaries(
        {}, optional={"image": st.one_of(st.just(as_bytes(png)), values), "label": values}
    )
    return st.one_of(st.just(good), made.map(example), damaged([good]))


@COUNTS
def test_records_of_a_set(count, made, folder):
    """Files with right checksums of records that are not what the features say."""
    shard = shard_of(made)

    def body(four):
        writer = ArrayRecordWriter(str(folder / "new"), "group_size:1")
        for record in four:
            writer.write(record)
        writer.close()
        attempt(folder, made, {shard: (folder / "new").read_bytes()})

    with memory(128):
        fuzz(count, st.lists(records(), min_size=1, max_size=4), body)


EVIL = "evil_features_of_a_set"


def features_naming(name):
    """Ways in which features.json can name a class."""
    inner = {"type": name, "content": {}}
    known = "tensorflow_datasets.core.features."
    in_text = {"pythonClassName": known + "sequence_feature.Sequence"}
    yield {"pythonClassName": name, "image": {"dtype": "uint8"}}
    yield {"python_class_name": name, "json_feature": {"json": "{}"}}
    yield inner
    yield {"type": known + "features_dict.FeaturesDict", "content": {"image": inner}}
    yield {**in_text, "jsonFeature": {"json": json.dumps({"feature": inner, "length": None})}}
    yield {**in_text, "sequence": {"feature": {"pythonClassName": name, "text": {}}}}


@pytest.mark.parametrize("way", range(6))
@pytest.mark.parametrize("name", [f"{EVIL}.X", f"{EVIL}.sub.X"])
def test_no_module_that_a_set_names_is_imported(folder, monkeypatch, way, name):
    """tfds imports the module of any class; one of the folder's own would have run."""
    monkeypatch.syspath_prepend(str(folder))
    (folder / f"{EVIL}.py").write_text("import pathlib; pathlib.Path(__file__ + '.ran').touch()")
    text = json.dumps(list(features_naming(name))[way])
    (folder / "features.json").write_text(text)
    _, error = tame(lambda: read_all(folder), folder, str(folder / "features.json"))
    assert isinstance(error, ValueError) and EVIL not in sys.modules
    assert not list(folder.glob("*.ran"))


def test_no_module_that_a_set_with_a_name_names_is_imported(folder, made, monkeypatch):
    place = folder / "data" / "my_set" / "1.0.0"
    place.mkdir(parents=True)
    for name, data in made.items():
        (place / name).write_bytes(data)
    (place / "features.json").write_text(json.dumps(next(features_naming(f"{EVIL}.X"))))
    read = lambda: sources.load("tfds:my_set", data_dir=str(folder / "data"))
    _, error = tame(read, folder, str(place / "features.json"))
    assert isinstance(error, ValueError) and "refused" in str(error)
    with pytest.raises(ValueError, match="would be downloaded"):
        sources.load("tfds:huggingface:mnist")


@pytest.mark.parametrize(
    "change",
    [
        {"filepathTemplate": "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"},
        {"filepathTemplate": "/etc/passwd"},
        {"filepathTemplate": "gs://bucket/{DATASET}-{SHARD_X_OF_Y}"},
        {"shardLengths": ["4000000000000"]},
        {"shardLengths": ["-1"]},
        {"shardLengths": ["4"] * 3},
    ],
)
def test_a_set_reads_its_own_files_only(folder, change):
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0] |= change
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with memory(64):
        _, error = tame(lambda: read_all(folder), folder, folder.name)
    assert error is not None


def test_features_that_would_start_a_program_are_refused(folder):
    for kind in ("audio_feature.Audio", "video_feature.Video", "dataset_feature.Dataset"):
        feature = {"pythonClassName": f"tensorflow_datasets.core.features.{kind}", "text": {}}
        (folder / "features.json").write_text(json.dumps(feature))
        with pytest.raises(ValueError, match="refused: a feature of the kind"):
            tfds.check_folder(folder)
