"""The authors' checkpoints -> networks of csrecon.

The `.pkl` files are read by PyTorch's restricted unpickler, which builds tensors and the few
NumPy types that the recorded training losses need, and refuses everything else.
"""

import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct  # the constructor of a pickled array
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from csrecon.errors import InputError, ModelError, UsageError, enough_memory
from csrecon.io.files import check_expansion, require_file
from csrecon.reconstructors.blueprint import MOST_WEIGHTS, Blueprint, Part, Task
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.sensing.operators import Phi

_ALLOWED_TYPES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.ndarray,
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
]
# What PyTorch's reader raises on bytes that are not a checkpoint, or that need code to run.
_FILE_FAULTS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
    NotImplementedError,
    zipfile.BadZipFile,
    InputError,
)
_PAPER_MAX_IPL = 12

# Their key -> ours, in the order tried. `\1` is the layer (few digits: it may be
# anything in a hostile file), `\2` the residual unit.
_KEYS = (
    (r"fcs\.(\d{1,3})\.lambda_step", r"blocks.\1.rho"),
    (r"fcs\.(\d{1,3})\.soft_thr", r"blocks.\1.threshold"),
    (r"fcs\.(\d{1,3})\.head_conv\.(weight|bias)", r"blocks.\1.head.\2"),
    (r"fcs\.(\d{1,3})\.tail_conv\.(weight|bias)", r"blocks.\1.tail.\2"),
    (
        r"fcs\.(\d{1,3})\.ResidualBlocks\.(\d)\.(conv[12])\.(weight|bias)",
        r"blocks.\1.residual.\2.\3.\4",
    ),
    (r"fcs\.0\.ResidualBlocks\.0\.res_scale\.(0|2)\.(weight|bias)", r"modulation.units.0.\1.\2"),
    (r"fcs\.0\.ResidualBlocks\.0\.res_scale\.(weight|bias)", r"modulation.linear.\1"),
    (r"fcs\.(\d{1,3})\.conv_D", r"blocks.\1.head.weight"),
    (r"fcs\.(\d{1,3})\.conv1_forward", r"blocks.\1.analysis.0.weight"),
    (r"fcs\.(\d{1,3})\.conv2_forward", r"blocks.\1.analysis.1.weight"),
    (r"fcs\.(\d{1,3})\.conv1_backward", r"blocks.\1.synthesis.0.weight"),
    (r"fcs\.(\d{1,3})\.conv2_backward", r"blocks.\1.synthesis.1.weight"),
    (r"fcs\.(\d{1,3})\.conv_G", r"blocks.\1.tail.weight"),
)
_REPEATED = re.compile(r"fcs\.\d+\.ResidualBlocks\.\d+\.res_scale\.")


