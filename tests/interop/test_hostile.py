"""Hostile files: nothing in them runs, memory stays small, each is refused with a reason."""

import pickle
import struct
import tracemalloc

import pytest
from weight_files import (
    DEFLATED,
    FLOAT,
    FOUR,
    STORED,
    SYSTEM,
    TOUCH,
    bytes_,
    container,
    ema,
    entry,
    laughs,
    legacy,
    load,
    npy,
    number,
    persid,
    reduce,
    safetensors,
    state,
    symbol,
    tensor,
    text,
    wide_list,
    zipped,
)

from jaxgen.interop import reader, unpickle

HOSTILE = {
    "os.system": (ema(SYSTEM), "asks for 'os.system'"),
    "at the top": (b"\x80\x02" + SYSTEM + b".", "asks for 'os.system'"),
    "posix.system by the stack": (
        ema(text("posix"), text("system"), b"\x93(", text(TOUCH), b"tR"), "'posix.system'"),
    "eval": (ema(reduce("builtins", "eval", text("open('SENTINEL', 'w')"))), "builtins.eval"),
    "exec": (ema(reduce("__builtin__", "exec", text("open('SENTINEL', 'w')"))), "exec"),
    "import": (ema(reduce("builtins", "__import__", text("antigravity"))), "__import__"),
    "getattr chain": (
        ema(reduce("builtins", "getattr", reduce("builtins", "__import__", text("os")),
                   text("system"))), "builtins.getattr"),
    "attrgetter": (ema(reduce("operator", "attrgetter", text("system"))), "attrgetter"),
    "functools.partial": (ema(reduce("functools", "partial", symbol("os", "system"))), "partial"),
    "numpy's loader": (ema(reduce("numpy", "load", text("SENTINEL"))), "numpy.load"),
    "torch's loader": (ema(reduce("torch", "load", text("SENTINEL"))), "torch.load"),
    "a name with dots": (ema(reduce("torch.storage", "os.system", text(TOUCH))), "os.system"),
    "INST": (b"\x80\x02(" + text(TOUCH) + b"ios\nsystem\n.", "instruction INST"),
    "OBJ": (b"\x80\x02(" + symbol("collections", "OrderedDict") + b"o.", "instruction OBJ"),
    "NEWOBJ": (ema(symbol("subprocess", "Popen"), b"(", text(TOUCH), b"t\x81"), "Popen"),
    "NEWOBJ of a function": (
        ema(symbol("torch._utils", "_rebuild_parameter"), b")\x81"), "a call of torch._utils"),
    "NEWOBJ_EX": (
        ema(symbol("collections", "OrderedDict"), b")}\x92"), "instruction NEWOBJ_EX"),
    "EXT1": (ema(b"\x82\xc8(", text(TOUCH), b"tR"), "instruction EXT1"),
    "EXT4": (ema(b"\x84\xc8\x00\x00\x00(", text(TOUCH), b"tR"), "instruction EXT4"),
    "a call of a text": (ema(text("os.system"), b"(", text(TOUCH), b"tR"), "str where a Symbol"),
    "a call of a type": (ema(symbol("torch", "FloatStorage"), b")R"), "a call of torch.Float"),
    "a module with arguments": (
        ema(reduce("torch.nn.modules.container", "ModuleDict", text("os"))), "TypeError"),
    "a record with arguments": (
        ema(symbol("R3GAN.Networks", "Generator"), b"(", text(TOUCH), b"t\x81"), "a call of R3GAN"),
    "a record called": (ema(reduce("torch.nn.modules.linear", "Linear")), "a call of torch.nn"),
    "a function of a known package": (
        ema(symbol("R3GAN.Networks", "os.system")), "asks for 'R3GAN.Networks.os.system'"),
    "a record that is no network": (
        ema(symbol("R3GAN.Networks", "Generator") + b")\x81}b"), "without _parameters"),
    "__setstate__": (
        ema(container(state(__setstate__=symbol("numpy", "ndarray")))), "sets __setstate__"),
    "__class__": (ema(container(state(__class__=b"N"))), "sets __class__"),
    "__dict__": (ema(container(state(__dict__=b"}"))), "sets __dict__"),
    "a state with slots": (ema(container(b"N}\x86")), "unusual state"),
    "a state for a text": (ema(text("x"), b"}b"), "a state for a str"),
    "a state for a name": (ema(symbol("torch", "Size"), b"}b"), "a state for a Symbol"),
    "a list as a key": (b"\x80\x02}]Ns.", "list as a key"),
    "a module as a key": (b"\x80\x02}" + container(b"}") + b"Ns.", "Object as a key"),
    "colliding keys": (b"\x80\x02}" + number(2**61 - 1) + b"Ns.", "int as a key"),
    "a list in a set": (ema(b"\x8f(]\x90"), "list as a key"),
    "persistent id": (ema(persid(FLOAT)), "instruction BINPERSID"),
    "persistent text": (ema(b"Pstorage\n"), "instruction PERSID"),
    "a pickle within": (ema(load(b"\x80\x02" + SYSTEM + b".")), "asks for 'os.system'"),
    "a storage's type": (
        ema(load(legacy(persid(symbol("os", "system"))))), "asks for 'os.system'"),
    "a storage of no type": (
        ema(load(legacy(persid(symbol("torch", "Size"))))), "a storage of type torch.Size"),
    "an id of its own": (ema(load(legacy(b"(" + SYSTEM + b"tQ"))), "asks for 'os.system'"),
    "an id that is none": (ema(load(legacy(text("x") + b"Q"))), "str where a tuple"),
    "a view of a storage": (
        ema(load(legacy(persid(FLOAT, extra=SYSTEM)))), "asks for 'os.system'"),
    "files in files": (
        ema(load(legacy(load(legacy(load(legacy(load(FOUR)))))))), "files within files, 4 deep"),
    "no storage within": (ema(load(b"\x80\x02K\x01.")), "int where a Storage"),
    "a huge storage": (ema(load(legacy(persid(FLOAT, numel=2**40)))), "of 4398046511104 bytes"),
    "a storage of no size": (ema(load(legacy(persid(FLOAT, numel=-1)))), "impossible sizes"),
    "a storage that ends early": (
        ema(load(FOUR[:-1])), "a storage of 16 bytes is not in the file"),
    "a storage that never comes": (
        ema(state(w=tensor(load(legacy(persid(FLOAT), b"\x80\x02].")))))[:-2] + b"s.",
        "whose storage is not in the file"),
    "a tensor past its storage": (ema(tensor(load(FOUR), offset=1)), r"size \(4,\) in a storage"),
    "a tensor of strides": (ema(tensor(load(FOUR), size=(2, 2), stride=(3, 1))), "in a storage"),
    "a tensor of nothing times much": (
        ema(tensor(load(FOUR), size=(2**20, 2**20), stride=(0, 0))), "in a storage of 4"),
    "a tensor of many axes": (
        ema(tensor(load(FOUR), size=(1,) * 9, stride=(1,) * 9)), "impossible"),
    "a tensor of a text": (ema(tensor(text("storage"))), "str where a Storage"),
    "the same storage again and again": (
        ema(b"](", bytes_(FOUR + bytes(60_000)), b"q\x00"
            + (symbol("torch.storage", "_load_from_bytes") + b"(h\x00tR") * 9 + b"e"),
        "more than the file holds"),
    "a set of a list again and again": (
        ema(b"](", wide_list(), b"q\x00" + reduce("builtins", "set", b"h\x00") * 900, b"e"),
        "more than the file holds"),
    "a huge byte array": (ema(b"\x96" + struct.pack("<Q", 2**62)), "bytearray8"),
    "a huge text": (ema(b"\x8d" + struct.pack("<Q", 2**40)), "unicodestring8"),
    "a huge number": (ema(b"\x8b" + struct.pack("<i", 2**31 - 1)), "long4"),
    "a number in words": (ema(b"L" + b"9" * 50_000 + b"L\n"), "limit"),
    "a huge memo": (b"\x80\x02K\x01r\xff\xff\xff\xff.", "got a int"),
    "a memo of nothing": (ema(b"j\xff\xff\xff\xff"), "KeyError"),
    "deep lists": (ema(b"]" * 20_000 + b"a" * 19_999), "ema is a list"),
    "deep tuples": (ema(b")" + b"\x85" * 20_000), "ema is a tuple"),
    "a thousand million modules": (ema(laughs()), "not a module of a few"),
    "a module in itself": (
        ema(symbol("torch.nn.modules.container", "ModuleDict") + b")\x81q\x00"
            + state(_parameters=b"}", _buffers=b"}", _modules=state(a=b"h\x00")) + b"b"),
        "not a module of a few"),
    "long names": (
        ema(container(state(_parameters=state(**{"x" * 200: b"N"}), _buffers=b"}"))),
        "unusual names"),
    "a function with source": (
        ema(reduce("torch_utils.persistence", "_reconstruct_persistent_obj",
                   state(type=text("func"), module_src=text("import os")))), "not of a class"),
    "keywords of a module": (
        ema(reduce("torch_utils.persistence", "_reconstruct_persistent_obj",
                   state(type=text("class"), class_name=text("P"), state=state(
                       _parameters=state(w=tensor(load(FOUR))), _buffers=b"}", _modules=b"}",
                       _init_kwargs=state(a=container(b"}"))))))[:-1] + b".",
        "among the network's keywords"),
    "an encoding": (
        ema(reduce("_codecs", "encode", text("x" * 99), text("idna"))), "another encoding"),
    "objects in numpy": (
        ema(reduce("numpy", "dtype", text("O8"), b"\x89\x88")), "numpy array of type 'O8'"),
    "a list in numpy": (
        ema(reduce("numpy.core.multiarray", "_reconstruct"), b"(K\x01(t",
            reduce("numpy", "dtype", text("f4")), b"\x89]tb"), "not made of bytes"),
    "a buffer from outside": (ema(b"\x97"), "instruction NEXT_BUFFER"),
    "cut short": (ema(load(FOUR))[:-40], "remain|exhausted|damaged"),
    "no pickle": (b"MZ this is a program", "."),
    "nothing": (b"", "exhausted"),
    "an empty stack": (b"\x80\x02R.", "IndexError"),
    "odd items": (b"\x80\x02(K\x01d.", "argument 2 is shorter"),
    "another value": (ema(b"K\x01"), "ema is a int"),
    "zip: os.system": (zipped(a__data_pkl=(b"", STORED)), "0 members are named data.pkl"),
    "zip: a bomb": (
        zipped(**{"a/data.pkl": (ema(b"N"), STORED), "a/data/0": (bytes(2**24), DEFLATED)}),
        "compressed or encrypted"),
    "zip: a way out": (
        zipped(**{"../data.pkl": (ema(b"N"), STORED)}), r"a member '\.\./data\.pkl'"),
    "zip: an absolute way": (zipped(**{"/a/data.pkl": (ema(b"N"), STORED)}), "'/a/data.pkl'"),
    "zip: a program": (zipped(**{"a/data.pkl": (ema(SYSTEM), STORED)}), "asks for 'os.system'"),
    "zip: a way out of storages": (
        zipped(**{"a/data.pkl": (ema(tensor(persid(FLOAT, key="../../etc/passwd"))), STORED)}),
        "no storage"),
    "zip: a storage of another size": (
        zipped(**{"a/data.pkl": (ema(tensor(persid(FLOAT))), STORED), "a/data/0": (b"12", STORED)}),
        "no storage '0' of 16 bytes"),
    "zip: cut short": (
        zipped(**{"a/data.pkl": (ema(b"N"), STORED)})[:-30], "damaged"),
}  # fmt: skip


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """A folder in which nothing may appear, and no unpickler that could run anything."""
    monkeypatch.chdir(tmp_path)

    def forbidden(*_, **__):
        raise AssertionError("Python's own unpickler was asked")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    return tmp_path


