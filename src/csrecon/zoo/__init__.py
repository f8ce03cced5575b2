"""The model zoo: cards, weights, data sets; models are loaded by name, path or hub address."""

from csrecon.zoo.loading import identity, is_solver, load, split_name, split_names

__all__ = ["identity", "is_solver", "load", "split_name", "split_names"]
