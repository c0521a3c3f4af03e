"""Every kind of source by its spec: round trips on files made here, and what errors say."""

import gzip
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgen.data import latents, named, synthetic
from jaxgen.data.sources import KINDS, describe, load, parse

RNG = np.random.default_rng(0)


def random_images(n, h=6, w=6, c=3):
    return RNG.integers(0, 256, (n, h, w, c), dtype=np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path)


def write_idx(path, array, packed):
    data = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(data) if packed else data)


def idx_folder(root, packed=False, n=20):
    root.mkdir(parents=True, exist_ok=True)
    images, labels = random_images(n, 28, 28, 1)[..., 0], np.arange(n, dtype=np.uint8) % 10
    for stem in ("train", "t10k"):
        suffix = ".gz" if packed else ""
        write_idx(root / f"{stem}-images-idx3-ubyte{suffix}", images, packed)
        write_idx(root / f"{stem}-labels-idx1-ubyte{suffix}", labels, packed)
    return images, labels


# -- built in


def test_digits():
    from sklearn.datasets import load_digits

    train, test = load("digits"), load("digits", "test")
    assert (len(train), len(test), train.shape, train.label_dim) == (1200, 597, (8, 8, 1), 10)
    assert train.images.min() == 0 and train.images.max() == 255
    counts = np.bincount(test.labels)
    assert counts.min() >= 57 and counts.max() <= 62
    both = np.concatenate([train.images, test.images]).reshape(1797, -1)
    original = np.rint(load_digits().images.reshape(1797, -1) * 255 / 16)
    np.testing.assert_array_equal(
        both[np.lexsort(both.T)], original[np.lexsort(original.T)].astype(np.uint8)
    )


@pytest.mark.parametrize("name,k", [("ring", 8), ("grid", 25), ("spiral", 2)])
def test_mixtures(name, k):
    source = load(f"mixture2d:{name}?num=20000")
    assert source.shape == (1, 1, 2) and source.dtype == np.float32 and source.label_dim == k
    x = source.images.reshape(-1, 2)
    np.testing.assert_allclose(x.std(0), np.sqrt(0.25 + 0.02**2), atol=0.02)
    if name != "spiral":
        residual = x - synthetic.modes(name)[source.labels]
        np.testing.assert_allclose(residual.std(0), 0.02, rtol=0.03)
        np.testing.assert_allclose(np.bincount(source.labels) / 20000, 1 / k, atol=0.02)
        np.testing.assert_allclose((synthetic.modes(name) ** 2).mean(0), 0.25)
    other = load(f"mixture2d:{name}", "test", num=20000)
    assert (other.images != source.images).any()
    np.testing.assert_array_equal(load(f"mixture2d:{name}", num=20000).images, source.images)
    with pytest.raises(ValueError, match="mixture2d has ring, grid, spiral; got 'rings'"):
        load("mixture2d:rings")


# -- idx


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, packed):
    images, labels = idx_folder(tmp_path, packed)
    source = load(f"idx:{tmp_path}", "test")
    np.testing.assert_array_equal(source.images[..., 0], images)
    np.testing.assert_array_equal(source.labels, labels)
    assert source.shape == (28, 28, 1) and source.label_dim == 10


def test_idx_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no train-images-idx3-ubyte\[.gz\] and no"):
        load(f"idx:{tmp_path}")
    idx_folder(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"\(20, 28, 28\) = 15680 bytes, got 15675"):
        load(f"idx:{tmp_path}")
    path.write_bytes(b"PNG not idx")
    with pytest.raises(ValueError, match="begins with 00 00 08, got '50 4e 47'"):
        load(f"idx:{tmp_path}")
    path.write_bytes(gzip.compress(whole)[:-400])
    with pytest.raises(OSError, match="damaged gzip file"):
        load(f"idx:{tmp_path}")


