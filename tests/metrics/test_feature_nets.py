"""Feature nets without published weights: independent numpy, layouts that agree, refused files."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from jaxgen.metrics import clip, dinov2, efficientnet, features, inception, lpips, nets, random_net

RNG = np.random.default_rng(0)


def draw(shape, scale=None):
    scale = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.3
    return RNG.normal(0, scale, shape).astype(np.float32)


# ------------------------------------------------------------------------------------------ pieces


def test_folding_a_batch_norm():
    x = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)
    arrays = {n: draw(s) for n, s in nets.norm_shapes("c", "n", (4, 3, 3, 3)).items()}
    arrays["n.running_var"] = RNG.uniform(0.5, 2, 4)
    plain = np.asarray(nets.conv(x, nets.hwio(arrays["c.weight"])), np.float64)
    normed = (plain - arrays["n.running_mean"]) / np.sqrt(arrays["n.running_var"] + 1e-3)
    want = normed * arrays["n.weight"] + arrays["n.bias"]
    w, b = nets.fold(arrays, "c", "n", 1e-3)
    np.testing.assert_allclose(nets.conv(x, np.float32(w)) + b, want, atol=1e-5)


def test_dense_layers_that_read_channels_first():
    x, w = draw((2, 3, 4, 5)), draw((6, 60))
    want = x.transpose(0, 3, 1, 2).reshape(2, -1) @ w.T
    np.testing.assert_allclose(x.reshape(2, -1) @ nets.from_chw(w, (5, 3, 4)).T, want, rtol=1e-5)


@pytest.mark.parametrize("k,stride,hw", [(3, 1, (5, 6)), (3, 2, (6, 7)), (5, 2, (8, 5))])
def test_shifted_products_are_a_grouped_convolution(k, stride, hw):
    x, w = draw((2, *hw, 4)), draw((k, k, 4))
    want = jax.lax.conv_general_dilated(
        x, w[:, :, None], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=4,
    )  # fmt: skip
    np.testing.assert_allclose(efficientnet.depthwise(x, w, stride), want, atol=1e-5)


def test_mean_pools_do_not_count_padding():
    x = draw((1, 5, 4, 2))
    got = np.asarray(inception._pool_mean(x))
    for i in range(5):
        for j in range(4):
            near = x[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            np.testing.assert_allclose(got[0, i, j], near.mean((0, 1)), atol=1e-6)


def test_layers_of_inception():
    """94 convolutions in all, 70 of them up to 768 features, whose width follows."""
    widths = {}
    for dim, count in ((64, 3), (192, 5), (768, 70), (2048, 94)):
        found = list(inception.layers(dim))
        assert len(found) == count and len({n for n, _, _ in found}) == count
        assert len({tf for _, tf, _ in found}) == count
        p = {f"{n}.w": np.zeros((h, w, c, o), np.float32) for n, _, (o, c, h, w) in found}
        p |= {f"{n}.b": np.zeros(o, np.float32) for n, _, (o, *_) in found}
        x = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
        widths[dim] = jax.eval_shape(lambda p, x, d=dim: inception.maps(p, x, d), p, x).shape
    sides = {64: 73, 192: 35, 768: 17, 2048: 8}
    assert widths == {d: (1, s, s, d) for d, s in sides.items()}


# ------------------------------------------------------------------------------------ transformers


def numpy_norm(x, p, name, eps):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return x * p[f"{name}.weight"] + p[f"{name}.bias"]


def numpy_attention(x, p, names, heads):
    q, k, v = (x @ p[f"{n}.weight"].T + p[f"{n}.bias"] for n in names)
    out = np.zeros_like(q)
    width = q.shape[-1] // heads
    for b in range(len(x)):
        for h in range(heads):
            at = slice(h * width, (h + 1) * width)
            s = np.exp(q[b, :, at] @ k[b, :, at].T / np.sqrt(width))
            out[b, :, at] = s / s.sum(1, keepdims=True) @ v[b, :, at]
    return out


CLIP = clip.Spec(width=16, depth=2, heads=2, patch=4, dim=6, size=8)
DINO = dinov2.Spec(width=16, depth=2, heads=2, table=3, patch=4)


@pytest.fixture(scope="module")
def clip_arrays():
    """A small CLIP in transformers' names, with something of the text's half."""
    pairs = clip._pairs(CLIP, clip.TRANSFORMERS)
    arrays = {n: draw(shape) for _, theirs, shape in pairs for n in theirs}
    return {**arrays, "text_model.final_layer_norm.bias": np.ones(3), "logit_scale": np.ones(())}


def test_clip_is_what_numpy_makes_of_it(clip_arrays):
    x = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
    p = {n: a.astype(np.float64) for n, a in clip_arrays.items()}
    at = "vision_model."
    grid = [x[:, i : i + 4, j : j + 4].transpose(0, 3, 1, 2).reshape(2, -1) for i in (0, 4)
            for j in (0, 4)]  # fmt: skip
    t = np.stack(grid, 1) @ p[f"{at}embeddings.patch_embedding.weight"].reshape(16, -1).T
    cls = np.broadcast_to(p[f"{at}embeddings.class_embedding"], (2, 1, 16))
    t = np.concatenate([cls, t], 1) + p[f"{at}embeddings.position_embedding.weight"]
    t = numpy_norm(t, p, f"{at}pre_layrnorm", 1e-5)
    for i in range(2):
        b = f"{at}encoder.layers.{i}."
        names = [f"{b}self_attn.{n}_proj" for n in "qkv"]
        y = numpy_attention(numpy_norm(t, p, f"{b}layer_norm1", 1e-5), p, names, 2)
        out = f"{b}self_attn.out_proj"
        t = t + y @ p[f"{out}.weight"].T + p[f"{out}.bias"]
        y = numpy_norm(t, p, f"{b}layer_norm2", 1e-5)
        y = y @ p[f"{b}mlp.fc1.weight"].T + p[f"{b}mlp.fc1.bias"]
        y = y / (1 + np.exp(-1.702 * y))
        t = t + y @ p[f"{b}mlp.fc2.weight"].T + p[f"{b}mlp.fc2.bias"]
    want = numpy_norm(t[:, 0], p, f"{at}post_layernorm", 1e-5) @ p["visual_projection.weight"].T
    got = clip.features(clip.convert(clip_arrays, CLIP), x, CLIP)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_clip_in_both_layouts(clip_arrays):
    openai = {}
    layouts = (clip._pairs(CLIP, names) for names in (clip.OPENAI, clip.TRANSFORMERS))
    for (ours, theirs, _), (same, parts, _) in zip(*layouts, strict=True):
        assert ours == same
        joined = np.concatenate([clip_arrays[n] for n in parts])
        openai[theirs[0]] = joined.T if ours == "projection.w" else joined
    openai |= {"text_projection": np.ones((2, 2)), "transformer.resblocks.0.ln_1.bias": np.ones(2)}
    a, b = clip.convert(openai, CLIP), clip.convert(clip_arrays, CLIP)
    assert a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)
    with pytest.raises(
        ValueError, match=r"no weights of clip-vit-b32: .* 200 arrays .* the file has 42 "
    ):
        features.NETS["clip-vit-b32"].convert(clip_arrays)


def test_dinov2_in_three_layouts():
    layouts = (dinov2.AUTHORS, dinov2.TRANSFORMERS, dinov2.TRANSFORMERS_5)
    first = {ours: (theirs, draw((len(theirs) * s[0], *s[1:])))
             for ours, theirs, s in dinov2._pairs(DINO, layouts[2])}  # fmt: skip
    found = []
    for names in layouts:
        arrays = {
            "mask_token" if names is dinov2.AUTHORS else "embeddings.mask_token": draw((1, 16))
        }
        for ours, theirs, _ in dinov2._pairs(DINO, names):
            arrays |= dict(zip(theirs, np.split(first[ours][1], len(theirs)), strict=True))
        found.append(dinov2.convert(arrays, DINO))
    for other in found[1:]:
        assert all(np.array_equal(found[0][n], other[n]) for n in found[0])
    x = RNG.normal(size=(2, 12, 12, 3)).astype(np.float32)
    # At the table's own size nothing is resized, whatever the offset.
    a, b = (dinov2.features(found[0], x, DINO, offset) for offset in (0.0, 0.1))
    np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"multiples of 4 pixels high and wide, got \(12, 10\)"):
        dinov2.features(found[0], x[:, :, :10], DINO)


def test_exact_gelu():
    x = np.linspace(-4, 4, 41, dtype=np.float32)
    np.testing.assert_allclose(
        jax.nn.gelu(x, approximate=False), x * (1 + erf(x / 2**0.5)) / 2, atol=1e-6
    )


# ------------------------------------------------------------------------------------ LPIPS, random


def lpips_arrays():
    """Random weights in the published names."""
    arrays = {n: draw(s) for n, s in lpips.vgg16.trunk_shapes("features.").items()}
    for i, c in enumerate(lpips.CHANNELS):
        arrays[f"lin{i}.model.1.weight"] = np.abs(draw((1, c, 1, 1)))
    return arrays


def test_vgg16_has_the_shapes_of_its_layers():
    params = lpips.convert(lpips_arrays())
    x = jax.ShapeDtypeStruct((1, 50, 36, 3), np.float32)
    found = [t.shape for t in jax.eval_shape(lpips.vgg16.taps, params, x)]
    sides = [(50, 36), (25, 18), (12, 9), (6, 4), (3, 2)]
    assert found == [(1, *s, c) for s, c in zip(sides, lpips.CHANNELS, strict=True)]
    dense = {f"dense{i}.w": (i_o[1], i_o[0]) for i, i_o in lpips.vgg16.DENSE.items()}
    dense |= {f"dense{i}.b": i_o[:1] for i, i_o in lpips.vgg16.DENSE.items()}
    params = {n: jax.ShapeDtypeStruct(p.shape, p.dtype) for n, p in params.items()}
    params |= {n: jax.ShapeDtypeStruct(s, np.float32) for n, s in dense.items()}
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
    assert jax.eval_shape(lpips.vgg16.features, params, x).shape == (2, 4096)


def test_lpips_is_the_squared_distance_of_its_features(monkeypatch):
    """And that of scaled directions, by numpy; the activations here are the images themselves."""
    monkeypatch.setattr(lpips.vgg16, "taps", lambda params, x: [x, x[:, ::2, ::2] ** 2])
    a, b = RNG.uniform(0.1, 1, (2, 3, 4, 6, 5)).astype(np.float32)
    w = RNG.uniform(0, 1, (2, 5)).astype(np.float32)
    p, want = {"lin0": w[0], "lin1": w[1]}, np.zeros((3, 2))
    for i, (x, y) in enumerate([(a, b), (a[:, ::2, ::2] ** 2, b[:, ::2, ::2] ** 2)]):
        x, y = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, y))
        want[:, i] = (w[i] * (x - y) ** 2).sum(-1).mean((1, 2))
    np.testing.assert_allclose(lpips.per_layer(p, a, b), want, rtol=1e-4)
    vectors = lpips.features(p, a) - lpips.features(p, b)
    np.testing.assert_allclose((vectors**2).sum(1), want.sum(1), rtol=1e-4)
    maps = lpips.spatial(p, a, b)
    assert maps.shape == (3, 4, 6)


def test_lpips_of_black_activations_has_a_gradient(monkeypatch):
    """A pixel whose activations are all zero has a direction of length zero."""
    monkeypatch.setattr(lpips.vgg16, "taps", lambda params, x: [x])
    x = jnp.asarray(RNG.uniform(0.1, 1, (1, 2, 2, 3))).at[0, 0, 0].set(0.0)
    p = {"lin0": jnp.ones(3)}
    (unit,) = lpips.embeddings(p, x)
    np.testing.assert_allclose(jnp.linalg.norm(unit, axis=-1)[0].ravel(), [0, 1, 1, 1], atol=1e-6)
    distance = lambda x: lpips.per_layer(p, x, x[:, ::-1]).sum()
    value, g = jax.jit(jax.value_and_grad(distance))(x)
    assert np.isfinite(g).all() and value > 0
    np.testing.assert_array_equal(lpips.per_layer(p, x, x), [[0.0]])


def test_random_net_is_the_same_everywhere():
    net = features.load("random")
    assert net.weights_sha256 == random_net.digest(random_net.params())
    assert net.facts()["weights_sha256"] == "3fc15b7dff80dafb"
    x = RNG.integers(0, 256, (4, 20, 20, 3), np.uint8)
    f = np.asarray(net(x))
    assert f.shape == (4, 128) and np.all(np.std(f, 0).max() > 0)
    np.testing.assert_allclose(np.asarray(net.maps(x)).mean((1, 2)), f, atol=1e-6)
    np.testing.assert_allclose(net(x[..., :1]), net(np.repeat(x[..., :1], 3, -1)), atol=1e-6)
    with pytest.raises(ValueError, match="digits-classifier does not end with a spatial mean"):
        features.load("digits-classifier").maps(x)


# ------------------------------------------------------------------------------------------- files


def test_weights_of_another_net_are_refused_with_both_sides():
    dino = {n: np.zeros(s) for _, theirs, s in dinov2._pairs(DINO, dinov2.AUTHORS) for n in theirs}
    with pytest.raises(ValueError) as e:
        features.load("efficientnet_lite0", features.Weights(dino, "0" * 64, "dino.pth"))
    text = str(e.value)
    assert text.startswith(
        "dino.pth: these are no weights of efficientnet_lite0: it has 247 arrays"
    )
    assert "(_conv_stem.weight, " in text and "the file has 34 (cls_token, " in text
    with pytest.raises(ValueError, match=r"inception-2048 needs the whole network in PyTorch's na"):
        features.load("inception", features.Weights({"conv_w": np.zeros(1)}, "0" * 64))


def test_missing_misshapen_and_broken_arrays_are_named():
    expected = {"features.0.weight": (2, 3), "features.0.bias": (2,)}
    whole = {n: np.zeros(s) for n, s in expected.items()}
    assert nets.take("net", {**whole, "n.num_batches_tracked": 0}, expected, [r".*tracked"])
    wrong = {"features.0.weights": np.zeros((2, 3)), "features.0.bias": np.zeros(3)}
    with pytest.raises(ValueError) as e:
        nets.take("net", wrong, expected)
    text = str(e.value)
    assert "missing 1 of 2: features.0.weight (the nearest there is features.0.weights)" in text
    assert "not of net: features.0.weights" in text
    assert "features.0.bias: expected (2,), got (3,)" in text
    with pytest.raises(ValueError, match=r"NaN or infinity in features.0.bias: the weights of net"):
        nets.take("net", {**whole, "features.0.bias": np.array([0, np.nan])}, expected)
    negative = {n: np.zeros(s) for n, s in lpips.vgg16.trunk_shapes("").items()}
    negative |= {f"lin{i}.model.1.weight": -np.ones((1, c, 1, 1))
                 for i, c in enumerate(lpips.CHANNELS)}  # fmt: skip
    with pytest.raises(ValueError, match=r"lin0.model.1.weight has negative weights"):
        lpips.convert(negative)


def test_load_says_what_is_missing_or_too_much():
    for name in features.published():
        with pytest.raises(
            ValueError, match=re.escape(f"{name} needs a file of weights: give --w")
        ):
            features.load(name)
    with pytest.raises(ValueError, match="pixels takes no weights, resizer or scaling of others"):
        features.load("pixels", resizer="area")


def test_preprocessing_can_be_chosen():
    weights = features.Weights(
        {f"{n}_{k}": np.zeros(s if k == "w" else s[:1], np.float32)
         for n, _, _, s in efficientnet.layers() for k in "wb"}
        | {"fc_w": np.zeros((1000, 1280)), "fc_b": np.arange(1000.0)}, "ab" * 32
    )  # fmt: skip
    net = features.load("efficientnet_lite0", weights, resizer="area", scaling="x/127.5-1")
    facts = net.facts()
    assert facts["resizer"] == "area" and facts["scaling"] == "x/127.5-1"
    assert facts["weights_sha256"] == "ab" * 8
    x = jnp.full((1, 448, 448, 3), 255, jnp.uint8)
    np.testing.assert_allclose(features.prepare(x, net.net), np.ones((1, 224, 224, 3)), atol=1e-6)
    # Only the head's bias is left of a network of zeros.
    f = np.zeros((2, 1280), np.float32)
    np.testing.assert_array_equal(net.head(f)[0], np.arange(1000))
    np.testing.assert_array_equal(net.head(f, bias=False), np.zeros((2, 1000)))
    with pytest.raises(ValueError, match="no resizer 'nearest'; the names are"):
        features.load("efficientnet_lite0", weights, resizer="nearest")
    with pytest.raises(ValueError, match="no scaling 'x'; the names are"):
        features.load("efficientnet_lite0", weights, scaling="x")
    with pytest.raises(ValueError, match="no resizer 'area'; this net resizes nothing"):
        features.load("lpips", features.Weights(lpips_arrays(), "0" * 64), resizer="area")
