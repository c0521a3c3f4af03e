"""What every command sets up in JAX, seen in a process of its own."""

import os
import subprocess
import sys

import pytest

from jaxgen.cli import common

CODE = """
import os
from jaxgen.cli import common
common.setup_jax()
import jax, jax.numpy as jnp
compiled = lambda f, *a: jax.jit(f).lower(*a).compile().as_text()
conv = lambda x, w: jax.lax.conv_general_dilated(
    x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
text = compiled(conv, jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16)))
branch = lambda x, w: jnp.tanh(x @ w) @ w
loss = lambda f: lambda x, w: jnp.square(f(x, w)).sum()
grads = [compiled(jax.grad(loss(f), 1), jnp.ones((8, 8)), jnp.ones((8, 8)))
         for f in (branch, jax.checkpoint(branch))]
plain, remat = (g.count(" dot(") for g in grads)
print("library" if "ynn" in text else "plain", remat - plain, os.environ["XLA_FLAGS"])
"""
YNN, PASSES = (flag.partition("=")[0] for flag in common.CPU_FLAGS)
USER = f"{YNN}=LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION {PASSES}=none"


@pytest.mark.parametrize("flags", ["", USER], ids=["default", "user"])
def test_flags_of_the_cpu_take_effect_unless_the_user_says_otherwise(flags):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    kind, again, seen = done.stdout.strip().split(" ", 2)
    if flags:
        assert seen == USER
    else:
        assert kind == "plain" and int(again) > 0  # remat computes products again
        assert seen == " ".join(common.CPU_FLAGS)
