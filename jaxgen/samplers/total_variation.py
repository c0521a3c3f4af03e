"""Total variation: least squares with few edges, by a primal-dual method (arXiv:1111.5632).

    min over x >= -1 of 1/2 |A x - y|^2 + lam TV(x) ,   TV(x) = sum over pixels of |grad x|_2 ,

grad being forward differences, 0 across the border: the method of Chambolle and Pock with a dual p
of A x and a dual q of grad x, step sizes 1 / L, L >= |(A, nu grad)|, and nu = |A| / |grad|.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxgen.noise.corruption import Linear


def gradient(x: jax.Array, axes: Sequence[int] = (1, 2)) -> jax.Array:
    """Forward differences of x along the axes, stacked in a new last axis; 0 at the end."""
    last = lambda a: jax.lax.slice_in_dim(x, x.shape[a] - 1, None, axis=a)
    return jnp.stack([jnp.diff(x, axis=a, append=last(a)) for a in axes], -1)


def energy(
    operator: Linear, x: jax.Array, y: jax.Array, lam: float, axes: Sequence[int] = (1, 2)
) -> jax.Array:
    """What is minimised, (b,)."""
    total = lambda v: v.sum(tuple(range(1, v.ndim)))
    misfit = total(jnp.square(operator.forward(x) - y)) / 2
    return misfit + lam * total(jnp.sqrt(jnp.square(gradient(x, axes)).sum(-1)))


def minimise(
    operator: Linear,
    y: jax.Array,
    lam: float | jax.Array,
    steps: int = 300,
    axes: Sequence[int] = (1, 2),
    least: float = -1.0,
) -> jax.Array:
    """Images (b, h, w, c) of measurements y (b, ...), from the operator's own start.

    Args:
      lam: weight of the total variation; all channels have one of their own. steps: iterations.
      axes: those of the differences; (1, 2, 3) for volumes. least: no value is below it.
    """
    x = jnp.maximum(operator.start(y), least)

    def down(q: jax.Array) -> jax.Array:
        like = jax.ShapeDtypeStruct(q.shape[:-1], q.dtype)
        return jax.linear_transpose(lambda v: gradient(v, axes), like)(q)[0]

    size = norm(lambda v: operator.adjoint(operator.forward(v)), x[:1])
    nu = size / norm(lambda v: down(gradient(v, axes)), x[:1])
    step = 1 / (jnp.sqrt(2.0) * size)  # |(A, nu grad)|^2 <= 2 |A|^2

    def improve(carry: tuple, _: None) -> tuple:
        x, ahead, p, q = carry
        p = (p + step * (operator.forward(ahead) - y)) / (1 + step)
        q = q + step * nu * gradient(ahead, axes)
        length = jnp.sqrt(jnp.square(q).sum(-1, keepdims=True))
        q = q / jnp.maximum(1, length * nu / lam)
        new = x - step * (operator.adjoint(p) + nu * down(q))
        new = jnp.maximum(new, least)
        return (new, 2 * new - x, p, q), None

    start = x, x, jnp.zeros_like(y), jnp.zeros((*x.shape, len(axes)), x.dtype)
    return jax.lax.scan(improve, start, None, steps)[0][0]


def norm(square: Callable[[jax.Array], jax.Array], like: jax.Array, steps: int = 20) -> jax.Array:
    """|M| of a map `square` = M^T M on arrays such as `like`, by power iteration; a little below.

    Enlarged by 5% for what is missing.
    """
    x = jax.random.normal(jax.random.key(0), like.shape, like.dtype)

    def more(x: jax.Array, _: None) -> tuple:
        x = square(x / jnp.linalg.norm(x.ravel()))
        return x, jnp.linalg.norm(x.ravel())

    return 1.05 * jnp.sqrt(jax.lax.scan(more, x, None, steps)[1][-1])
