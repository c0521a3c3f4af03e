"""Blur fade-in: one program from blurred to sharp."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.objectives import blur_fade


def test_an_impulse_becomes_the_kernel_and_in_the_end_stays_itself():
    traces, x = [], jnp.zeros((1, 31, 33, 1)).at[0, 15, 16, 0].set(1)

    @jax.jit
    def run(x, nimg):
        traces.append(None)
        y, back = jax.vjp(lambda x: blur_fade.blur(x, nimg, start=4.0, images=1000), x)
        return y, back(x)[0]

    for nimg, sigma in ((0, 4.0), (500, 2.0), (900, 0.4)):
        y, transposed = run(x, jnp.float32(nimg))
        i = np.arange(-np.floor(3 * sigma), np.floor(3 * sigma) + 1)
        k = 2 ** -((i / sigma) ** 2)
        k = np.pad(k / k.sum(), (31 - len(k)) // 2)
        np.testing.assert_allclose(y[0, :, 1:-1, 0], np.outer(k, k), atol=1e-6)
        np.testing.assert_allclose(transposed, y, atol=1e-6)  # the kernel is symmetric
    for nimg in (950, 1000, 5000):
        np.testing.assert_array_equal(run(x, jnp.float32(nimg))[0], x)
    assert len(traces) == 1


def test_a_kernel_wider_than_the_image_keeps_its_scale():
    """Of unit sum over its own reach, not over the image's: what is outside counts as zero."""
    y = jax.jit(blur_fade.blur)(jnp.ones((1, 4, 4, 1)), 0)
    i = np.arange(-30, 31)
    k = 2 ** -((i / 10) ** 2)
    inside = [k[30 - m : 34 - m].sum() / k.sum() for m in range(4)]
    np.testing.assert_allclose(y[0, :, :, 0], np.outer(inside, inside), rtol=1e-5)
