"""Reads MATLAB and HDF5 files in a separate process: python -m csrecon.io.foreign FILE ARRAYS.npz

A damaged file can crash SciPy's and HDF5's readers, which no `except` catches, so
`csrecon.io.arrays` runs this module in its own process. Warnings go to stderr, one per line. For
an unreadable file it prints one line and exits with the code of an InputError.
"""

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, matlab

from csrecon.errors import InputError
from csrecon.io import files

_DEPTH = 8  # nested groups that are searched in an HDF5 file
_MATLAB_HDF5 = b"MATLAB 7.3"
_MATLAB_COMPLEX = ("real", "imag")


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The real numeric arrays of a .mat or .h5 file, by name.

    Raises:
        InputError: a damaged or hostile file, or another file format.
    """
    with path.open("rb") as stream:
        head = stream.read(len(_MATLAB_HDF5))
    old = path.suffix.lower() == ".mat" and head != _MATLAB_HDF5
    return files.numbers(_matlab5(path) if old else _hdf5(path))


def _matlab5(path: Path) -> dict[str, Any]:
    try:
        return dict(loadmat(path))
    except (
        ValueError,
        TypeError,
        LookupError,
        NotImplementedError,
        OSError,
        MemoryError,
        OverflowError,
        zlib.error,
        matlab.MatReadError,
    ) as error:
        raise InputError(f"{path}: not a readable MATLAB file ({error}).") from error


def _hdf5(path: Path) -> dict[str, Any]:
    """Every numeric dataset by its path in the file; MATLAB stores arrays transposed."""
    try:
        with h5py.File(path, "r") as file:
            return {
                name: _values(dataset).T if "MATLAB_class" in dataset.attrs else _values(dataset)
                for name, dataset in _datasets(file, path)
            }
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, MemoryError) as error:
        raise InputError(f"{path}: not a readable HDF5 file ({error}).") from error


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biufc" or dtype.names == _MATLAB_COMPLEX


def _values(dataset: h5py.Dataset) -> NDArray[Any]:
    """The values of a dataset; MATLAB stores a complex number as two named ones."""
    values: NDArray[Any] = dataset[()]
    if values.dtype.names != _MATLAB_COMPLEX:
        return values
    return np.asarray(values["real"] + 1j * values["imag"])


def _datasets(
    group: h5py.Group, path: Path, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, h5py.Dataset]]:
    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            _warn(f"{path}: {name!r} is a link, which csrecon does not follow.")
            continue
        item = group[key]
        if isinstance(item, h5py.Group):
            if depth < _DEPTH and not key.startswith("#"):
                yield from _datasets(item, path, f"{name}/", depth + 1)
        elif isinstance(item, h5py.Dataset) and _is_numeric(item.dtype) and item.shape:
            if item.is_virtual or item.external:
                _warn(f"{path}: {name!r} is stored in another file, which is not read.")
                continue
            files.check_expansion(item.nbytes, path.stat().st_size, f"{path}[{name}]")
            yield name, item


def _warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(source: str, target: str) -> int:
    """Read `source` and write its arrays and their names to `target`."""
    try:
        found = read(Path(source))
    except InputError as error:
        _warn(" ".join(str(error).split()))
        return error.exit_code
    arrays = {f"a{index}": value for index, value in enumerate(found.values())}
    files.write_npz(Path(target), {"names": np.array([*found], dtype=np.str_), **arrays})
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
