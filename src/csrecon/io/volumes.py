"""NIfTI volumes as axial slices, with nibabel (the extra `mri`)."""

import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError, UsageError
from csrecon.io.files import check_expansion, reading, require_file

SUFFIXES = (".nii", ".nii.gz")


def is_volume(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


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
    try:
        import nibabel  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(f"{path}: NIfTI needs nibabel: pip install 'csrecon[mri]'.") from error
    require_file(path)
    try:
        with reading(path):
            stored: Any = nibabel.load(path)
            check_expansion(4 * math.prod(stored.shape), path.stat().st_size, str(path))
            upright: Any = nibabel.as_closest_canonical(stored)  # type: ignore[no-untyped-call]
            values = np.asarray(upright.dataobj, np.float32)
    except (nibabel.filebasedimages.ImageFileError, ValueError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a readable NIfTI file ({error}).") from error
    if values.ndim != 3 or 0 in values.shape:
        raise InputError(f"{path}: shape {values.shape}; expected a volume of three axes.")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: expected finite gray levels.")
    return values