def refused(path, match):
    """Reading raises ValueError with this text, and memory stays small."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as e:
            reader.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(e.value) and len(str(e.value)) < 500
    assert peak < 16e6 + 4 * path.stat().st_size


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles(sentinel, name):
    data, match = HOSTILE[name]
    path = write(sentinel / "x.pkl", data)
    refused(path, match)
    assert list(sentinel.iterdir()) == [path], "something ran"


def test_registered_extensions_are_not_looked_at(sentinel):
    import copyreg

    copyreg.add_extension("os", "system", 200)
    try:
        refused(write(sentinel / "x.pkl", HOSTILE["EXT1"][0]), "instruction EXT1")
    finally:
        copyreg.remove_extension("os", "system", 200)


def test_instructions_are_counted(sentinel, monkeypatch):
    monkeypatch.setattr(unpickle, "OPS", 1000)
    refused(write(sentinel / "x.pkl", ema(b"N0" * 600)), "more than 1000 instructions")


# ------------------------------------------------------------------------- .npz and .safetensors


NPZ = {
    "objects": ({"a.npy": npy("|O", (1,), SYSTEM)}, "a holds object"),
    "records": ({"a.npy": npy([("x", "<f4")], (1,), bytes(4))}, "a holds"),
    "text": ({"a.npy": npy("<U1", (1,), bytes(4))}, "a holds text"),
    "a huge shape": ({"a.npy": npy("<f4", (2**40,))}, "and has other bytes"),
    "a negative shape": ({"a.npy": npy("<f4", (-1, -4), bytes(16))}, "."),
    "a member of no array": ({"a.npy": b"hello, this is text"}, "magic"),
    "keywords of a list": ({"init.npy": npy("<U2", (), "[]".encode("utf-32-le"))}, "JSON object"),
    "a way out": ({"../a.npy": npy("<f4", (1,), bytes(4))}, "a member '../a.npy'"),
    "a bomb": ({"a.npy": npy("<f4", (2**23,), bytes(2**25))}, "that unpacks to"),
    "nothing": ({}, "no arrays in it"),
}


@pytest.mark.parametrize("name", NPZ)
def test_hostile_npz(sentinel, name):
    members, match = NPZ[name]
    data = zipped(**{k: (v, DEFLATED) for k, v in members.items()})
    refused(write(sentinel / "x.npz", data), match)


SAFETENSORS = {
    "a long header": (safetensors({}, n=2**60), "header is longer than the file"),
    "nothing": (b"", "header is longer"),
    "no JSON": (safetensors(b"os.system('x')"), "header is not JSON"),
    "a list": (safetensors(b"[]"), "header must be a JSON object"),
    "deep JSON": (safetensors(b'{"a":' * 30_000), "nested too deeply|not JSON"),
    "a name twice": (safetensors(b'{"a":1,"a":2}'), "a key is there twice"),
    "an unknown type": (safetensors({"a": entry(0, 4, dtype="O")}, bytes(4)), "not understood"),
    "a huge shape": (safetensors({"a": entry(0, 4, (2**40,))}, bytes(4)), "does not fit its place"),
    "a negative place": (safetensors({"a": entry(-4, 0)}, bytes(4)), "impossible shape or place"),
    "a place outside": (safetensors({"a": entry(4, 8)}, bytes(4)), "does not fit its place"),
    "an overlap": (
        safetensors({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),
        "overlap, or leave a hole",
    ),
    "more at the end": (safetensors({"a": entry(0, 4)}, bytes(9)), "longer than its arrays"),
    "an entry of a number": (safetensors({"a": 1}), "not understood"),
    "a true shape": (safetensors({"a": entry(0, 4, (True,))}, bytes(4)), "impossible shape"),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_hostile_safetensors(sentinel, name):
    data, match = SAFETENSORS[name]
    refused(write(sentinel / "x.safetensors", data), match)


def test_files_that_are_not_there_or_of_another_kind(sentinel):
    with pytest.raises(ValueError, match="there is no file"):
        reader.read(sentinel / "x.pkl")
    refused(write(sentinel / "x.bin", b""), "expected one of .npz, .safetensors, .pkl")
