"""jaxgen: generators, score networks and denoisers in JAX on one sharded training step."""

__version__ = "0.1.0.dev0"
