"""Experiments: each file's `get_config(arg)` returns the configuration of one run."""
