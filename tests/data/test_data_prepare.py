"""A folder to ArrayRecord and back through tfds: bytes, labels, order, sizes, and bad files."""

import numpy as np
import pytest
from PIL import Image

from jaxgen.data.images import read
from jaxgen.data.prepare import prepare
from jaxgen.data.sources import load

tfds = pytest.importorskip("tensorflow_datasets")
RNG = np.random.default_rng(1)


def picture(path, h=8, w=8, c=3, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(0, 256, (h, w, c), dtype=np.uint8)
    Image.fromarray(array[..., 0] if c == 1 else array).save(path, **options)
    return array


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "My photos-2"
    for i in range(9):
        suffix = "jpg" if i % 2 else "png"
        picture(root / ("cat" if i % 3 else "ant hill") / f"{i}.{suffix}")
    return root


def test_keeps_bytes_order_and_labels(photos, tmp_path):
    done = prepare(photos, tmp_path / "out", progress=False)
    assert (done.num, done.kept, done.skipped, done.name) == (9, 9, {}, "my_photos_2")
    builder = tfds.builder("my_photos_2", data_dir=str(tmp_path / "out"))
    stored = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    files = sorted(photos.rglob("*.*"), key=lambda p: p.relative_to(photos).as_posix())
    assert [r["image"] for r in stored] == [f.read_bytes() for f in files]
    assert builder.info.features["label"].names == ["ant hill", "cat"]

    plain = tfds.data_source("my_photos_2", data_dir=str(tmp_path / "out"), split="train")
    source = load(f"tfds_dir:{tmp_path}/out?holdout=0")
    folder = load(f"folder:{photos}?holdout=0")
    assert source.facts | {"name": ""} == folder.facts | {"name": ""}
    for i in range(9):
        np.testing.assert_array_equal(source[i]["image"], folder[i]["image"])
        np.testing.assert_array_equal(source[i]["label"], folder[i]["label"])
        assert plain[i]["image"].shape == (8, 8, 3)
    np.testing.assert_array_equal(
        load(f"tfds:my_photos_2?data_dir={tmp_path}/out&holdout=0")[4]["image"], source[4]["image"]
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["my_photos_2"]


def test_vectors_and_no_labels(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / "in" / f"{name}.png")
    prepare(tmp_path / "in", tmp_path / "none", progress=False)
    assert load(f"tfds_dir:{tmp_path}/none").label_kind == "none"
    (tmp_path / "v.csv").write_text("file,x,y\na.png,1,2.5\nb.png,3,4\nc.png,5,6\n")
    prepare(tmp_path / "in", tmp_path / "v", labels=str(tmp_path / "v.csv"), progress=False)
    source = load(f"tfds_dir:{tmp_path}/v?holdout=0")
    assert (source.label_kind, source.label_dim) == ("vector", 2)
    assert [source[i]["label"].tolist() for i in range(3)] == [[1, 2.5], [3, 4], [5, 6]]


def test_mixed_kinds_become_one_kind(tmp_path):
    root = tmp_path / "in"
    grey, colour = picture(root / "0.png", c=1), picture(root / "1.png")
    clear, webp = picture(root / "2.png", c=4), picture(root / "3.webp", lossless=True)
    done = prepare(root, tmp_path / "out", progress=False)
    assert done.shape == (8, 8, 3) and done.kept == 1
    source = load(f"tfds_dir:{tmp_path}/out?holdout=0")
    np.testing.assert_array_equal(source[0]["image"], grey.repeat(3, -1))
    np.testing.assert_array_equal(source[1]["image"], colour)
    np.testing.assert_array_equal(source[3]["image"], webp)
    alpha = clear[..., 3:] / 255
    over_white = clear[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(source[2]["image"], over_white, atol=1)


def test_resize_cuts_the_middle(tmp_path):
    root = tmp_path / "in"
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 200
    root.mkdir()
    Image.fromarray(wide).save(root / "wide.png")
    Image.fromarray(wide.swapaxes(0, 1)).save(root / "tall.png")
    fits = picture(root / "fits.png", 4, 4)
    done = prepare(root, tmp_path / "out", size=4, progress=False)
    assert (done.num, done.kept, done.enlarged, done.shape) == (3, 1, 0, (4, 4, 3))
    source = load(f"tfds_dir:{tmp_path}/out?holdout=0")
    np.testing.assert_array_equal(source[0]["image"], fits)
    for i in (1, 2):
        np.testing.assert_array_equal(source[i]["image"], 200)
    done = prepare(root, tmp_path / "big", size=(6, 12), resize="box", progress=False)
    assert done.shape == (6, 12, 3) and done.enlarged == 2
    assert load(f"tfds_dir:{tmp_path}/big?holdout=0").shape == (6, 12, 3)


def test_exif_orientation_counts_when_resizing(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    half = np.zeros((8, 8, 3), np.uint8)
    half[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(half).save(root / "a.png", exif=exif)
    prepare(root, tmp_path / "same", progress=False)
    np.testing.assert_array_equal(
        load(f"tfds_dir:{tmp_path}/same?holdout=0")[0]["image"], read(root / "a.png")
    )
    for size in (4, 8):
        done = prepare(root, tmp_path / f"s{size}", size=size, resize="box", progress=False)
        turned = load(f"tfds_dir:{tmp_path}/s{size}?holdout=0")[0]["image"]
        assert done.kept == 0 and (turned[: size // 2] == 0).all()
        assert (turned[size // 2 :] == 255).all()


def spoil(root):
    path = root / "cat" / "1.jpg"
    path.write_bytes(path.read_bytes()[:300])
    (root / "cat" / "empty.png").write_bytes(b"")
    picture(root / "cat" / "wide.png", 8, 9)


def test_bad_files_are_named_and_nothing_is_written(photos, tmp_path):
    spoil(photos)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError) as error:
        prepare(photos, tmp_path / "out", progress=False)
    text = str(error.value)
    assert "2 images" in text and "cat/1.jpg:" in text and "cat/empty.png:" in text
    assert "not 8x8 like most" in text and "cat/wide.png: 8x9" in text
    assert "nothing was written" in text and "--skip_bad" in text and "--size" in text
    assert sorted(tmp_path.iterdir()) == before


def test_skip_bad(photos, tmp_path):
    spoil(photos)
    done = prepare(photos, tmp_path / "out", skip_bad=True, progress=False)
    assert (done.num, set(done.skipped)) == (8, {"cat/1.jpg", "cat/empty.png", "cat/wide.png"})
    done = prepare(photos, tmp_path / "out8", size=8, skip_bad=True, progress=False)
    assert (done.num, set(done.skipped)) == (9, {"cat/1.jpg", "cat/empty.png"})
    source = load(f"tfds_dir:{tmp_path}/out?holdout=0")
    assert [int(source[i]["label"]) for i in range(8)] == [0, 0, 0, 1, 1, 1, 1, 1]


def test_a_failure_leaves_nothing(photos, tmp_path, monkeypatch):
    from jaxgen.data import prepare as module

    def fail(job):
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "_encode", fail)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space left"):
        prepare(photos, tmp_path / "out", progress=False)
    assert sorted(tmp_path.iterdir()) == before


def test_prepare_errors(photos, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="exists already; choose another folder"):
        prepare(photos, tmp_path / "out")
    with pytest.raises(ValueError, match="resize must be one of lanczos, bicubic"):
        prepare(photos, tmp_path / "x", resize="cubic")
    with pytest.raises(ValueError, match=r"size must be positive, got \(0, 0\)"):
        prepare(photos, tmp_path / "x", size=0)
    with pytest.raises(ValueError, match="the name of a set is letters"):
        prepare(photos, tmp_path / "x", name="2 sets")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        prepare(tmp_path / "absent", tmp_path / "x")


def test_tfds_errors(photos, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected one dataset_info.json"):
        load(f"tfds_dir:{tmp_path}")
    with pytest.raises(FileNotFoundError, match=r"no prepared set 'cifar10' in .*array_record"):
        load(f"tfds:cifar10?data_dir={tmp_path}")
    with pytest.raises(FileNotFoundError, match="no prepared set 'no_such_set'"):
        load(f"tfds:no_such_set?data_dir={tmp_path}")
    prepare(photos, tmp_path / "out", name="two", progress=False)
    spec = f"tfds_dir:{tmp_path}/out"
    with pytest.raises(ValueError, match=r"no split 'val'; \?train= can be one of \['train'\]"):
        load(f"{spec}?train=val")
    with pytest.raises(ValueError, match=r"no feature 'picture'; choose one with \?image="):
        load(f"{spec}?image=picture")
    with pytest.raises(ValueError, match=r"no feature 'klass'; choose one with \?label="):
        load(f"{spec}?label=klass")
    parts = [load(f"{spec}?train=train[:6]&test=train[6:]", s) for s in ("train", "test")]
    assert [len(p) for p in parts] == [6, 3]
    info = next((tmp_path / "out").rglob("dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="prepared as tfrecord, which has no random access"):
        load(spec)
