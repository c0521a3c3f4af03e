"""Where a feature net's weights are found, and whose preprocessing is taken."""

import sys

import numpy as np
import pytest

from jaxgen.cli import nets
from jaxgen.metrics import efficientnet, features, lpips, protocols


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """A file of EfficientNet-Lite0 with zeros for weights."""
    arrays = {
        f"{n}_{k}": np.zeros(s if k == "w" else s[:1], np.float16)
        for n, _, _, s in efficientnet.layers()
        for k in "wb"
    }
    arrays |= {"fc_w": np.zeros((1000, 1280), np.float16), "fc_b": np.zeros(1000, np.float16)}
    path = tmp_path_factory.mktemp("weights") / "efficientnet_lite0.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch):
    """No variable, no installed package."""
    monkeypatch.delenv(nets.VARIABLE, raising=False)
    monkeypatch.setattr(nets, "PACKAGES", {})


def test_a_file_a_variable_and_its_folder(lite0, monkeypatch):
    net = nets.open_net("efficientnet_lite0", lite0)
    assert net.name == "efficientnet_lite0" and net.dim == 1280
    for value in (lite0, lite0.parent):
        monkeypatch.setenv(nets.VARIABLE, str(value))
        again = nets.open_net("efficientnet_lite0")
        assert again.weights_sha256 == net.weights_sha256 and len(net.weights_sha256) == 64
    with pytest.raises(ValueError, match=r"vgg16 needs a file of weights: .* JAXGEN_WEIGHTS"):
        nets.open_net("vgg16")  # the folder has none
    with pytest.raises(ValueError, match=r"--weights .*: a folder without vgg16 or vgg16 of the"):
        nets.open_net("vgg16", lite0.parent)
    monkeypatch.setenv(nets.VARIABLE, "gone.npz")
    with pytest.raises(ValueError, match=r"JAXGEN_WEIGHTS: there is no file gone.npz"):
        nets.open_net("efficientnet_lite0")


def test_a_file_of_another_net(lite0):
    with pytest.raises(ValueError) as e:
        nets.open_net("vgg16", lite0)
    text = str(e.value)
    assert "efficientnet_lite0.npz: these are no weights of vgg16: it has 32 arrays" in text
    assert "the file has 100 (stem_w, stem_b, " in text


def test_an_installed_package_is_found_and_not_imported(lite0, tmp_path, monkeypatch):
    package = tmp_path / "carries_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('this package was imported')\n")
    (package / "models" / "net.npz").write_bytes(lite0.read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        nets, "PACKAGES", {"efficientnet_lite0": ("carries_weights", "models/*.npz")}
    )
    assert nets.open_net("efficientnet_lite0").dim == 1280
    assert "carries_weights" not in sys.modules


def test_lpips_is_read_from_two_files(tmp_path, monkeypatch):
    trunk = {n: np.ones(s, np.float16) for n, s in lpips.vgg16.trunk_shapes("features.").items()}
    lins = {f"lin{i}.model.1.weight": np.ones((1, c, 1, 1)) for i, c in enumerate(lpips.CHANNELS)}
    for name, arrays in (("vgg16", trunk), ("lpips", lins)):
        np.savez(tmp_path / f"{name}.npz", **arrays)
    files = f"{tmp_path / 'vgg16.npz'},{tmp_path / 'lpips.npz'}"
    given = nets.open_net("lpips", files)
    monkeypatch.setenv(nets.VARIABLE, str(tmp_path))
    assert nets.open_net("lpips").weights_sha256 == given.weights_sha256
    with pytest.raises(ValueError, match=r"vgg16.npz: features.0.bias is in another file, too"):
        nets.open_net("lpips", f"{tmp_path / 'vgg16.npz'},{tmp_path / 'vgg16.npz'}")


def test_like_chooses_net_resizer_and_scaling(monkeypatch):
    found = []
    monkeypatch.setattr(nets, "read", lambda files: features.Weights({}, "0" * 64))
    monkeypatch.setattr(nets, "find", lambda name, weights=None: [name])
    monkeypatch.setattr(features, "load", lambda name, w, **how: found.append((name, how)))
    for like, protocol in protocols.LIKE.items():
        nets.open_net(like=like)
        how = {"resizer": protocol.resizer, "scaling": protocol.scaling}
        assert found[-1] == (protocol.net, how)
    nets.open_net("inception-768", like="pytorch-fid")
    assert found[-1] == ("inception-768", {"resizer": "torch-bilinear", "scaling": "x/127.5-1"})
    nets.open_net("inception", like="pytorch-fid", resizer="area")
    assert found[-1][1] == {"resizer": "area", "scaling": "x/127.5-1"}


def test_protocols_fit_the_nets():
    for protocol in protocols.LIKE.values():
        features._prepared_by(features.NETS[protocol.net], protocol.resizer, protocol.scaling)
        assert protocol.ddof in (0, 1) and protocol.ties in ("<", "<=", None)


def test_errors():
    with pytest.raises(ValueError, match=r"no protocol 'pytorchfid'; did you mean 'pytorch-fid'?"):
        nets.open_net(like="pytorchfid")
    with pytest.raises(ValueError, match="--like clean-fid is about the net inception, and --feat"):
        nets.open_net("pixels", like="clean-fid")
    with pytest.raises(ValueError, match=r"--weights x.npz: pixels reads no file; those that do"):
        nets.open_net("pixels", "x.npz")
    with pytest.raises(ValueError, match="which feature net"):
        nets.open_net()
    with pytest.raises(ValueError, match="no feature net 'inceptoin'; the names are"):
        nets.open_net("inceptoin")
