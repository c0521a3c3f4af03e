"""Damaged IDX files, .npz archives, sheets, labels, references and logs."""

import gzip
import io
import json
import struct

import numpy as np
import pytest
from fuzzing import COUNTS, damaged, fuzz, json_values, memory, replaced, tame
from hypothesis import strategies as st
from PIL import Image

from jaxgen.cli import common
from jaxgen.data import arrays, idx, labels, source
from jaxgen.metrics import reference
from jaxgen.metrics.moments import Moments
from jaxgen.train import writer

X = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)


def idx_file(x):
    return bytes([0, 0, 8, x.ndim]) + struct.pack(f">{x.ndim}I", *x.shape) + x.tobytes()


def npz_file(pack=False, **arrays):
    out = io.BytesIO()
    (np.savez_compressed if pack else np.savez)(out, **arrays)
    return out.getvalue()


@COUNTS
def test_idx(count, tmp_path):
    plain = [idx_file(X[..., 0]), idx_file(np.arange(5, dtype=np.uint8)), idx_file(X[:0])]
    seeds = plain + [gzip.compress(p, mtime=0) for p in plain]
    path = tmp_path / "x"

    def body(data):
        path.write_bytes(data)
        x, _ = tame(lambda: idx.read(path), tmp_path, str(path))
        assert x is None or x.nbytes <= 1100 * len(data)

    with memory(64):
        fuzz(count, damaged(seeds), body)


@COUNTS
def test_folders_of_idx(count, tmp_path):
    good = {
        f"{stem}-{what}": idx_file(x)
        for stem in ("train", "t10k")
        for what, x in (
            ("images-idx3-ubyte", X[..., 0]),
            ("labels-idx1-ubyte", np.arange(5, dtype=np.uint8)),
        )
    }
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)

    def body(example):
        name, data = example
        (tmp_path / name).write_bytes(data)
        tame(lambda: source.check(idx.load(str(tmp_path), "train")), tmp_path, tmp_path.name)
        (tmp_path / name).write_bytes(good[name])

    with memory(64):
        fuzz(count, damaged(good), body)


def headers():
    """Any .npy header in an archive, with any body: most say what is not true."""
    shapes = st.lists(st.sampled_from([0, 1, 5, 4, -1, 2**31, 2**40, 2**63]), max_size=5)
    kinds = st.sampled_from(["|u1", "<i8", "<f4", "|O", "<U4", "|V8", "<M8[s]", "|S3", "x", "<f16"])

    def make(shape, kind, order, body, names):
        head = str({"descr": kind, "fortran_order": order, "shape": tuple(shape)}).encode()
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n" + body
        out = io.BytesIO()
        import zipfile

        with zipfile.ZipFile(out, "w") as z:
            for name in names:
                z.writestr(name, npy)
        return out.getvalue()

    names = st.lists(
        st.sampled_from(["image.npy", "label.npy", "images", "../x.npy", "/x.npy", "train.npy"]),
        min_size=1, max_size=3, unique=True,
    )  # fmt: skip
    return st.builds(make, shapes, kinds, st.booleans(), st.binary(max_size=64), names)


@COUNTS
def test_npz_of_images(count, tmp_path):
    vectors = np.linspace(0, 1, 10, dtype=np.float32).reshape(5, 2)
    seeds = [
        npz_file(image=X, label=np.arange(5)),
        npz_file(True, images=X[..., 0], labels=vectors),
        npz_file(True, image=X, other=np.array("text")),
    ]
    path = tmp_path / "x.npz"

    def body(data):
        path.write_bytes(data)
        read = lambda: source.check(arrays.load_npz(str(path), "train", holdout=0.0))
        tame(read, tmp_path, "x")

    with memory(64):
        fuzz(count, st.one_of(damaged(seeds), headers()), body)
    assert list(tmp_path.iterdir()) == [path]


@COUNTS
def test_sheets(count, tmp_path):
    out = io.BytesIO()
    Image.fromarray(np.tile(X[0], (2, 3, 1))).save(out, "PNG")
    good = {
        "train_00.png": out.getvalue(),
        "labels.npz": npz_file(train=np.arange(6), test=np.arange(2)),
    }
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)

    def body(example):
        name, data = example
        (tmp_path / name).write_bytes(data)
        read = lambda: source.check(arrays.load_sheets(str(tmp_path), "train", tile=4))
        tame(read, tmp_path, tmp_path.name)
        (tmp_path / name).write_bytes(good[name])

    npz = headers().map(lambda data: ("labels.npz", data))
    with memory(64):
        fuzz(count, st.one_of(damaged(good), npz), body)


