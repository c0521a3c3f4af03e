"""Files of weights: the authors' pickles, PyTorch's, .npz and .safetensors.

They are written here in the formats' own terms, with stand-ins for PyTorch's classes.
"""

import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from jaxgen.interop import reader, symbols, unpickle

RNG = np.random.default_rng(0)
KINDS = {"f2": "Half", "f4": "Float", "f8": "Double", "i8": "Long"}
INIT = {"img_resolution": 8, "img_channels": 3, "channel_mult": [1, 2], "sigma_data": 0.5}


# ------------------------------------------------------------------------------------ stand-ins


class Storage:
    def __init__(self, x):
        self.x = np.ravel(x, order="K")  # as it lies in memory

    def __reduce__(self):
        return sys.modules["torch.storage"]._load_from_bytes, (saved(self, zipped=False),)


class Tensor:
    def __init__(self, x, parameter=False):
        self.x, self.parameter = np.asarray(x), parameter

    def __reduce__(self):
        utils = sys.modules["torch._utils"]
        if self.parameter:
            args = (Tensor(self.x), False, collections.OrderedDict())
            return utils._rebuild_parameter, args
        stride = tuple(s // self.x.itemsize for s in self.x.strides)
        args = (Storage(self.x), 0, self.x.shape, stride, False, collections.OrderedDict())
        return utils._rebuild_tensor_v2, args


class Persistent:
    """A class of the authors' kind: pickled with its source, which must not run."""

    def __init__(self, name, **state):
        self.meta = {"type": "class", "version": 6, "class_name": name, "state": state}
        self.meta["module_src"] = "raise SystemExit('this source ran')"

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def module(name, parameters=(), buffers=(), children=(), **state):
    return Persistent(
        name,
        training=False,
        _parameters=collections.OrderedDict(parameters),
        _buffers=dict(buffers),
        _non_persistent_buffers_set=set(),
        _modules=dict(children),
        **state,
    )


class EasyDict(dict):
    pass


class ModuleDict:
    pass


@pytest.fixture
def stand_ins(monkeypatch):
    names = {
        "torch": {f"{k}Storage": type(f"{k}Storage", (), {}) for k in KINDS.values()},
        "torch.storage": {"_load_from_bytes": lambda b: None},
        "torch._utils": {"_rebuild_tensor_v2": lambda: None, "_rebuild_parameter": lambda: None},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": lambda meta: None},
        "dnnlib.util": {"EasyDict": EasyDict},
        "torch.nn.modules.container": {"ModuleDict": ModuleDict},
    }
    for name, members in names.items():
        fake = types.ModuleType(name)
        for attribute, value in members.items():
            value.__module__, value.__qualname__, value.__name__ = name, attribute, attribute
            setattr(fake, attribute, value)
        monkeypatch.setitem(sys.modules, name, fake)
        for parent in ("torch_utils", "dnnlib", "torch.nn", "torch.nn.modules"):
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))


class Saver(pickle.Pickler):
    """PyTorch's pickler: storages by id."""

    def __init__(self, f, storages):
        super().__init__(f, protocol=2)
        self.storages = storages

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.storages.append(value)
        kind = KINDS[value.x.dtype.str[1:]]
        kind = getattr(sys.modules["torch"], f"{kind}Storage")
        key = str(len(self.storages) - 1)
        return ("storage", kind, key, "cpu", value.x.size)


def saved(value, zipped):
    """The bytes of PyTorch's newer (zip) or older format."""
    body, storages = io.BytesIO(), []
    Saver(body, storages).dump(value)
    out = io.BytesIO()
    if zipped:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
            z.writestr("archive/data.pkl", body.getvalue())
            z.writestr("archive/byteorder", "little")
            for i, s in enumerate(storages):
                z.writestr(f"archive/data/{i}", s.x.tobytes())
        return out.getvalue()
    for head in (unpickle.MAGIC, unpickle.PROTOCOL, {"little_endian": True}):
        pickle.dump(head, out, 2)
    out.write(body.getvalue())
    pickle.dump([str(i) for i in range(len(storages))], out, 2)
    for s in storages:
        out.write(struct.pack("<q", s.x.size) + s.x.tobytes())
    return out.getvalue()


