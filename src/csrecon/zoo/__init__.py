"""The model zoo: cards, weights, data sets; models are loaded by name, path or hub address."""

from csrecon.zoo.loading import (
    default,
    denoiser,
    identity,
    is_solver,
    load,
    split_name,
    split_names,
)

__all__ = ["default", "denoiser", "identity", "is_solver", "load", "split_name", "split_names"]
