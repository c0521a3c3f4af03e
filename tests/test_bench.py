"""Benchmarks: FLOPs against closed forms, and each mode once at debug size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import measure  # noqa: E402

from jaxgen.nn import convolution  # noqa: E402


def flops(f, *shapes):
    return measure.matmul_flops(jax.make_jaxpr(f)(*map(jnp.zeros, shapes)).jaxpr)


def conv(x, w, stride=1):
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=names)


def test_flops_of_products_and_loops():
    one = 2 * 3 * 4 * 5
    assert flops(jnp.matmul, (3, 4), (4, 5)) == one
    assert flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (7, 3, 4), (7, 4, 5)) == 7 * one

    def loop(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=6)[0]

    assert flops(jax.jit(loop), (3, 4), (4, 4)) == 6 * 2 * 3 * 4 * 4
    assert flops(jax.grad(lambda w: (jnp.ones((3, 4)) @ w).sum()), (4, 5)) == 2 * one  # y and dw
    either = lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: x)
    assert flops(either, (3, 4), (4, 4)) == 2 * 3 * 4 * 4


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("conv", [conv, convolution.conv])
def test_flops_of_a_convolution_and_its_two_gradients_are_equal(conv, stride):
    x, w, n = (2, 8, 8, 3), (3, 3, 3, 5), 2 * 2 * (8 // stride) ** 2 * 5 * 3 * 3 * 3
    assert flops(lambda x, w: conv(x, w, stride), x, w) == n
    both = jax.grad(lambda x, w: (conv(x, w, stride) ** 2).sum(), argnums=(0, 1))
    assert flops(both, x, w) == 3 * n


def test_rounds_hold_whole_cycles_of_lazy_phases():
    calls = []
    measure.repeat(lambda: calls.append(1), repeats=2, warmup=1, multiple=16, most=20)
    assert len(calls) == 1 + 2 * 32


SLOW = [pytest.param(mode, marks=pytest.mark.slow) for mode in ("train", "sample", "input")]


@pytest.mark.parametrize("mode", ["posthoc", *SLOW])
def test_every_mode(mode, tmp_path):
    config = ["--config", "configs/noise2noise/digits.py:debug", "--json", str(tmp_path / "b.json")]
    flags = ["--repeats", "2", "--warmup", "1", "--num", "8", "--snapshots", "3", "--length", "0.1"]
    command = [sys.executable, "scripts/bench.py", mode, *config, *flags, "--config.batch=8"]
    one_device = {**os.environ, "XLA_FLAGS": ""}
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, env=one_device)
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["config"]["batch"] == 8 and found["seconds"]["median"] > 0
    assert found["machine"]["versions"]["jax"] == jax.__version__


def test_evaluation(tmp_path):
    flags = ["--nets", "pixels", "--rows", "40", "--dim", "8", "--repeats", "1", "--images", "4"]
    command = [
        sys.executable,
        "scripts/bench.py",
        "evaluate",
        *flags,
        "--json",
        tmp_path / "b.json",
    ]
    one_device = {**os.environ, "XLA_FLAGS": ""}
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, timeout=300, env=one_device)
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["nets"]["pixels"]["images_per_second"] > 0
    assert found["frechet"]["sqrtm"]["median"] > 0
    assert found["precision_recall"]["three products"]["median"] > 0
