"""A folder of images: classes, label files, splits, and what errors name."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxgen.data.source import in_memory
from jaxgen.data.sources import load

RNG = np.random.default_rng(0)


def random_images(n, h=6, w=6, c=3):
    return RNG.integers(0, 256, (n, h, w, c), dtype=np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path)


def class_folder(root, n=20, names=("bird", "cat"), suffix="png", **size):
    images = random_images(n, **size)
    for i, image in enumerate(images):
        save(root / names[i % len(names)] / f"deep{i % 3}" / f"{i:03d}.{suffix}", image)
    return images


def test_folder_of_classes(tmp_path):
    images = class_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("not an image")
    save(tmp_path / ".thumbs" / "x.png", images[0])
    whole = load(f"folder:{tmp_path}", holdout=0)
    assert whole.class_names == ("bird", "cat") and len(whole) == 20 and whole.shape == (6, 6, 3)
    index = {x.tobytes(): i for i, x in enumerate(images)}
    for item in (whole[i] for i in range(20)):
        assert item["label"] == index[item["image"].tobytes()] % 2
    train, test = load(f"folder:{tmp_path}"), load(f"folder:{tmp_path}", "test")
    assert (len(train), len(test)) == (18, 2)
    assert sorted(int(test[i]["label"]) for i in range(2)) == [0, 1]
    assert in_memory(train).arrays[0].shape == (18, 6, 6, 3)


def test_folder_without_labels_and_grey(tmp_path):
    for i, image in enumerate(random_images(5, c=1)):
        save(tmp_path / f"{i}.png", image)
    source = load(f"folder:{tmp_path}")
    assert source.shape == (6, 6, 1) and source.label_kind == "none"
    save(tmp_path / "5.png", random_images(1)[0])
    assert load(f"folder:{tmp_path}").shape == (6, 6, 3)


def test_folder_lays_transparency_over_white(tmp_path):
    rgba = np.zeros((6, 6, 4), np.uint8)
    rgba[:3, :, 3] = 255
    save(tmp_path / "a.png", rgba)
    image = load(f"folder:{tmp_path}", holdout=0)[0]["image"]
    assert (image[:3] == 0).all() and (image[3:] == 255).all()


@pytest.mark.parametrize(
    "text,kind,dim,first",
    [
        ("file,label\na.png,2\nb.png,0\n", "class", 3, 2),
        ("a.png,zebra\nsub/../b.png,ant\n".replace("sub/../", "./"), "class", 2, 1),
        ("file,x,y\na.png,0.5,1\nb.png,2,3\n", "vector", 2, [0.5, 1]),
        ("a.png,0.5\nb.png,2\n", "vector", 1, [0.5]),
        ('{"a.png": 2, "b.png": 0}', "class", 3, 2),
        ('{"labels": [["a.png", [0.5, 1]], ["b.png", [2, 3]]]}', "vector", 2, [0.5, 1]),
        ('{"a.png": "zebra", "b.png": "ant"}', "class", 2, 1),
    ],
)
def test_folder_with_a_label_file(tmp_path, text, kind, dim, first):
    for name in ("a.png", "b.png"):
        save(tmp_path / name, random_images(1)[0])
    name = "labels.json" if text.startswith("{") else "labels.csv"
    (tmp_path / name).write_text(text)
    source = load(f"folder:{tmp_path}?holdout=0")
    assert (source.label_kind, source.label_dim) == (kind, dim)
    np.testing.assert_allclose(source[0]["label"], first)
    (tmp_path / name).rename(tmp_path / f"other_{name}")
    again = load(f"folder:{tmp_path}?holdout=0&labels=other_{name}")
    np.testing.assert_allclose(again[0]["label"], first)


def test_folder_with_train_and_test(tmp_path):
    class_folder(tmp_path / "train", 6)
    class_folder(tmp_path / "test", 4)
    assert (len(load(f"folder:{tmp_path}")), len(load(f"folder:{tmp_path}", "test"))) == (6, 4)
    class_folder(tmp_path / "test", 4, names=("dog",))
    with pytest.raises(ValueError, match="train and test have different labels"):
        load(f"folder:{tmp_path}")


def test_folder_names_bad_and_odd_files(tmp_path):
    class_folder(tmp_path, 6)
    save(tmp_path / "cat" / "wide.png", random_images(1, 6, 9)[0])
    (tmp_path / "bird" / "broken.jpg").write_bytes(b"not a jpeg")
    Image.fromarray(np.zeros((6, 6), np.uint16)).save(tmp_path / "cat" / "deep.png")
    with pytest.raises(ValueError) as error:
        load(f"folder:{tmp_path}")
    text = str(error.value)
    assert "2 images" in text and "bird/broken.jpg: cannot identify" in text
    assert "cat/deep.png: pixels deeper than 8 bits" in text
    assert "1 images" in text and "not 6x6 like most" in text and "cat/wide.png: 6x9" in text
    assert "jaxgen data prepare" in text and "--size" in text


def test_a_cut_file_is_named_when_read(tmp_path):
    save(tmp_path / "a.png", random_images(1, 32, 32)[0])
    path = tmp_path / "b.png"
    save(path, random_images(1, 32, 32)[0])
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(OSError, match=r"b.png: cannot be read"):
        load(f"folder:{tmp_path}?holdout=0")


def test_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load(f"folder:{tmp_path}/absent")
    with pytest.raises(FileNotFoundError, match=r"no images \(.png .jpg"):
        load(f"folder:{tmp_path}")
    class_folder(tmp_path, 4)
    save(tmp_path / "loose.png", random_images(1)[0])
    with pytest.raises(ValueError, match=r"1 images lie beside the class folders: loose.png"):
        load(f"folder:{tmp_path}")
    (tmp_path / "loose.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no label file absent.csv"):
        load(f"folder:{tmp_path}?labels=absent.csv")
    (tmp_path / "labels.csv").write_text("file,label\nbird/deep0/000.png,1\nbird/x.png,2\n")
    with pytest.raises(ValueError, match=r"3 images have no label .* 1 labels have no image"):
        load(f"folder:{tmp_path}")
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(ValueError, match=r"both labels.csv and labels.json"):
        load(f"folder:{tmp_path}")
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "labels.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"not labels .* a CSV has rows file,label"):
        load(f"folder:{tmp_path}")
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png"))
    for values, text in (
        ([1, -1, 2, 3], "negative, got -1"),
        ([1, "a", 2, 3], "all class numbers"),
    ):
        (tmp_path / "labels.json").write_text(json.dumps(dict(zip(names, values))))
        with pytest.raises(ValueError, match=text):
            load(f"folder:{tmp_path}")