def test_named_sets_from_JAXGEN_DATA(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    images, _ = idx_folder(tmp_path / "fashion-mnist")
    idx_folder(tmp_path / "mnist", packed=True)
    source = load("fashion_mnist")
    np.testing.assert_array_equal(source.images[..., 0], images)
    assert source.name == "fashion_mnist" and source.class_names[9] == "Ankle boot"
    assert load("mnist", "test").class_names == tuple("0123456789")


def test_absent_sets_say_all_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(named, "DEBIAN_FASHION", tmp_path / "absent")
    monkeypatch.setattr(named.tfds, "prepared", lambda name: False)
    with pytest.raises(FileNotFoundError) as error:
        load("fashion_mnist")
    for way in ("apt-get install -y dataset-fashion-mnist", "idx:/path", "JAXGEN_DATA", "tfds"):
        assert way in str(error.value)
    with pytest.raises(FileNotFoundError, match="mnist is not on this machine"):
        load("mnist")
    with pytest.raises(FileNotFoundError, match=r"sheets train_00.webp"):
        load("cifar10")


def test_fashion_mnist_of_the_system(monkeypatch):
    if not named.DEBIAN_FASHION.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    monkeypatch.delenv("JAXGEN_DATA", raising=False)
    train, test = load("fashion_mnist", "train"), load("fashion_mnist", "test")
    assert (len(train), len(test), train.shape) == (60000, 10000, (28, 28, 1))
    assert np.bincount(train.labels).tolist() == [6000] * 10


# -- npz


def test_npz(tmp_path):
    images, labels = random_images(40), np.arange(40) % 4
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    train, test = (load(f"npz:{tmp_path}/a.npz?holdout=0.25", s) for s in ("train", "test"))
    assert (len(train), len(test), train.name) == (30, 10, "a")
    index = {x.tobytes(): i for i, x in enumerate(images)}
    found = [index[x.tobytes()] for x in np.concatenate([train.images, test.images])]
    assert sorted(found) == list(range(40))
    np.testing.assert_array_equal(labels[found], np.concatenate([train.labels, test.labels]))
    np.savez(tmp_path / "b.npz", image=images[..., 0], label=np.ones((40, 3)))
    grey = load(f"npz:{tmp_path}/b.npz", holdout=0)
    assert grey.shape == (6, 6, 1) and grey.label_kind == "vector" and len(grey) == 40


def test_npz_of_moments(tmp_path):
    """What is no picture keeps its numbers; latents drawn from it have deviation 1/2."""
    mean, std = np.asarray(latents.MEAN), np.asarray(latents.STD)
    rng = np.random.default_rng(0)
    m = (mean + 0.8 * std * rng.standard_normal((400, 4, 4, 4))).astype(np.float32)
    s = np.broadcast_to(0.6 * std, m.shape).astype(np.float32)
    np.savez(tmp_path / "m.npz", image=np.concatenate([m, s], -1))
    source = load(f"npz:{tmp_path}/m.npz?dtype=float32", holdout=0)
    assert source.dtype == np.float32 and source.shape == (4, 4, 8)
    x = latents.draw(jax.random.split(jax.random.key(0), 400), jnp.asarray(source.arrays[0]))
    assert x.shape == (400, 4, 4, 4)
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=0.03)
    np.testing.assert_allclose(x.std((0, 1, 2)), 0.5, atol=0.02)
    with pytest.raises(ValueError, match=r"must be uint8 .* got float32"):
        load(f"npz:{tmp_path}/m.npz")
    with pytest.raises(ValueError, match=r"moments of 8 channels .* got \(1, 4, 4, 4\)"):
        latents.draw(jax.random.split(jax.random.key(0), 1), x[:1])


def test_npz_errors(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, pictures=random_images(3))
    with pytest.raises(ValueError, match="has no array 'image' or 'images'"):
        load(f"npz:{path}")
    np.savez(path, image=random_images(3).astype(np.float32))
    with pytest.raises(ValueError, match=r"must be uint8 .* got float32 .*scale them to 0..255"):
        load(f"npz:{path}")
    np.savez(path, image=random_images(3), images=random_images(3))
    with pytest.raises(ValueError, match="has both 'image' and 'images'"):
        load(f"npz:{path}")
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"not a readable .npz file"):
        load(f"npz:{path}")
    with pytest.raises(FileNotFoundError):
        load(f"npz:{tmp_path}/absent.npz")


# -- sheets


