"""GAN losses and regularisers against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.objectives import nonsaturating, path_length, r1


def test_nonsaturating_at_equilibrium():
    zero = jnp.zeros(3)
    np.testing.assert_allclose(nonsaturating.discriminator(zero, zero), 2 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(nonsaturating.generator(zero), np.log(2), rtol=1e-6)
    # The generator's gradient does not vanish where the discriminator is sure: it tends to -1.
    grad = jax.grad(lambda x: nonsaturating.generator(x).sum())(jnp.array([-30.0, 0.0, 30.0]))
    np.testing.assert_allclose(grad, [-1, -0.5, 0], atol=1e-6)


def test_nonsaturating_optimum_is_the_log_density_ratio():
    """Over three atoms, gradient descent on E_x softplus(-D) + E_g softplus(D) finds log(p / q)."""
    p, q = jnp.array([0.2, 0.5, 0.3]), jnp.array([0.6, 0.1, 0.3])
    loss = lambda d: jnp.vdot(p, nonsaturating.generator(d)) + jnp.vdot(q, jax.nn.softplus(d))
    np.testing.assert_allclose(jax.grad(loss)(jnp.log(p / q)), 0, atol=1e-6)
    # and the value there is 2 log 2 minus twice the Jensen-Shannon divergence
    m = (p + q) / 2
    js = 0.5 * jnp.vdot(p, jnp.log(p / m)) + 0.5 * jnp.vdot(q, jnp.log(q / m))
    np.testing.assert_allclose(loss(jnp.log(p / q)), 2 * np.log(2) - 2 * js, rtol=1e-5)


def test_r1_of_a_linear_discriminator():
    a = jax.random.normal(jax.random.key(0), (4, 4, 2))
    x = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))
    got = r1.penalty(lambda x: jnp.einsum("bhwc,hwc->b", x, a) + 3, x, gamma=5.0)
    np.testing.assert_allclose(got, jnp.full(3, 2.5 * jnp.vdot(a, a)), rtol=1e-5)


def test_r1_of_a_quadratic_discriminator_and_its_gradient():
    """D = k |x|^2 / 2: the penalty is gamma / 2 k^2 |x|^2, its derivative in k gamma k |x|^2."""
    x = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))
    square = jnp.square(x).sum((1, 2, 3))
    f = lambda k: r1.penalty(lambda x: 0.5 * k * jnp.square(x).sum((1, 2, 3)), x, gamma=4.0)
    np.testing.assert_allclose(f(3.0), 2 * 9 * square, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda k: f(k).sum())(3.0), 4 * 3 * square.sum(), rtol=1e-5)


def test_path_length_of_a_linear_generator():
    """Images k w_0 in one pixel: the length is k |y|, whatever w."""
    k, keys = 3.0, rng.image_keys(jax.random.key(0), 4)
    ws = jax.random.normal(jax.random.key(1), (4, 2, 5))

    def synthesize(ws):  # pixel (i, j) = k w_(2 i + j) of layer 0 only
        return k * ws[:, 0, :4].reshape(4, 2, 2, 1)

    y = rng.normal(keys, (2, 2, 1)) / 2  # sqrt(h w) = 2
    lengths = k * jnp.sqrt(jnp.square(y).sum((1, 2, 3)) / 2)  # mean over two layers, one of them 0
    mean = 0.3 + 0.01 * (lengths.mean() - 0.3)
    penalty, got, new = path_length.penalty(synthesize, ws, keys, jnp.float32(0.3))
    np.testing.assert_allclose(got, lengths, rtol=1e-5)
    np.testing.assert_allclose(new, mean, rtol=1e-5)
    np.testing.assert_allclose(penalty, 2 * (lengths - mean) ** 2, rtol=1e-4)


def test_path_length_gradient_flows_through_the_new_mean():
    """d/dk of 2 (k l - a - d (k lbar - a))^2 keeps the term with d."""
    l, a, d = jnp.array([1.0, 2.0, 4.0]), 0.5, 0.1

    def loss(k):
        return path_length.penalty_at(k * l[:, None, None], jnp.float32(a), decay=d)[0].sum()

    want = (4 * (l - a - d * (l.mean() - a)) * (l - d * l.mean())).sum()
    np.testing.assert_allclose(jax.grad(loss)(1.0), want, rtol=1e-5)


def test_expected_path_length_of_an_orthonormal_generator():
    """With J orthonormal times sqrt(h w), E |J^T y|^2 is the number of styles' dimensions."""
    keys = rng.image_keys(jax.random.key(0), 2000)
    q, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (16, 6)))
    synthesize = lambda ws: (4 * ws[:, 0] @ q.T).reshape(-1, 4, 4, 1)
    _, lengths, _ = path_length.penalty(synthesize, jnp.zeros((2000, 1, 6)), keys, jnp.float32(0))
    np.testing.assert_allclose(jnp.square(lengths).mean(), 6, rtol=0.05)
