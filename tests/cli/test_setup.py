"""What every command sets up in JAX, seen in a process of its own."""

import os
import subprocess
import sys

import pytest

from jaxgen.cli import common

CODE = """
from jaxgen.cli import common
common.setup_jax()
import jax, jax.numpy as jnp
conv = lambda x, w: jax.lax.conv_general_dilated(
    x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
text = jax.jit(conv).lower(jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))).compile().as_text()
print("library" if "ynn" in text else "plain", os.environ["XLA_FLAGS"])
"""
ONE = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"


@pytest.mark.parametrize("flags", ["", f"--xla_cpu_experimental_ynn_fusion_type={ONE}"])
def test_convolutions_are_left_to_eigen_unless_the_user_says_otherwise(flags):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", "import os" + CODE],
        env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    kind, _, seen = done.stdout.strip().partition(" ")
    if flags:
        assert seen == flags
    else:
        assert kind == "plain"
        assert seen == common.CONVOLUTIONS