def sheets(root, n_sheets=2, empty=0, splits=("train", "test")):
    """Sheets of 2 x 3 tiles of 4 pixels."""
    out = {}
    for split in splits:
        tiles = random_images(6 * n_sheets, 4, 4)
        for k in range(n_sheets):
            block = tiles[6 * k : 6 * k + 6].reshape(2, 3, 4, 4, 3).swapaxes(1, 2)
            save(root / f"{split}_{k:02d}.png", block.reshape(8, 12, 3))
        out[split] = (tiles[: len(tiles) - empty], np.arange(len(tiles) - empty) % 3)
    np.savez(root / "labels.npz", **{s: v[1].astype(np.uint8) for s, v in out.items()})
    return out


def test_sheets(tmp_path):
    made = sheets(tmp_path, empty=2)
    for split, (tiles, labels) in made.items():
        source = load(f"sheets:{tmp_path}?tile=4", split)
        np.testing.assert_array_equal(source.images, tiles)
        np.testing.assert_array_equal(source.labels, labels)


def test_sheets_absent_at_the_end(tmp_path):
    tiles, labels = sheets(tmp_path, 3)["train"]
    (tmp_path / "train_02.png").unlink()
    source = load(f"sheets:{tmp_path}", tile=4)
    np.testing.assert_array_equal(source.images, tiles[:12])
    np.testing.assert_array_equal(source.labels, labels[:12])


def test_sheets_hold_a_part_out(tmp_path):
    sheets(tmp_path, 4, splits=("train",))
    parts = [load(f"sheets:{tmp_path}?tile=4", s) for s in ("train", "test")]
    assert [len(p) for p in parts] == [22, 2] and parts[1].label_dim == 3


def test_sheets_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no sheets train_00.webp"):
        load(f"sheets:{tmp_path}")
    sheets(tmp_path, 3)
    with pytest.raises(ValueError, match="8x12 pixels cannot be cut into tiles of 32"):
        load(f"sheets:{tmp_path}")
    with pytest.raises(ValueError, match="only the last sheet may have empty tiles"):
        load(f"sheets:{tmp_path}?tile=2")
    (tmp_path / "train_01.png").unlink()
    with pytest.raises(ValueError, match=r"without gaps or repeats, got \[0, 2\]"):
        load(f"sheets:{tmp_path}?tile=4")


def test_cifar10_sheets():
    if not os.environ.get("JAXGEN_DATA"):
        pytest.skip("JAXGEN_DATA is not set: no real sets to read")
    source = load("cifar10", "test")
    assert (len(source), source.shape, source.class_names[3]) == (10000, (32, 32, 3), "cat")
    assert np.bincount(source.labels).tolist() == [1000] * 10


# -- specs


def test_specs():
    assert parse("npz:a/b.npz?holdout=0.2") == ("npz", ("a/b.npz",), {"holdout": "0.2"})
    assert parse("digits") == ("digits", (), {})
    assert all(kind in describe() for kind in KINDS)


def test_spec_errors(tmp_path):
    with pytest.raises(ValueError, match=r"unknown data set 'digit'; did you mean digits\?") as e:
        load("digit")
    assert all(kind in str(e.value) for kind in KINDS)
    with pytest.raises(ValueError, match=rf"did you mean folder:{tmp_path}\?"):
        load(str(tmp_path))
    np.savez(tmp_path / "x.npz", image=random_images(2))
    with pytest.raises(ValueError, match="did you mean npz:"):
        load(str(tmp_path / "x.npz"))
    with pytest.raises(ValueError, match="'npz' should be written npz:FILE"):
        load("npz")
    with pytest.raises(ValueError, match="'digits:8' should be written digits"):
        load("digits:8")
    with pytest.raises(ValueError, match=r"'hold_out' \(did you mean 'holdout'\?\); its options"):
        load(f"npz:{tmp_path}/x.npz?hold_out=1")
    with pytest.raises(ValueError, match="option holdout of npz must be float, got 'ten'"):
        load(f"npz:{tmp_path}/x.npz?holdout=ten")
    with pytest.raises(ValueError, match="options of a data set are"):
        load("digits?what")
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        load("digits", "val")


def test_importing_sources_is_quick():
    import subprocess
    import sys

    code = (
        "import sys, jaxgen.data.sources; heavy = {'jax', 'grain', 'sklearn', 'PIL', "
        "'tensorflow_datasets', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
