"""The blind-spot network, its posterior and Noise2Noise's losses against the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import trees
from jaxgen.networks import blindspot
from jaxgen.networks.blindspot import BlindSpot
from jaxgen.networks.n2n_unet import double
from jaxgen.nn.convolution import conv
from tests.parity.test_gan_vs_reference import _recipe_param, hwio, nhwc


@pytest.fixture(scope="module")
def arrays(goldens):
    def load(name):
        with np.load(goldens / f"denoise/{name}.npz", allow_pickle=False) as z:
            return {k: z[k] for k in z.files}

    return {name: load(name) for name in ("blindspot_ops", "network_small", "network_full")}


def test_shifted_operations(arrays):
    a = arrays["blindspot_ops"]
    x, w = nhwc(a["x"]), hwio(a["kernel_oihw"])
    for name, got in {
        "conv_up_only": conv(x, w, padding=blindspot.UP),
        "conv_up_only_alt": conv(x, w, padding=blindspot.UP),
        "pool_shifted": blindspot.pool(x, True),
        "shift_down": blindspot.shift_down(x),
        "upsample": double(x),
    }.items():
        np.testing.assert_allclose(got, nhwc(a[name]), atol=1e-6, rtol=1e-6, err_msg=name)
    for k, turned in enumerate(jnp.split(blindspot.rotations(x), 4)):
        np.testing.assert_array_equal(turned, nhwc(a[f"rot{90 * k}"]))


def _network(a, kind, full):
    """The network and its params: those in the file, or of the goldens' recipe."""
    features = (48, 96) if full else (6, 8)
    network = BlindSpot(features=features, out_channels=9, blind=kind == "blind")
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), nhwc(a["x"])))["params"]

    def leaf(name, ours):
        layer, which = name.split("/")
        theirs = f"{layer}.{'W' if which == 'w' else 'b'}"
        if not full:
            return a[f"{kind}.p.{theirs}"].reshape(ours.shape)
        shape = ours.shape
        if which == "w":
            shape = (shape[-1], shape[-2], *(shape[:2] if len(shape) == 4 else (1, 1)))
        p = _recipe_param("d1/network/full", theirs, shape, 2.0)
        return np.transpose(p, (2, 3, 1, 0)).reshape(ours.shape) if which == "w" else p

    return network, trees.map_named(leaf, shapes)


@pytest.mark.parametrize("kind", ["blind", "plain"])
@pytest.mark.parametrize("size", ["small", "full"])
def test_network(arrays, size, kind):
    """Outputs; and raising one pixel moves every other pixel, of the blind network not its own."""
    a = arrays[f"network_{size}"]
    network, p = _network(a, kind, size == "full")
    total = sum(float(np.asarray(q, np.float64).sum()) for q in jax.tree.leaves(p))
    np.testing.assert_allclose(total, a[f"{kind}.params_sum"], rtol=1e-6)
    run = jax.jit(lambda x: network.apply({"params": p}, x))
    x = nhwc(a["x"])
    out = run(x)
    np.testing.assert_allclose(out, nhwc(a[f"{kind}.out"]), atol=2e-5)
    if size == "full":
        return
    for (i, j), moved in zip(a[f"{kind}.perturb_pos"], a[f"{kind}.moved"]):
        change = run(x.at[:, i, j].add(0.5)) - out
        np.testing.assert_array_equal(jnp.abs(change).max((0, 3)) > 0, moved)
