"""Damaged files of weights: pickles, PyTorch's two formats, .npz and .safetensors."""

import io
import json
import pickle
import struct

import numpy as np
import pytest
import weight_files as w
from fuzzing import COUNTS, damaged, fuzz, json_values, memory, replaced, tame
from hypothesis import strategies as st

from jaxgen.interop import edm, edm2, r3gan, reader, stylegan2, stylegan3

INIT = w.state(img_resolution=w.number(8), channel_mult=b"](K\x01K\x02e")


def module(**children):
    weights = w.state(weight=w.tensor(w.load(w.FOUR)), bias=b"N")
    built = w.state(
        _parameters=weights, _buffers=b"}", _modules=w.state(**children), _init_kwargs=INIT
    )
    return w.container(built)


NUMPY = w.reduce("numpy.core.multiarray", "_reconstruct") + b"(K\x01(K\x02K\x02t"
NUMPY += w.reduce("numpy", "dtype", w.text("f4")) + b"\x89" + w.bytes_(bytes(16)) + b"tb"
TENSORS = b"\x80\x02" + w.state(w=w.tensor(w.persid(w.FLOAT))) + b"."
PICKLES = {
    "net.pkl": w.ema(module(inner=module())),
    "gan.pkl": b"\x80\x02" + w.state(G=module(), D=module(), G_ema=module()) + b".",
    "numpy.pkl": w.ema(w.state(a=NUMPY)),
    "old.pt": w.legacy(TENSORS[2:-1], pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(16)),
    "new.pth": w.zipped(**{"a/data.pkl": (TENSORS, w.STORED), "a/data/0": (bytes(16), w.STORED)}),
}


def pieces():
    """Pickles of instructions in any order: most ask for what is not there."""
    known = [
        b"(", b")", b"]", b"}", b"N", b"0", b"1", b"2", b"t", b"e", b"u", b"s", b"a", b"R", b"b",
        b"\x81", b"\x85", b"\x86", b"\x8f", b"\x90", b"\x91", b"\x93", b"\x94", b"q\x00", b"h\x00",
        b"r\xff\xff\xff\x7f", b"K\x01", b"Q", b"\x97", b"\x98", b"\x92", w.number(4), w.number(-1),
        w.number(2**60), w.text("storage"), w.text("os"), w.text("system"), w.text(w.TOUCH),
        w.text("ema"), w.text("__setstate__"), w.FLOAT, w.load(w.FOUR), w.tensor(w.load(w.FOUR)),
        module(), NUMPY, w.bytes_(w.FOUR), w.bytes_(bytes(16)), w.SYSTEM, w.wide_list(50),
        *(w.symbol(*n.rsplit(".", 1)) for n in (
            "os.system", "builtins.eval", "builtins.getattr", "collections.OrderedDict",
            "builtins.set", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
            "torch.storage._load_from_bytes", "numpy.core.multiarray._reconstruct", "numpy.dtype",
            "numpy.core.multiarray.scalar", "numpy._core.numeric._frombuffer", "_codecs.encode",
            "torch.Size", "torch.device", "torch.nn.modules.linear.Linear", "numpy.ndarray",
            "torch_utils.persistence._reconstruct_persistent_obj",
        )),
    ]  # fmt: skip
    lists = st.lists(st.sampled_from(known), max_size=12).map(b"".join)
    return st.one_of(
        lists.map(lambda b: ("x.pkl", w.ema(b))),
        lists.map(lambda b: ("x.pkl", b"\x80\x04" + b + b".")),
        lists.map(lambda b: ("x.pt", w.legacy(b, pickle.dumps(["0"], 2) + bytes(24)))),
    )


def check(networks, size):
    for found in networks.values():
        assert sum(x.nbytes for x in found.arrays.values()) <= 20 * size + 2**20
        json.dumps(found.init)


def body_in(folder):
    def body(example):
        name, data = example
        path = folder / name
        path.write_bytes(data)
        networks, _ = tame(lambda: reader.read_networks(path), folder, str(path))
        if networks is not None:
            check(networks, len(data))
        path.unlink()
        assert not list(folder.iterdir()), "something ran"

    return body