def network():
    """(the authors' dict, the arrays in it)."""
    arrays = {
        "out_gain": np.float32(0.5),
        "unet.enc.8x8_conv.weight": RNG.standard_normal((4, 3, 3, 3)).astype("f2"),
        "unet.emb_fourier.freqs": RNG.standard_normal(5).astype("f4"),
        "logvar.weight": RNG.standard_normal((2, 6)).astype("f8"),
    }
    layer = module("MPConv", [("weight", Tensor(arrays["unet.enc.8x8_conv.weight"], True))])
    enc = ModuleDict()
    enc.__dict__.update(_parameters={}, _buffers={}, _modules={"8x8_conv": layer})
    fourier = module("MPFourier", buffers={"freqs": Tensor(arrays["unet.emb_fourier.freqs"])})
    unet = module("UNet", children={"enc": enc, "emb_fourier": fourier, "nothing": None})
    logvar = module("MPConv", [("weight", Tensor(arrays["logvar.weight"].T.copy().T, True))])
    ema = module(
        "Precond",
        [("out_gain", Tensor(arrays["out_gain"], True)), ("none", None)],
        children={"unet": unet, "logvar": logvar},
        _init_args=(8,),
        _init_kwargs=EasyDict({**INIT, "sigma_data": np.float64(0.5)}),
    )
    noise = Persistent("EDM2Loss", P_mean=-0.4, scale=np.float32([1, 2, 3]))
    return EasyDict(ema=ema, loss_fn=noise, dataset_kwargs=EasyDict(path="x")), arrays


def write(path, data):
    path.write_bytes(data)
    return path


def check(weights, arrays):
    assert set(weights.arrays) == set(arrays)
    for name, x in arrays.items():
        np.testing.assert_array_equal(weights.arrays[name], x, strict=True, err_msg=name)


# ------------------------------------------------------------------------------------ good files


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_authors_pickles(stand_ins, tmp_path, protocol):
    value, arrays = network()
    found = reader.read(write(tmp_path / "x.pkl", pickle.dumps(value, protocol)))
    check(found, arrays)
    assert found.init == INIT and found.class_name == "Precond"
    assert found.facts == {"file": "x.pkl", "format": "pkl", "bytes": found.facts["bytes"]}


def test_pytorch_files_of_both_formats(stand_ins, tmp_path):
    value, arrays = network()
    found = reader.read(write(tmp_path / "x.pt", saved({"ema": value["ema"]}, zipped=True)))
    check(found, arrays)
    assert found.init == INIT
    numbers = {"w": np.arange(12).reshape(3, 4).T, "s": np.float32(3)}
    for zipped in (True, False):
        state = collections.OrderedDict((k, Tensor(np.array(v))) for k, v in numbers.items())
        for root in (state, {"ema": state}):
            found = reader.read(write(tmp_path / "y.pth", saved(root, zipped)))
            check(found, numbers)
            assert found.init == {} and found.class_name is None


def test_npz_with_keywords(tmp_path):
    arrays = {"a.weight": np.ones((2, 3), "f4"), "b": np.float64(2), "c": np.arange(3)}
    for name in ("init", "__metadata__"):
        text = INIT if name == "init" else {"init": INIT, "class_name": "Precond"}
        for save in (np.savez, np.savez_compressed):
            save(tmp_path / "x.npz", **arrays, **{name: json.dumps(text)})
            found = reader.read(tmp_path / "x.npz")
            check(found, arrays)
            assert found.init == INIT
    assert found.class_name == "Precond"


def safetensors(entries, body, metadata=None, n=None):
    header = {"__metadata__": metadata} if metadata else {}
    text = json.dumps(header | entries).encode() if isinstance(entries, dict) else entries
    return struct.pack("<Q", len(text) if n is None else n) + text + body


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_safetensors(tmp_path):
    half, bits = np.float16([[1, 2], [3, 4]]), np.float32([1.5, -2, 0.0078125])
    body = half.tobytes() + (bits.view("u4") >> 16).astype("u2").tobytes()
    entries = {"h": entry("F16", [2, 2], 0, 8), "b": entry("BF16", [3], 8, 14)}
    metadata = {"init": json.dumps(INIT), "class_name": "Precond", "format": "pt"}
    found = reader.read(write(tmp_path / "x.safetensors", safetensors(entries, body, metadata)))
    check(found, {"h": half, "b": bits})
    assert found.init == INIT and found.class_name == "Precond"


def test_every_type_of_storage_reads_as_numpy_does():
    for dtype, code in symbols.DTYPES.items():
        size = np.dtype(code).itemsize
        storage = symbols.Storage(dtype, 4, RNG.integers(0, 2, 4 * size, "u1").tobytes())
        x = symbols.Tensor(storage, dtype, 1, (3,), (1,)).array()
        assert x.shape == (3,) and x.dtype == ("<f4" if dtype == "bfloat16" else code)
