"""Images of one trained generator at any truncation of its styles, for the experiments about it."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen.cli import sampling
from jaxgen.common import mesh as meshes
from jaxgen.common import rng


class Truncated:
    """Images of an averaged generator at any psi, compiled once."""

    def __init__(self, judge: common.Judge):
        run = judge.run
        self.judge, self.params = judge, run.average(None).params
        export = run.plan.exports["generator"]
        self.num_ws = export.fn(self.params, {}).num_ws

        def draw(rows: Any, psi: jax.Array) -> jax.Array:
            of, keys = export.fn(self.params, {}), rows["key"]
            cond = {"label": rows["label"]}
            w = of.mapping(of.latents(keys), cond)
            mean = of.truncate(w, cond, psi=0.0)
            ws = mean + psi[:, None] * (w[:, None] - mean)
            return of.synthesis(ws, rng.split(keys, 2)[1])

        rows = meshes.batch_sharding(run.mesh)
        whole = meshes.replicated(run.mesh)
        self.draw = jax.jit(draw, in_shardings=(rows, whole), out_shardings=rows)

    def __call__(self, psi: float, share: float | None, num: int, seed: int) -> Iterator[Any]:
        """Chunks of images, as the scorer takes them."""
        run = self.judge.run
        rows = sampling.inputs(run.plan, run.facts, num, labels=None)
        rows |= {"key": rng.seed_keys(seed, np.arange(num))}
        cut = self.num_ws if share is None else round(share * self.num_ws)
        scales = jnp.where(jnp.arange(self.num_ws) < cut, psi, 1.0)
        call = lambda part: {"image": self.draw(part, scales)}
        return sampling.in_chunks(call, rows, num, run.mesh, run.mesh.size * 200)
