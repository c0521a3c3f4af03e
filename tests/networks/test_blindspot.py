"""The blind-spot network: a gradient proof that no pixel sees itself, padding, sizes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, trees
from jaxgen.networks import blindspot
from jaxgen.networks.blindspot import BlindSpot
from jaxgen.networks.n2n_unet import pool

SMALL = {"features": (3, 4), "depth": 2, "out_channels": 2}


def _count(**fields):
    network, x = BlindSpot(out_channels=9, **fields), jnp.zeros((1, 32, 32, 3))
    return trees.count(jax.eval_shape(lambda: network.init(jax.random.key(0), x))["params"])


def test_the_papers_parameter_counts():
    assert _count() == 1_269_129
    assert _count(blind=False) == 1_102_953


def _sees(h, w, change=lambda p: None, **fields):
    """(h w, h w) float64: the largest |derivative| of output pixel i with respect to input j."""
    with jax.enable_x64(True):
        network = BlindSpot(dtype=jnp.float64, **SMALL, **fields)
        x = jax.random.normal(jax.random.key(0), (1, h, w, 1), jnp.float64)
        p = params.init(network, jax.random.key(1), x)
        p = jax.tree.map(lambda v: v.astype(jnp.float64), p)
        change(p)
        jacobian = jax.jit(jax.jacrev(lambda x: network.apply({"params": p}, x)))(x)
        assert jacobian.dtype == jnp.float64
        return np.abs(jacobian).max((0, 3, 4, 7)).reshape(h * w, h * w)


@pytest.mark.parametrize("size", [(8, 8), (6, 5)])
def test_no_pixel_sees_itself_and_all_see_the_rest(size):
    """Exactly 0 on the diagonal, whatever the padding; nowhere else."""
    sees = _sees(*size)
    np.testing.assert_array_equal(sees == 0, np.eye(len(sees), dtype=bool))


def test_the_plain_twin_sees_itself():
    assert (np.diag(_sees(8, 8, blind=False)) > 0).all()


def test_padding_by_reflection_shows_pixels_their_mirror_images():
    """In 6x5 of 8x8, rows 3 and 4 and columns 1 to 3 have copies; so do no others."""
    own = np.diag(_sees(6, 5, reflect=True)).reshape(6, 5) > 0
    copied = np.zeros((6, 5), bool)
    copied[3:5], copied[:, 1:4] = True, True
    np.testing.assert_array_equal(own, copied)


@pytest.mark.parametrize("branch", range(4))
def test_branches_see_half_planes(branch):
    """With the other three masked, pixels see strictly above, right, below or left of them."""
    mask = jnp.repeat(jnp.eye(4)[branch], 4)[:, None]
    sees = _sees(8, 8, change=lambda p: p["nin_a"].update(w=p["nin_a"]["w"] * mask))
    i, j = np.divmod(np.arange(64), 8)
    row, column = i[None] - i[:, None], j[None] - j[:, None]  # of the seen from the seeing pixel
    beyond = (row < 0, column > 0, row > 0, column < 0)[branch]
    assert not sees[~beyond].any() and (sees[beyond] > 0).mean() > 0.5


def test_pooling_a_shifted_image_keeps_to_the_rows_above():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    shifted = blindspot.shift_down(x)
    np.testing.assert_array_equal(pool(shifted)[0, :, :, 0], [[1, 3], [9, 11]])
    np.testing.assert_array_equal(pool(x)[0, :, :, 0], [[5, 7], [13, 15]])


def test_rotations_are_undone():
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 1))
    np.testing.assert_array_equal(
        blindspot.unrotated(blindspot.rotations(x)), jnp.concatenate([x] * 4, -1)
    )


def test_an_estimator_starts_at_zero():
    network = BlindSpot(blind=False, zero_last=True, **SMALL)
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    p = params.init(network, jax.random.key(1), x)
    np.testing.assert_array_equal(network.apply({"params": p}, x), jnp.zeros((1, 8, 8, 2)))


def test_conditions_are_refused():
    with pytest.raises(ValueError, match=r"no conditions, got \['label'\]"):
        network = BlindSpot(**SMALL)
        network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), {"label": jnp.zeros((1, 3))})