@COUNTS
def test_pickles(count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where TOUCH would leave its file
    for name, data in PICKLES.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert reader.read_networks(path), "the examples begin with good files"
        path.unlink()
    with memory(64):
        fuzz(count, st.one_of(damaged(PICKLES), pieces()), body_in(tmp_path))


@COUNTS
def test_safetensors(count, tmp_path):
    header = {
        "__metadata__": {"init": '{"a": 1}', "class_name": "P"},
        "w": w.entry(0, 8, (2,)),
        "b": w.entry(8, 12, (2,), "BF16"),
        "e": w.entry(12, 12, (0,), "I64"),
    }
    dumps = lambda v: json.dumps(v).encode("utf-8", "surrogatepass")
    trees = st.one_of(replaced(header), json_values()).map(
        lambda v: ("x.safetensors", w.safetensors(dumps(v), bytes(12)))
    )
    good = {"x.safetensors": w.safetensors(header, bytes(12))}
    with memory(64):
        fuzz(count, st.one_of(damaged(good), trees), body_in(tmp_path))


@COUNTS
def test_npz(count, tmp_path):
    arrays = {"a": np.ones((3, 2), np.float32), "b": np.arange(4), "c": np.array(True)}
    good = {}
    for name, save in (("x.npz", np.savez), ("y.npz", np.savez_compressed)):
        out = io.BytesIO()
        save(out, init=np.array('{"init": {"a": 1}, "class_name": "P"}'), **arrays)
        good[name] = out.getvalue()
    with memory(64):
        fuzz(count, damaged(good), body_in(tmp_path))


NETWORKS = {
    "edm": (edm.load, {
        "img_resolution": 8, "img_channels": 3, "model_type": "DhariwalUNet", "num_blocks": 1,
        "model_channels": 32, "channel_mult": [1, 2], "attn_resolutions": [4], "sigma_data": 0.5,
        "use_fp16": False,
    }),
    "edm2": (edm2.load, {
        "img_resolution": 8, "img_channels": 3, "label_dim": 0, "model_channels": 32,
        "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4],
        "channel_mult_noise": None, "resample_filter": [1, 1],
    }),
    "stylegan2": (stylegan2.load_generator, {
        "z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 8, "img_channels": 3,
        "mapping_kwargs": {"num_layers": 2}, "channel_base": 64, "channel_max": 8,
        "synthesis_kwargs": {"resample_filter": [1, 3, 3, 1]},
    }),
    "stylegan3": (stylegan3.load_generator, {
        "z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3,
        "mapping_kwargs": {"num_layers": 1}, "channel_base": 64, "channel_max": 8,
        "num_layers": 4, "filter_size": 6, "conv_kernel": 1, "use_radial_filters": True,
    }),
    "r3gan": (r3gan.load_generator, {
        "NoiseDimension": 8, "c_dim": 0, "WidthPerStage": [8, 8], "CardinalityPerStage": [2, 2],
        "BlocksPerStage": [1, 1], "ExpansionFactor": 2, "KernelSize": 3,
        "ResamplingFilter": [1, 2, 1], "FP16Stages": [],
    }),
}  # fmt: skip


@pytest.mark.parametrize("family", NETWORKS)
@pytest.mark.parametrize("value", [2**40, [1] * 4000, 10**400, {"a": {"a": {"a": {"a": {}}}}}])
def test_keywords_that_no_network_has(family, value, tmp_path):
    """Refused before anything of that size is made, whatever keyword has them."""
    load, init = NETWORKS[family]
    with memory(64):
        for name in init:
            _, error = tame(lambda n=name: load({}, **{**init, n: value}), tmp_path, "")
            assert error is not None, name


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", NETWORKS)
def test_keywords_of_a_network(family, tmp_path):
    """Tracing a network that could be takes half a second, so these are fewer."""
    load, init = NETWORKS[family]
    arrays = {"w": np.zeros(32, np.float32)}

    def body(init):
        kwargs = init if isinstance(init, dict) else {"init": init}
        kwargs = {str(k): v for k, v in kwargs.items()}
        found, _ = tame(lambda: load(arrays, **kwargs), tmp_path, "")
        assert found is None

    with memory(400):
        fuzz(200, replaced(init), body)
