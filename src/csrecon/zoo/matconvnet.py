"""MATLAB files of MatConvNet -> networks of csrecon.

A file of the DnCNN authors is a MATLAB 7.3 (HDF5) file with a structure `net`, whose cell array
`layers` has a structure for each convolution and each ReLU. Of a convolution, the cell array
`weights` has the kernel (H, W, inputs, outputs), without the last axis for one output, and the
bias. Batch normalization is merged into them. MatConvNet correlates, as PyTorch does.

The file is read as arrays in a process of its own; nothing in it is run.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrecon.errors import ModelError
from csrecon.io import arrays
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.reconstructors.unfolding import Unfolding

_WEIGHTS = re.compile(r"net/layers/(\d{1,4})/weights/([01])")
_AXES = 4  # of a kernel


def convert(path: Path, blueprint: Blueprint) -> Unfolding:
    """The DnCNN of a blueprint with the weights of a MATLAB file, in evaluation mode.

    Raises:
        InputError: no such file, or not a readable MATLAB 7.3 file.
        ModelError: other weights than those of the blueprint.
    """
    found: dict[int, dict[str, NDArray[Any]]] = {}
    for name, values in arrays.nested(path).items():
        if match := _WEIGHTS.fullmatch(name):
            part = "bias" if match[2] == "1" else "weight"
            found.setdefault(int(match[1]), {})[part] = values
    state = {
        f"blocks.0.convs.{index}.{part}": _tensor(part, values)
        for index, layer in enumerate(sorted(found))
        for part, values in found[layer].items()
    }
    network = blueprint.build()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"{path}: its weights do not fit {blueprint.block.name}: {error}"
        ) from error
    return network.eval()


def _tensor(part: str, values: NDArray[Any]) -> Tensor:
    """A kernel (outputs, inputs, H, W) or a bias (outputs,)."""
    if part == "bias":
        ordered = values.reshape(-1)
    else:
        ordered = values.reshape(*values.shape, *[1] * (_AXES - values.ndim)).T.swapaxes(-1, -2)
    return torch.from_numpy(np.ascontiguousarray(ordered, dtype=np.float32))