def plain(path: Path) -> Any:
    """What a file of torch.save holds: tensors, numbers, texts, and lists and mappings of them.

    Raises:
        InputError: no such file.
        ModelError: not such a file, or one that needs any code to run.
        ResourceError: out of memory.
    """
    require_file(path)
    try:
        # From a stream: given a path, torch.load may choose another reader by its suffix.
        with (
            path.open("rb") as stream,
            torch.serialization.safe_globals(_ALLOWED_TYPES),
            enough_memory(str(path)),
        ):
            if zipfile.is_zipfile(stream):
                for member in zipfile.ZipFile(stream).infolist():
                    check_expansion(member.file_size, member.compress_size, str(path))
            stream.seek(0)
            return torch.load(stream, map_location="cpu", weights_only=True)
    except _FILE_FAULTS as error:
        raise ModelError(f"{path}: not a checkpoint that can be read safely ({error}).") from error


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict of one of the authors' `.pkl` files, with their own key names.

    Raises:
        InputError: no such file.
        ModelError: as in `plain`, or other weights than finite, dense, real numbers.
        ResourceError: out of memory.
    """
    content = plain(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path}: holds no network weights.")
    for key, value in state.items():
        if not _are_weights(value):
            raise ModelError(f"{path}: {str(key)[:100]!r} holds no finite, dense, real numbers.")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _are_weights(value: Tensor) -> bool:
    dense = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not dense or value.is_complex() or value.numel() > MOST_WEIGHTS:
        return False
    return bool(torch.isfinite(value).all())


def _renamed(state: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, replacement in _KEYS:
            match = re.fullmatch(pattern, key)
            if match:
                name = match.expand(replacement)
                scalar = name.endswith((".rho", ".threshold"))
                if scalar and value.numel() != 1:
                    raise ModelError(f"{label}: {key!r} has {value.numel()} values, not one.")
                ours[name] = value.reshape(()) if scalar else value
                break
        else:
            if not _REPEATED.match(key):  # the shared modulation is repeated in every layer
                raise ModelError(f"{label}: unexpected weights {key!r}.")
    if not any(key.startswith("blocks.") for key in ours):
        raise ModelError(f"{label}: holds no network weights.")
    return ours


def _blueprint(
    state: dict[str, Tensor], ipl: int, ratios: tuple[float, float], task: Task
) -> Blueprint:
    layers = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    ista = any(".analysis." in key for key in state)
    recursive = any(key.startswith("modulation.units") for key in state)
    return Blueprint.model_validate(
        {
            "task": task,
            "block": {"name": "ista-net-plus" if ista else "coast"},
            "modulation": {"name": "none" if ista else "rfmu" if recursive else "ratio"},
            "recursion": {
                "schedule": (ipl,) * layers,
                "blockwise": ista and task == "compressive-sensing",
            },
            "trained": {
                "ipl": ipl,
                "max_ipl": 1 if ipl == 1 else max(ipl, _PAPER_MAX_IPL),
                "ratios": ratios,
            },
        }
    )


def convert(
    path: Path,
    ipl: int,
    ratios: tuple[float, float] = (0.1, 0.5),
    phi: Phi | None = None,
    start: NDArray[Any] | None = None,
    task: Task = "compressive-sensing",
) -> tuple[Unfolding, Blueprint]:
    """Read one of the authors' COAST, R-COAST or ISTA-Net+ checkpoints.

    Args:
        path: the `.pkl` file.
        ipl: iterations per layer it was trained with (4 for the recursive ones, else 1); the
            file does not say.
        ratios: smallest and largest ratio it was trained with.
        phi: ISTA-Net+: the Φ it was trained with.
        start: ISTA-Net+: the matrix Q (n, m) that it starts from, fitted to that Φ.
        task: `mri` for ISTA-Net+ trained with a mask of k-space: it starts from Aᵀy, and a mask
            has neither Φ nor Q. The file does not say.

    Raises:
        UsageError: ISTA-Net+ for blocks without its Φ and Q, or another network with them.
        InputError: no such file, or a Q that does not fit Φ.
        ModelError: a file of another network, or one that cannot be read safely.
    """
    state = _renamed(read_checkpoint(path), str(path))
    try:
        blueprint = _blueprint(state, ipl, ratios, task)
    except (ValidationError, OverflowError) as error:
        raise ModelError(f"{path}: its weights describe no network: {error}") from error
    architecture = blueprint.block.name
    bound = blueprint.recursion.blockwise
    if bound != (phi is not None and start is not None):
        raise UsageError(
            f"{path}: {architecture} "
            + (
                "works only with the Φ and the start matrix Q of its training: give both."
                if bound
                else "starts from Aᵀy for any operator: leave out Φ and Q."
            )
        )
    if phi is not None and start is not None:
        m, n = phi.matrix.shape
        if start.shape != (n, m):
            raise InputError(f"Q of shape {start.shape}: expected ({n}, {m}) for this Φ.")
        state["start.q"] = torch.from_numpy(start.astype(np.float32))
        ratios = (m / n, m / n)
        blueprint = blueprint.model_copy(
            update={
                "start": Part.model_validate(
                    {"name": "matrix", "m": m, "n": n, "phi_sha256": phi.sha256}
                ),
                "trained": replace(blueprint.trained, ratios=ratios),
            }
        )
    network = blueprint.build()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path}: its weights do not fit {architecture}: {error}") from error
    return network.eval(), blueprint