FILES = ["a.png", "b/c.png", "d.png"]


def label_files():
    """CSV and JSON: of the right files with any values, with other names, and damaged."""
    good = [
        b"file,label\na.png,0\nb/c.png,2\nd.png,1\n",
        b"a.png,cat\nb/c.png,dog\nd.png,cat\n",
        b'a.png,1,0.5\nb/c.png,2,1e3\n"d.png",3,4\n',
    ]
    cells = st.one_of(
        st.text('ab",\x00\n1.-é', max_size=6), st.integers().map(str), st.floats().map(str)
    )
    rows = st.lists(cells, min_size=1, max_size=3).map(",".join)
    table = st.lists(rows, min_size=3, max_size=3).map(
        lambda t: "\n".join(f"{f},{r}" for f, r in zip(FILES, t)).encode()
    )
    csv = st.one_of(damaged(good), table).map(lambda d: ("labels.csv", d))
    trees = [
        {"a.png": 0, "b/c.png": 2, "d.png": 1},
        {"labels": [["a.png", [0.5, 1]], ["b/c.png", [1, 2]], ["d.png", [3, 4]]]},
    ]
    values = st.one_of(
        *(replaced(t) for t in trees),
        json_values(),
        st.lists(json_values(), min_size=3, max_size=3).map(lambda v: dict(zip(FILES, v))),
    )
    dumps = lambda v: json.dumps(v).encode("utf-8", "surrogatepass")
    texts = st.one_of(values.map(dumps), damaged([dumps(t) for t in trees]))
    return st.one_of(csv, texts.map(lambda d: ("labels.json", d)))


@COUNTS
def test_labels(count, tmp_path):
    def body(example):
        name, data = example
        path = tmp_path / name
        path.write_bytes(data)
        found, _ = tame(lambda: labels.from_file(path, FILES), tmp_path, str(path))
        assert found is None or (len(found.values) == 3 and found.dim <= source.CLASSES)

    with memory(64):
        fuzz(count, label_files(), body)


@COUNTS
def test_references(count, tmp_path):
    facts = {"data": {"images": 5}, "net": {"name": "n"}}
    moments = Moments(3)
    moments.update(np.random.default_rng(0).normal(size=(5, 3)))
    path, good = tmp_path / "r.npz", []
    for value in (np.ones((5, 3), np.float32), moments):
        reference.save(path, facts, value)
        good.append(path.read_bytes())

    def body(data):
        path.write_bytes(data)
        value, _ = tame(lambda: reference.load(path, facts), tmp_path, str(path))
        if isinstance(value, Moments):
            assert value.scatter.shape == (3, 3)
        elif value is not None:
            np.testing.assert_array_equal(value, 1)

    with memory(64):
        fuzz(count, st.one_of(damaged(good), headers()), body)


@COUNTS
def test_logs(count, tmp_path):
    good = [b'{"nimg": 64, "loss": 0.5, "rate": null}\n{"nimg": 128, "loss": 0.25}\n{"nimg": 1']
    lines = st.lists(st.one_of(json_values(), replaced({"nimg": 64, "loss": 0.5})), max_size=4).map(
        lambda v: "\n".join(map(json.dumps, v)).encode("utf-8", "surrogatepass")
    )
    path = tmp_path / "metrics.jsonl"

    def body(data):
        path.write_bytes(data)
        records, error = tame(lambda: writer.read(path), tmp_path)
        assert error is None

        def resume():
            writer.Writer(tmp_path, nimg=100, tensorboard=False).close()
            return writer.mean(records)

        tame(resume, tmp_path)
        assert all(r["nimg"] <= 100 for r in writer.read(path))

    with memory(64):
        fuzz(count, st.one_of(damaged(good), lines), body)


@COUNTS
def test_saved_configs(count, tmp_path):
    good = {"config": {"recipe": "edm2"}, "facts": {"shape": [8, 8, 1]}, "command": {}}
    text = json.dumps(good).encode()
    dumps = lambda v: json.dumps(v).encode("utf-8", "surrogatepass")
    path = tmp_path / "config.json"

    def body(data):
        path.write_bytes(data)
        tame(lambda: common.read_saved(tmp_path), tmp_path, str(path))

    fuzz(count, st.one_of(damaged([text]), replaced(good).map(dumps)), body)


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"nimg": ' + b"1" * 5000 + b"}", b"\xff\xfe"])
def test_a_damaged_line_of_a_log_costs_that_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"nimg": 1}\n' + line + b'\n{"nimg": 2}\n{"nimg"')
    assert [r["nimg"] for r in writer.read(path)] == [1, 2]
