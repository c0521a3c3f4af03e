#!/usr/bin/env python
"""Trains the built-in feature nets and writes their weights and records to jaxgen/metrics/weights.

    python scripts/train_classifiers.py [digits-classifier fashion-classifier] [--out FOLDER]

AdamW on the cross-entropy with small random affine maps (and mirrors for Fashion-MNIST), a cosine
schedule, and an exponential average of the weights. Everything follows from the seed; the weights
are stored in float16, and the accuracy is that of the stored file on the test split.
"""

import argparse
import functools
import hashlib
import json
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.common.units import from_uint8
from jaxgen.metrics import classifier, features


class Recipe(NamedTuple):
    """How one net is trained; shift in pixels, turn in radians, scale relative."""

    source: str
    epochs: int
    shift: float
    turn: float
    scale: float
    mirror: bool
    batch: int = 128
    rate: float = 2e-3
    smoothing: float = 0.05
    decay: float = 0.998
    seed: int = 0


RECIPES = {
    #                    source, epochs, shift, turn, scale, mirror
    "digits-classifier": Recipe("digits", 150, 0.5, 0.15, 0.08, False),
    "fashion-classifier": Recipe("fashion_mnist", 7, 1.0, 0.03, 0.03, True),
}


def read(source: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, h, w, c) uint8 and labels (n,) int."""
    from jaxgen.data import sources

    images, labels = sources.load(source, split).arrays
    return np.asarray(images), np.asarray(labels).astype(np.int32)


def augment(key: jax.Array, x: jax.Array, recipe: Recipe) -> jax.Array:
    """One image (h, w, c) under a random small affine map, bilinear, edges continued."""
    k = jax.random.split(key, 4)
    h, w, _ = x.shape
    turn = recipe.turn * jax.random.normal(k[0])
    zoom = jnp.exp(recipe.scale * jax.random.normal(k[1]))
    dy, dx = recipe.shift * jax.random.uniform(k[2], (2,), minval=-1.0)
    if recipe.mirror:
        x = jnp.where(jax.random.bernoulli(k[3]), x[:, ::-1], x)
    y0, x0 = jnp.mgrid[:h, :w]
    y0, x0 = y0 - (h - 1) / 2, x0 - (w - 1) / 2
    rows = zoom * (jnp.cos(turn) * y0 - jnp.sin(turn) * x0) + dy + (h - 1) / 2
    cols = zoom * (jnp.sin(turn) * y0 + jnp.cos(turn) * x0) + dx + (w - 1) / 2
    warp = lambda c: jax.scipy.ndimage.map_coordinates(c, [rows, cols], order=1, mode="nearest")
    return jax.vmap(warp, in_axes=-1, out_axes=-1)(x)


def train(name: str, recipe: Recipe, images: np.ndarray, labels: np.ndarray) -> classifier.Params:
    """The averaged weights, with the gain set so that features have mean square 1."""
    spec = features.SPECS[name]
    steps = recipe.epochs * (len(images) // recipe.batch)
    schedule = optax.warmup_cosine_decay_schedule(0.0, recipe.rate, steps // 20, steps)
    optimizer = optax.adamw(schedule, weight_decay=1e-2)
    key = jax.random.key(recipe.seed)

    def loss(params: classifier.Params, x: jax.Array, y: jax.Array) -> jax.Array:
        # The gain stays 1 while training: it would only rescale the head.
        params = params | {"gain": jnp.ones(())}
        scores = classifier.logits(params, classifier.features(params, x, spec))
        target = optax.smooth_labels(jax.nn.one_hot(y, spec.classes), recipe.smoothing)
        return optax.softmax_cross_entropy(scores, target).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, step, x, y):
        params, opt, average = state
        keys = jax.random.split(jax.random.fold_in(key, step), len(x))
        x = jax.vmap(lambda k, z: augment(k, z, recipe))(keys, from_uint8(x))
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, opt = optimizer.update(grads, opt, params)
        params = optax.apply_updates(params, updates)
        decay = jnp.minimum(recipe.decay, (1 + step) / (10 + step))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
        return (params, opt, average), value

    params = classifier.init(key, spec)
    state = (params, optimizer.init(params), jax.tree.map(jnp.copy, params))
    rng = np.random.default_rng(recipe.seed)
    step = 0
    for epoch in range(recipe.epochs):
        order = rng.permutation(len(images))
        for i in range(0, len(order) - recipe.batch + 1, recipe.batch):
            rows = order[i : i + recipe.batch]
            state, value = update(state, step, images[rows], labels[rows])
            step += 1
        if epoch % max(1, recipe.epochs // 10) == 0:
            print(f"  epoch {epoch + 1}/{recipe.epochs}: loss {float(value):.3f}", flush=True)
    average = state[2] | {"gain": jnp.ones(())}
    sample = from_uint8(jnp.asarray(images[:2000]))
    size = jnp.sqrt(jnp.mean(classifier.features(average, sample, spec) ** 2))
    return average | {"gain": 1 / size, "head_w": average["head_w"] * size}


def accuracy(net: features.FeatureNet, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose largest logit is the label's."""
    parts = [np.asarray(net.logits(images[i : i + 500])) for i in range(0, len(images), 500)]
    return float(np.mean(np.concatenate(parts).argmax(1) == labels))


def main() -> None:
    """Trains what is named, writes it and reports the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(RECIPES), help=f"of {list(RECIPES)}")
    parser.add_argument("--out", type=pathlib.Path, default=features.WEIGHTS)
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(RECIPES)):
        parser.error(f"unknown {unknown}; the nets are {list(RECIPES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        recipe = RECIPES[name]
        images, labels = read(recipe.source, "train")
        print(f"{name}: {len(images)} images of {recipe.source}, seed {recipe.seed}", flush=True)
        start = time.perf_counter()
        params = train(name, recipe, images, labels)
        seconds = time.perf_counter() - start
        path = args.out / f"{name}.npz"
        np.savez(path, **{k: np.asarray(v, np.float16) for k, v in params.items()})
        record = {
            "name": name,
            "script": "scripts/train_classifiers.py",
            "data": f"{recipe.source}, train split",
            "train_images": len(images),
            "recipe": recipe._asdict(),
            "dtype": "float16",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        test = read(recipe.source, "test")
        record["test_images"] = len(test[0])
        record["test_accuracy"] = round(accuracy(features.load(name, folder=args.out), *test), 4)
        path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        print(
            f"{name}: test accuracy {record['test_accuracy']:.2%} on {len(test[0])} images, "
            f"{path.stat().st_size / 1e3:.0f} kB, {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
