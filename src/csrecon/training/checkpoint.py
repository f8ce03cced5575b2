"""Checkpoints of a run: the full state for an exact continuation, written atomically."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from csrecon.errors import InputError, ModelError, enough_memory
from csrecon.io import documents, files
from csrecon.zoo import published

FILE = "checkpoint.pt"
RECIPE = "recipe.json"


def fingerprint(recipe: BaseModel) -> str:
    """Digest of a recipe or other options, which a run shares with what continues it."""
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()


def save(
    folder: Path, recipe: BaseModel, state: dict[str, Any], instead_of: Sequence[Path] = ()
) -> None:
    """Write the state of a run; the previous checkpoint is replaced once it is complete.

    Args:
        folder: of the run.
        recipe: of the run, or the options of another kind of training.
        state: tensors, numbers and lists.
        instead_of: other files of an earlier run, removed once the checkpoint is in place.

    Raises:
        ResourceError: it cannot be written; the previous checkpoint is intact.
    """
    content = io.BytesIO()  # of a cut file PyTorch says "unexpected pos", as of a wrong state
    with enough_memory(str(folder / FILE)):
        torch.save({"recipe": fingerprint(recipe), **state}, content)
    with files.new_files(folder / FILE, overwrite=True) as (temporary,):
        temporary.write_bytes(content.getbuffer())
    for path in instead_of:
        path.unlink(missing_ok=True)


def load(folder: Path, recipe: BaseModel) -> dict[str, Any]:
    """The state of a run: tensors, numbers and lists only, nothing that could run code.

    Raises:
        InputError: there is no checkpoint.
        ModelError: it is damaged, or of another recipe.
    """
    path = folder / FILE
    state: dict[str, Any] = published.plain(path)
    if not isinstance(state, dict) or "recipe" not in state:
        raise InputError(f"{path}: not a checkpoint of csrecon.")
    if state["recipe"] != fingerprint(recipe) and not _is_described(folder, recipe):
        raise ModelError(
            f"{path}: belongs to a run with another recipe or other options; continue it with "
            "the same, or start a new run with another output."
        )
    return state


def _is_described(folder: Path, recipe: BaseModel) -> bool:
    """Whether recipe.json beside the checkpoint, maybe of an earlier release, is this recipe."""
    path = folder / RECIPE
    try:
        found = documents.content(path, documents.LARGEST)
        return type(recipe).model_validate_json(found) == recipe
    except (InputError, ValueError):
        return False
