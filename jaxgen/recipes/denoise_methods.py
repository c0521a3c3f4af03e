"""The methods of the recipe `denoise`: what each trains, with which loss, and how it restores."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.networks.blindspot import BlindSpot
from jaxgen.noise import operators
from jaxgen.objectives import (
    blindspot,
    blindspot_impulse,
    measured,
    noise2noise,
    noise2self,
    noise2void,
)
from jaxgen.objectives.noise2noise import Seen
from jaxgen.recipes.denoise_setup import Init, Setup, choose

PARAMETERS = ("known", "global", "per_image")


class Method(NamedTuple):
    """players: name -> init of their params. loss(params, x, keys, context) -> (b,), metrics.

    x: clean images, keys: those of the noise. restore(params, seen) -> image; it reads the level
    of what was seen if `knows`.
    """

    players: Mapping[str, Init]
    loss: Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]]
    restore: Callable[[Any, Seen], jax.Array]
    knows: bool = False


def make(setup: Setup) -> Method:
    """The method that config.loss.method names.

    Raises:
      ValueError: for an unknown one, or settings that do not fit it.
    """
    name = setup.config.loss.method
    build = choose("config.loss.method", name, METHODS)
    if isinstance(setup.noise, operators.Linear) != (name == "measured") and name != "noise2clean":
        # The mean of reconstructions from measurements is no image: it is what A lets through.
        what = "operator" if name != "measured" else "noise"
        raise ValueError(
            f"method {name!r} does not fit the {what} {setup.config.noise.name!r}: measurements by "
            "a linear operator are for 'measured' and 'noise2clean', and 'measured' for them alone"
        )
    return build(setup)


def _restorer(setup: Setup) -> tuple[dict[str, Init], Callable[[Any, Seen], jax.Array]]:
    """The player of a network from images to images, and its restoration."""
    network, tonemapped = setup.network(), setup.config.loss.tonemap

    def restore(params: Any, seen: Seen) -> jax.Array:
        y = seen.y
        if tonemapped:
            y = 2.0 * noise2noise.tonemap((y + 1.0) / 2.0) - 1.0
        return seen.known(network.apply({"params": params["restorer"]}, y))

    return {"restorer": setup.init(network)}, restore


def _regression(objective: Callable[..., jax.Array]) -> Callable[[Setup], Method]:
    def build(setup: Setup) -> Method:
        players, restore = _restorer(setup)
        noise2noise.check(setup.config.loss.norm)

        def loss(params, x, keys, context):
            f = lambda seen: restore(params, seen)
            gamma = noise2noise.exponent(context.nimg / setup.images)
            return objective(f, setup.observe, x, keys, setup.config.loss.norm, gamma), {}

        return Method(players, loss, restore)

    return build


def _measured(setup: Setup) -> Method:
    players, restore = _restorer(setup)

    def loss(params, x, keys, context):
        del context
        return measured.loss(lambda y: restore(params, Seen(y)), setup.noise, x, keys), {}

    return Method(players, loss, restore)


def _noise2void(setup: Setup) -> Method:
    players, restore = _restorer(setup)
    how = {"box": setup.config.loss.box, "radius": setup.config.loss.radius}
    noise2void.check(**how)

    def loss(params, x, keys, context):
        del context
        noise, masks = rng.split(keys, 2)
        f = lambda y: restore(params, Seen(y))
        return noise2void.loss(f, setup.observe(noise, x).y, masks, **how), {}

    return Method(players, loss, restore)


def _noise2self(setup: Setup) -> Method:
    players, restore = _restorer(setup)
    n = setup.config.loss.grid
    noise2self.check(n)

    def loss(params, x, keys, context):
        del context
        noise, masks = rng.split(keys, 2)
        f = lambda y: restore(params, Seen(y))
        return noise2self.loss(f, setup.observe(noise, x).y, masks, n), {}

    def invariant(params, seen):
        return noise2self.invariant(lambda y: restore(params, Seen(y)), seen.y, n)

    return Method(players, loss, invariant if setup.config.loss.invariant else restore)


class Likelihood(NamedTuple):
    """What the blind-spot posterior needs of a noise.

    unit: the known parameter of a level. std(parameter, mean, learned) -> sigma_n, or None for
    impulse noise, whose parameter goes into its loss and posterior mean as it is.
    """

    unit: Callable[[jax.Array], jax.Array]
    std: Callable[[jax.Array, jax.Array, bool], jax.Array] | None


LIKELIHOODS = {
    "gaussian": Likelihood(lambda sigma: sigma / 255.0, blindspot.gaussian_std),
    "poisson": Likelihood(lambda lam: lam, blindspot.poisson_std),
    "impulse": Likelihood(lambda alpha: alpha, None),
}


def _blindspot(setup: Setup) -> Method:
    c, how = setup.channels, setup.config.loss
    covariance, learned = how.covariance, how.parameter != "known"
    network = setup.network(blindspot.maps(c, covariance))
    if not (isinstance(network, BlindSpot) and network.blind):
        raise ValueError(
            "method 'blindspot' needs a network that does not see a pixel's own value: "
            "config.model.network = 'blindspot' with blind = True"
        )
    if how.parameter not in PARAMETERS:
        raise ValueError(f"config.loss.parameter is one of {PARAMETERS}, got {how.parameter!r}")
    of = choose("config.noise.name (for method 'blindspot')", setup.config.noise.name, LIKELIHOODS)
    players = {"restorer": setup.init(network)}
    # Training is blind for every pixel. Restoring may reflect: nothing is learned from the copies.
    restorer = network.clone(reflect=how.reflect)
    if covariance == "none":
        return _mean_only(setup, players, network, restorer)
    if how.parameter == "global":
        players["noise"] = lambda key: {"raw": jnp.zeros(())}
    elif how.parameter == "per_image":
        fields = {"blind": False, "zero_last": True, "out_channels": 1, "name": None}
        estimator = network.clone(**fields)
        players["noise"] = setup.init(estimator)

    def parameter(params: Any, y: jax.Array, level: jax.Array | None) -> jax.Array:
        """(b,), learned from what the network sees, or known."""
        if not learned:
            return of.unit(level)
        if how.parameter == "global":
            return blindspot.parameter(jnp.broadcast_to(params["noise"]["raw"], y.shape[:1]))
        raw = estimator.apply({"params": params["noise"]}, y)
        return blindspot.parameter(raw.mean((1, 2, 3)))

    def read(
        network: BlindSpot, params: Any, seen: Seen
    ) -> tuple[blindspot.Prior, jax.Array, jax.Array]:
        """The prior, y in [0, 1], and the parameter."""
        out = network.apply({"params": params["restorer"]}, seen.y)
        return (
            blindspot.prior(out, c),
            (seen.y + 1.0) / 2.0,
            parameter(params, seen.y, seen.level),
        )

    def loss(params, x, keys, context):
        del context
        prior, y, p = read(network, params, setup.observe(keys, x))
        if of.std:
            std = of.std(p, prior.mean, learned)
            each = blindspot.loss(prior, y, std, learned)
        else:
            each = blindspot_impulse.loss(prior, y, p)
        return each.mean((1, 2)), {"parameter": p, "prior_std": prior.std.mean((1, 2))}

    def restore(params, seen):
        prior, y, p = read(restorer, params, seen)
        if of.std:
            mean = blindspot.posterior_mean(prior, y, of.std(p, prior.mean, learned))
        else:
            mean = blindspot_impulse.posterior_mean(prior, y, p)
        return 2.0 * mean - 1.0

    return Method(players, loss, restore, knows=not learned)


def _mean_only(
    setup: Setup, players: dict[str, Init], network: BlindSpot, restorer: BlindSpot
) -> Method:
    """The network's prediction is the result, and the noisy image itself its target."""
    norm = "l0" if setup.config.noise.name == "impulse" else "l2"

    def restore(params, seen):
        return restorer.apply({"params": params["restorer"]}, seen.y)

    def loss(params, x, keys, context):
        y = setup.observe(keys, x).y
        gamma = noise2noise.exponent(context.nimg / setup.images)
        out = network.apply({"params": params["restorer"]}, y)
        return noise2noise.regression(out, y, norm, gamma), {}

    return Method(players, loss, restore)


METHODS = {
    "noise2noise": _regression(noise2noise.loss),
    "noise2clean": _regression(noise2noise.supervised),
    "measured": _measured,
    "noise2void": _noise2void,
    "noise2self": _noise2self,
    "blindspot": _blindspot,
}
