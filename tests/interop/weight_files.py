"""Files of weights byte by byte: pickles instruction by instruction, archives, headers."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np

from jaxgen.interop import unpickle

TOUCH = b"touch SENTINEL"


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return b"X" + struct.pack("<I", len(s)) + s


def symbol(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def reduce(module, name, *args):
    return symbol(module, name) + b"(" + b"".join(args) + b"tR"


def bytes_(data):
    return b"B" + struct.pack("<I", len(data)) + data


def number(n):
    return b"\x8a" + bytes([10]) + n.to_bytes(10, "little", signed=True)


def ema(*body):
    """A dict {"ema": value}."""
    return b"\x80\x02}" + text("ema") + b"".join(body) + b"s."


def persid(kind, key="0", numel=4, extra=b""):
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(numel) + extra + b"tQ"


def legacy(body, tail=b""):
    """A storage's own file, as it stands within the authors' pickles."""
    head = b"".join(
        pickle.dumps(v, 2) for v in (unpickle.MAGIC, unpickle.PROTOCOL, {"little_endian": True})
    )
    return head + b"\x80\x02" + body + b"." + tail


FLOAT = symbol("torch", "FloatStorage")
FOUR = legacy(persid(FLOAT), pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(16))


def load(data):
    return reduce("torch.storage", "_load_from_bytes", bytes_(data))


def tensor(storage, offset=0, size=(4,), stride=(1,)):
    tuples = [b"(" + b"".join(map(number, v)) + b"t" for v in (size, stride)]
    return reduce("torch._utils", "_rebuild_tensor_v2", storage, number(offset), *tuples, b"\x89}")


def state(**entries):
    return b"}(" + b"".join(text(k) + v for k, v in entries.items()) + b"u"


def container(built):
    return symbol("torch.nn.modules.container", "ModuleDict") + b")\x81" + built + b"b"


def laughs(levels=40):
    """A module of two equal children, each of two equal children, ..."""
    body = container(state(_parameters=b"}", _buffers=b"}", _modules=b"}")) + b"q\x00"
    for _ in range(levels):
        children = b"}(" + text("a") + b"h\x00" + text("b") + b"h\x00u"
        body += b"0" + container(state(_parameters=b"}", _buffers=b"}", _modules=children))
        body += b"q\x00"
    return body


def wide_list(n=2000):
    return b"](" + b"K\x01" * n + b"e"


def zipped(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, (data, how) in members.items():
            z.writestr(name.replace("__", "/").replace("UP", ".."), data, how)
    return out.getvalue()


SYSTEM = reduce("os", "system", text(TOUCH))
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def npy(descr, shape, body=b""):
    f = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        f, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return f.getvalue() + body


def safetensors(entries, body=b"", n=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if n is None else n) + text + body


def entry(start, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
