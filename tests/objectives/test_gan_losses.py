"""GAN losses and regularisers against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.objectives import (
    cosine,
    gradient_penalty,
    hinge,
    least_squares,
    minimax,
    nonsaturating,
    orthogonal,
    path_length,
    r1,
    relativistic,
    style_mixing,
    wasserstein,
)

P, Q = np.float32([0.2, 0.5, 0.3]), np.float32([0.6, 0.1, 0.3])  # densities over three atoms


def game(module, **labels):
    """d (n, 3) -> L_D (n,) and its gradient, over real atoms P and fake ones Q of logits d."""

    def value(d):
        pairs = jax.vmap(lambda real: module.discriminator(jnp.full(3, real), d, **labels))(d)
        return P @ pairs @ Q

    return jax.jit(jax.vmap(jax.value_and_grad(value)))


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


def test_minimax_is_one_game_and_vanishes_where_the_discriminator_is_sure():
    d = jnp.array([-30.0, 0.3, 2.0])
    both = minimax.discriminator(jnp.zeros(3), d) + minimax.generator(d)
    np.testing.assert_allclose(both, np.log(2), rtol=1e-6)  # what one side gains the other loses
    grad = jax.grad(lambda d: minimax.generator(d).sum())(d)
    np.testing.assert_allclose(grad, -jax.nn.sigmoid(d), atol=1e-6)
    assert abs(grad[0]) < 1e-12


def test_hinge_optimum_is_the_total_variation():
    """D = sign(p - q) reaches 2 sum min(p, q), and nothing goes below."""
    others = np.random.RandomState(0).randn(200, 3)
    best, *rest = game(hinge)(np.float32([np.sign(P - Q), *others]))[0]
    np.testing.assert_allclose(best, 2 * np.minimum(P, Q).sum(), rtol=1e-6)
    assert min(rest) > best
    np.testing.assert_array_equal(hinge.generator(others[0]), -others[0])


def test_least_squares_optimum_and_its_divergence():
    """D = (b p + a q) / (p + q); for -1, 1 and 0 the generator then sees half a Pearson chi^2."""
    a, b, c = -1.0, 1.0, 0.0
    best = (b * P + a * Q) / (P + Q)
    np.testing.assert_allclose(game(least_squares, a=a, b=b)(best[None])[1], 0, atol=1e-6)
    chi2 = (np.square(P + Q - 2 * Q) / (P + Q)).sum()
    np.testing.assert_allclose((P + Q) @ least_squares.generator(best, c=c), chi2 / 2, rtol=1e-6)


def test_wasserstein_of_two_points_is_their_distance_and_drift_pins_the_constant():
    """Of 1-Lipschitz critics D(x) = s x + t, |s| <= 1, of real 3 and fake 1, s = 1 is the best."""

    @jax.jit
    def loss(s, t, drift):
        f = lambda t: wasserstein.discriminator(3 * s + t, s + t, epsilon_drift=drift)
        return f(t), jax.vjp(f, t)[1](jnp.ones_like(t))[0]

    s, t = np.linspace(-1, 1, 9, dtype=np.float32), np.linspace(-7, 5, 9, dtype=np.float32)
    assert s[np.argmin(loss(s, 0 * s, 0.0)[0])] == 1
    np.testing.assert_allclose(loss(s, t, 0.0)[0], -2 * s, atol=1e-5)  # whatever t
    np.testing.assert_allclose(loss(s, t, 1e-3)[1], 2e-3 * (3 * s + t), atol=1e-6)
    np.testing.assert_array_equal(wasserstein.generator(s), -s)


def test_relativistic_pairing_sees_differences_only():
    r, f = np.random.RandomState(0).randn(2, 16).astype(np.float32)
    for loss in (relativistic.discriminator, relativistic.generator):
        np.testing.assert_allclose(loss(r + 3, f + 3), loss(r, f), rtol=1e-5)
        np.testing.assert_allclose(loss(r, r), np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(relativistic.generator(r, f), relativistic.discriminator(f, r))
    real, fake = relativistic.averaged(r, f)
    np.testing.assert_allclose(real.mean(), -fake.mean(), rtol=1e-5)


def test_a_lost_mode_is_a_trap_of_the_plain_game_and_not_of_the_relativistic_one():
    """Data at x and y, both fakes at x. Does the generator lose by moving one of them away?

    Against the best discriminator, L_D falls from log(27 / 4) / 2 to log 2 in the plain game: back
    it goes. With pairs it stays at log(2) / 2 (arXiv:2011.04926). Each L_D is convex in the logits,
    so a zero gradient shows the best; 40 stands for infinity.
    """
    real = np.array([0, 1])  # which logit: of x, of y, of the fake that has moved

    def best(loss, logits, fake):
        mean = lambda d: loss(d[real], d[np.array(fake)]).mean()
        value, grad = jax.jit(jax.value_and_grad(mean))(np.float32(logits))
        np.testing.assert_allclose(grad, 0, atol=1e-6)
        return float(value)

    plain, paired = nonsaturating.discriminator, relativistic.discriminator
    assert best(plain, [-np.log(2), 40, 0], [0, 0]) == pytest.approx(np.log(27 / 4) / 2)
    assert best(plain, [0, 40, -40], [0, 2]) == pytest.approx(np.log(2))
    assert best(paired, [0, 40, 0], [0, 0]) == pytest.approx(np.log(2) / 2)
    assert best(paired, [0, 40, -40], [0, 2]) == pytest.approx(np.log(2) / 2)


def test_gradient_penalty_of_linear_and_flat_critics():
    a = jax.random.normal(jax.random.key(0), (4, 4, 2))
    x = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))

    def penalty(s):
        critic = lambda x: s * jnp.einsum("bhwc,hwc->b", x, a / jnp.linalg.norm(a)) + 3
        return gradient_penalty.penalty(critic, x).sum()

    run = jax.jit(jax.value_and_grad(penalty))
    for s in (0.4, 1.0, 2.5):
        value, grad = run(s)
        np.testing.assert_allclose(value, 3 * 10 * (s - 1) ** 2, rtol=1e-4, atol=1e-10)
        np.testing.assert_allclose(grad, 3 * 20 * (s - 1), rtol=1e-4, atol=1e-4)
    assert run(0.0) == (30, 0)  # the norm has no derivative there


def test_interpolates_are_one_point_on_each_line():
    keys = rng.image_keys(jax.random.key(0), 500)
    real = np.ones((500, 2, 3), np.float32)
    share = (np.asarray(jax.jit(gradient_penalty.interpolates)(keys, real, -real)) + 1) / 2
    np.testing.assert_allclose(share, np.broadcast_to(share[:, :1, :1], share.shape))
    cuts = np.quantile(share[:, 0, 0], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(cuts, [0, 0.25, 0.5, 0.75, 1], atol=0.06)


def test_orthogonal_filters_of_any_length_cost_nothing():
    q = np.linalg.qr(np.random.RandomState(0).randn(18, 5))[0]
    stretched = np.float32(q * np.arange(1, 6))
    conv = {"w": stretched.reshape(3, 3, 2, 5), "b": np.ones(5)}
    tree = {"conv": conv, "gain": np.ones((4, 4))}
    np.testing.assert_allclose(jax.jit(orthogonal.penalty)(tree), 0, atol=1e-9)
    a, b = np.float32([1, 2]), np.float32([3, -1])  # their scalar product counts twice
    tree |= {"dense": {"w": np.stack([a, b], 1)}, "embed": {"w": np.ones((3, 3))}}
    got = jax.jit(lambda tree: orthogonal.penalty(tree, beta=0.5, skip=("^embed/",)))(tree)
    np.testing.assert_allclose(got, 0.5 * 2 * (a @ b) ** 2, rtol=1e-5)
    with pytest.raises(ValueError, match=r"no weight to keep orthogonal: .* got \['bias'\]"):
        orthogonal.penalty({"bias": np.ones(3)})
    with pytest.raises(ValueError, match="'shared' matches no parameter"):
        orthogonal.penalty(tree, skip=("shared",))


def test_style_mixing_crosses_over_once_at_every_layer_alike():
    n, layers = 4000, 6
    first, second = np.zeros((n, 2)), np.ones((n, 2))
    keys = rng.image_keys(jax.random.key(0), n)
    mix = jax.jit(lambda keys: style_mixing.mix(keys, first, second, layers, 0.9))
    ws = np.asarray(mix(keys))[..., 0]
    assert (np.diff(ws) >= 0).all() and (ws[:, 0] == 0).all()
    counts = np.bincount((ws == 0).sum(1), minlength=layers + 1) / n
    np.testing.assert_allclose(counts, [0, *[0.9 / 5] * 5, 0.1], atol=0.025)


def test_half_a_batch_of_path_lengths_has_the_mean_of_a_whole_one():
    keys = rng.image_keys(jax.random.key(0), 6)
    tree = {"z": np.arange(12.0).reshape(6, 2), "key": keys}
    half = jax.jit(path_length.shrink)(tree)
    np.testing.assert_array_equal(half["z"][:, 0], [0, 4, 8])
    data = np.asarray(jax.random.key_data(keys))
    np.testing.assert_array_equal(jax.random.key_data(half["key"]), data[::2])
    each = np.asarray(path_length.spread(np.float32([1, 2, 6])))
    assert each.shape == (6,) and each.mean() == 3
    with pytest.raises(ValueError, match="must divide the batch, got 4 for 6 images"):
        path_length.shrink(tree, 4)


def test_cosine_schedule():
    value = lambda nimg: float(cosine.schedule(nimg, 2.0, 0.5, 1000))
    assert [value(n) for n in (0, 1000, 5000)] == [2, 0.5, 0.5]
    assert value(500) == pytest.approx(1.25) and value(250) + value(750) == pytest.approx(2.5)


def test_r1_rule_of_thumb():
    assert r1.auto_gamma(256, 32) == pytest.approx(0.4096)
