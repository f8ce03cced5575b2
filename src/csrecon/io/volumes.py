"""NIfTI volumes as axial slices, with nibabel (the extra `mri`)."""

import gzip
import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError, UsageError
from csrecon.io.files import check_expansion, reading, require_file

SUFFIXES = (".nii.gz", ".nii")

Voxel = tuple[float, float, float]
"""Distances in mm from slice to slice, row to row and column to column."""

UNIT: Voxel = (1.0, 1.0, 1.0)

_DESCRIBED = 79  # bytes of a description


def suffix(path: Path) -> str:
    """The suffix of a NIfTI file as it is spelled; empty for other files."""
    name = path.name.lower()
    found = next((len(known) for known in SUFFIXES if name.endswith(known)), 0)
    return path.name[len(name) - found :] if found else ""


def is_volume(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return bool(suffix(path))


def check_installed(path: Path) -> Any:
    """The module nibabel, which reads and writes `path`.

    Raises:
        UsageError: it is missing.
    """
    try:
        import nibabel  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(f"{path}: NIfTI needs nibabel: pip install 'csrecon[mri]'.") from error
    return nibabel


def write(path: Path, slices: NDArray[Any], voxel: Voxel = UNIT, described: str = "") -> None:
    """Write slices (S, H, W) as float32; `read` gives the same ones, in the same order.

    Their rows go from the front to the back and their columns from left to right: the affine is
    diagonal, with the sizes of a voxel, and its origin is the first voxel. What is described goes
    into the header. A path that ends in .gz is compressed.

    Raises:
        UsageError: nibabel is missing.
    """
    nibabel = check_installed(path)
    values = np.ascontiguousarray(slices[:, ::-1].transpose(2, 1, 0), np.float32)
    made = nibabel.Nifti1Image(values, np.diag([*reversed(voxel), 1.0]))
    made.header.set_xyzt_units("mm")
    made.header["descrip"] = described.encode()[:_DESCRIBED]
    content: bytes = made.to_bytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix.lower() == ".gz" else content)


def read(path: Path) -> NDArray[np.float32]:
    """Axial slices (S, H, W) from below to above, anterior upwards, divided by the largest value.

    The last volume is kept in memory.

    Raises:
        InputError: damaged, not a volume of three axes, or values that are no gray levels.
        UsageError: nibabel is missing.
    """
    require_file(path)
    with reading(path):
        status = path.stat()
    return _decoded(path.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _decoded(path: Path, _changed: int, _stored_bytes: int) -> NDArray[np.float32]:
    values = canonical(path)
    if values.min() < 0 or not values.any():
        raise InputError(f"{path}: expected gray levels from 0 on, and one above 0.")
    return np.ascontiguousarray(values.transpose(2, 1, 0)[:, ::-1] / values.max())


def canonical(path: Path) -> NDArray[np.float32]:
    """The values of a volume as they are, with axes to the right, to the front and up.

    Raises:
        InputError: damaged, not a volume of three axes, or values that are not finite.
        UsageError: nibabel is missing.
    """
    nibabel = check_installed(path)
    require_file(path)
    try:
        with reading(path):
            stored: Any = nibabel.load(path)
            check_expansion(4 * math.prod(stored.shape), path.stat().st_size, str(path))
            upright: Any = nibabel.as_closest_canonical(stored)
            values = np.asarray(upright.dataobj, np.float32)
    except (nibabel.filebasedimages.ImageFileError, ValueError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a readable NIfTI file ({error}).") from error
    if values.ndim != 3 or 0 in values.shape:
        raise InputError(f"{path}: shape {values.shape}; expected a volume of three axes.")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: expected finite gray levels.")
    return values
