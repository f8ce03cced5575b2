"""The model zoo: cards, weights, data sets; models are loaded by name, path or hub address."""

from csrecon.zoo.loading import denoiser, identity, is_solver, load, split_name, split_names

__all__ = ["denoiser", "identity", "is_solver", "load", "split_name", "split_names"]
