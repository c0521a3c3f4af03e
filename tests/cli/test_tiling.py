"""Tiles: weights add up to one, places cover the image, results do not depend on the grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.cli import tiling
from jaxgen.common import mesh as meshes
from jaxgen.common import params
from jaxgen.networks.dncnn import DnCNN
from jaxgen.networks.n2n_unet import N2NUNet

NET = DnCNN(depth=3, features=4)  # sees 3 pixels far
UNET = N2NUNet(features=3, depth=1, last_features=(3, 3))  # sees 8 pixels far, in steps of 2


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "multiple"),
    [(100, 32, 8, 1), (33, 32, 16, 1), (481, 256, 64, 32), (20, 32, 8, 1), (97, 16, 8, 4),
     (64, 32, 0, 1)],
)  # fmt: skip
def test_tiles_cover_an_axis_and_weigh_one(length, tile, overlap, multiple):
    begin = tiling.starts(length, tile, overlap, multiple)
    assert begin[0] == 0 and all(b % multiple == 0 for b in begin)
    assert length <= begin[-1] + tile < max(length, tile) + multiple
    gaps = np.diff(begin)
    assert np.all(gaps > 0) and np.all(gaps <= tile - overlap)
    total = np.zeros(begin[-1] + tile)
    w = tiling.weights(begin, tile, overlap)
    for b, each in zip(begin, w):
        total[b : b + tile] += each
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    unused = overlap * 3 // 8
    assert not w[1:, :unused].any() and not w[:-1, tile - unused :].any()
    assert w[0, 0] == 1 and w[-1, -1] == 1, "the image's own borders are used"


def tiler(net, channels=1, **sizes):
    """A tiler and the network itself, with weights that make every pixel matter."""
    p = params.init(net, jax.random.key(0), jnp.zeros((1, 8, 8, channels)))
    restore = lambda p, x, level: net.apply({"params": p}, x)
    return tiling.Tiler(restore, p, meshes.make_mesh(), **sizes), lambda x: restore(p, x, None)


@pytest.mark.parametrize(
    ("net", "tile", "overlap", "multiple"), [(NET, 16, 8, 1), (NET, 24, 12, 1), (UNET, 48, 24, 2)]
)
def test_the_grid_does_not_matter(net, tile, overlap, multiple):
    """Tiles are the whole photo at once, and any other tiles, for networks that see less far."""
    x = np.random.default_rng(0).normal(size=(2, 53, 71, 1)).astype(np.float32)
    tiles, whole = tiler(net, tile=tile, overlap=overlap, multiple=multiple)
    got = tiles(x)
    np.testing.assert_allclose(got, whole(x), atol=1e-5)
    assert got.shape == x.shape and got.dtype == np.float32


def test_too_small_an_overlap_is_seen():
    """The network does use its surroundings: the test above could fail."""
    x = np.random.default_rng(0).normal(size=(1, 53, 71, 1)).astype(np.float32)
    tiles, whole = tiler(NET, tile=16, overlap=0)
    assert np.abs(tiles(x) - whole(x)).max() > 1e-2


def test_one_program_for_all_sizes():
    tiles, _ = tiler(NET, tile=16, overlap=8)
    for h, w in ((53, 71), (9, 40), (16, 16), (100, 2), (1, 1)):
        assert tiles(np.zeros((1, h, w, 1), np.float32)).shape == (1, h, w, 1)
    assert tiles.blind._cache_size() == 1


def test_several_tiles_a_device_change_nothing():
    """Two programs, of one tile a device and of three; chunks are filled up and cut."""
    x = np.random.default_rng(0).normal(size=(1, 90, 80, 1)).astype(np.float32)
    tiles, whole = tiler(NET, tile=16, overlap=8, per_device=3)
    np.testing.assert_allclose(tiles(x), whole(x), atol=1e-5)
    np.testing.assert_allclose(tiles(x[:, :16, :20]), whole(x[:, :16, :20]), atol=1e-5)
    assert tiles.blind._cache_size() == 2


def test_no_tiles_is_the_whole():
    x = np.random.default_rng(0).normal(size=(3, 13, 10, 1)).astype(np.float32)
    tiles, whole = tiler(NET, tile=0)
    np.testing.assert_allclose(tiles(x), whole(x), atol=1e-6)


def test_a_small_photo_is_continued_by_reflection():
    x = np.random.default_rng(0).normal(size=(1, 10, 12, 1)).astype(np.float32)
    tiles, whole = tiler(NET, tile=16, overlap=8)
    padded = np.pad(x, ((0, 0), (0, 6), (0, 4), (0, 0)), mode="reflect")
    np.testing.assert_allclose(tiles(x), whole(padded)[:, :10, :12], atol=1e-6)


def test_the_level_reaches_every_tile():
    restore = lambda p, x, level: x + level[:, None, None, None]
    tiles = tiling.Tiler(restore, {}, meshes.make_mesh(), tile=8, overlap=4)
    got = tiles(np.zeros((1, 21, 9, 1), np.float32), level=7.0)
    np.testing.assert_allclose(got, 7.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ({"tile": 16, "overlap": 9}, "--overlap 0 to half of it, got 16 and 9"),
        ({"tile": 1, "overlap": 0}, "--tile must be 2 or more"),
        ({"tile": 40, "overlap": 8, "multiple": 32}, "must be multiples of 32, got 40 and 8"),
    ],
)
def test_sizes_that_do_not_fit(sizes, match):
    with pytest.raises(ValueError, match=match):
        tiler(NET, **sizes)
