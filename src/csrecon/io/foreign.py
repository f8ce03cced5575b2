"""Reads MATLAB and HDF5 files in a separate process.

    python -P -m csrecon.io.foreign FILE SECONDS [NAME [cells]] > ARRAYS.npz

A damaged file can crash SciPy's and HDF5's readers, which no `except` catches, or keep them busy
without end, so `csrecon.io.arrays` runs this module in its own process, which has bounds on its
memory and its time. The arrays go to stdout as .npz, warnings to stderr, one per line. For an
unreadable file it prints one line and exits with the code of the error.
"""

import contextlib
import itertools
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, matlab

from csrecon.errors import CsreconError, InputError
from csrecon.io import files, ismrmrd

_DEPTH = 8  # nested groups that are searched in an HDF5 file
_MOST_NAMES = 10_000  # in an HDF5 file that is read without a name
_LONGEST_NAMES = 2**20  # characters of all of them
_MATLAB_HDF5 = b"MATLAB 7.3"
_MATLAB_COMPLEX = ("real", "imag")
_MATLAB_HEADER, _MATLAB_COMPRESSED = 128, 15
_CHUNK = 2**18
_COPIES, _ALWAYS_FREE = 4, 2**29  # of the arrays, and for what libraries allocate

Arrays = dict[str, NDArray[Any]]


def read(path: Path, only: str | None = None, cells: bool = False) -> Arrays:
    """The numeric arrays of a .mat or .h5 file by name, or only the one of this name.

    Those of ISMRMRD raw data are `kspace`, and `voxel_mm` where the header says it.

    Args:
        path: the file.
        only: a name.
        cells: whether the elements of cell arrays of MATLAB 7.3 are read too, as NAME/INDEX.

    Raises:
        InputError: a damaged or hostile file, or another file format.
    """
    with path.open("rb") as stream:
        head = stream.read(len(_MATLAB_HDF5))
    old = path.suffix.lower() == ".mat" and head != _MATLAB_HDF5
    return files.numbers(_matlab5(path, only) if old else _hdf5(path, only, cells))


def _matlab5(path: Path, only: str | None) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            _check_compressed(stream, path, only)
        return dict(loadmat(path, variable_names=None if only is None else [only]))
    except (
        ValueError,
        TypeError,
        LookupError,
        NotImplementedError,
        OSError,
        MemoryError,
        OverflowError,
        struct.error,
        zlib.error,
        matlab.MatReadError,
    ) as error:
        raise InputError(f"{path}: not a readable MATLAB file ({error}).") from error


def _check_compressed(stream: IO[bytes], path: Path, only: str | None) -> None:
    """Raise InputError if the compressed variables that are asked for expand to too much."""
    header = stream.read(_MATLAB_HEADER)
    if len(header) < _MATLAB_HEADER or 0 in header[:4]:
        return  # version 4 compresses nothing
    order = ">" if header[-2:] == b"MI" else "<"
    stored, expanded = path.stat().st_size, 0
    while len(tag := stream.read(8)) == 8:
        kind, size = struct.unpack(f"{order}II", tag)
        following = stream.tell() + size
        if kind == _MATLAB_COMPRESSED:
            contents = _inflated(stream, size)
            start = next(contents, b"")  # a name is at the beginning
            wanted = only is None or only.encode("latin-1", "replace") in start
            for content in itertools.chain([start], contents) if wanted else ():
                expanded += len(content)
                files.check_expansion(expanded, stored, str(path))
        stream.seek(following)


def _inflated(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """The content of a zlib stream in chunks."""
    decompress = zlib.decompressobj()
    while size > 0 and (content := stream.read(min(size, _CHUNK))):
        size -= len(content)
        while content:
            yield decompress.decompress(content, _CHUNK)
            content = decompress.unconsumed_tail


def _hdf5(path: Path, only: str | None, cells: bool) -> dict[str, Any]:
    """Every numeric dataset by its path in the file; MATLAB stores arrays transposed."""
    try:
        with h5py.File(path, "r") as file:
            if (scan := ismrmrd.group(file)) is not None:
                return _raw(scan, path, only)
            chosen = None if only is None else _named(file, only)
            if only is not None and chosen is not None:
                found = {only: chosen}
            else:
                listing = _Listing(path, cells)
                listing.visit(file)
                found = {name: x for name, x in listing.found.items() if only in (None, name)}
            _check_stored(found, path)
            return {name: _values(item) for name, item in found.items()}
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, MemoryError) as error:
        raise InputError(f"{path}: not a readable HDF5 file ({error}).") from error


def _raw(scan: h5py.Group, path: Path, only: str | None) -> dict[str, Any]:
    """K-space (slices, coils, rows, columns) of ISMRMRD raw data, and the size of a voxel."""
    found: dict[str, Any] = {}
    try:
        raw = ismrmrd.Raw(scan, lambda text: _warn(f"{path}: {text}"))
        if only in (None, "kspace"):
            bytes_needed = 8 * int(np.prod(raw.shape, dtype=object))
            files.check_expansion(bytes_needed, path.stat().st_size, str(path))
            found["kspace"] = raw.kspace()
        voxel = raw.voxel()
        if only in (None, "voxel_mm") and voxel is not None:
            found["voxel_mm"] = voxel
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith(str(path)) else f"{path}: {said}") from error
    return found


def _is_numeric(item: Any) -> bool:
    if not isinstance(item, h5py.Dataset) or not item.shape:
        return False
    dtype = item.dtype
    return dtype.kind in "biufc" or dtype.names == _MATLAB_COMPLEX


def _is_cell(item: Any) -> bool:
    """Whether a dataset is a cell array of MATLAB: references to its elements."""
    return isinstance(item, h5py.Dataset) and h5py.check_ref_dtype(item.dtype) is h5py.Reference


def _values(dataset: h5py.Dataset) -> NDArray[Any]:
    """The values of a dataset; MATLAB stores a complex number as two named ones."""
    values: NDArray[Any] = dataset[()]
    if values.dtype.names == _MATLAB_COMPLEX:
        values = np.asarray(values["real"] + 1j * values["imag"])
    return values.T if "MATLAB_class" in dataset.attrs else values


def _elsewhere(dataset: h5py.Dataset) -> bool:
    return bool(dataset.is_virtual or dataset.external)


def _named(file: h5py.File, name: str) -> h5py.Dataset | None:
    """The numeric dataset of this path; None if there is none, or only by a link."""
    item: Any = file
    for key in name.split("/"):
        hard = isinstance(item, h5py.Group) and key not in ("", ".") and key in item
        if not hard or not isinstance(item.get(key, getlink=True), h5py.HardLink):
            return None
        item = item[key]
    return item if _is_numeric(item) and not _elsewhere(item) else None


class _Listing:
    """The numeric datasets of a file; a group is visited once, however it is linked.

    Args:
        path: of the file.
        cells: whether to follow the references of cell arrays.
    """

    def __init__(self, path: Path, cells: bool = False) -> None:
        self.path = path
        self._cells = cells
        self.found: dict[str, h5py.Dataset] = {}
        self._visited: set[int] = set()
        self._names = self._characters = 0

    def visit(self, group: h5py.Group, prefix: str = "", depth: int = 0) -> None:
        address = h5py.h5o.get_info(group.id).addr
        if address in self._visited:
            return
        self._visited.add(address)
        self._count(len(group), 0)
        for key in group:
            name = f"{prefix}{key}"
            self._count(0, len(name))
            if isinstance(key, bytes):
                _warn(f"{self.path}: {name!r} is no text, so it is not read.")
                continue
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                _warn(f"{self.path}: {name!r} is a link, which csrecon does not follow.")
                continue
            item = group[key]
            if not (key.startswith("#") and isinstance(item, h5py.Group)):
                self._take(item, name, depth)

    def _take(self, item: Any, name: str, depth: int) -> None:
        if isinstance(item, h5py.Group):
            if depth < _DEPTH:
                self.visit(item, f"{name}/", depth + 1)
        elif self._cells and depth < _DEPTH and _is_cell(item):
            _check_stored({name: item}, self.path)
            references = item[()].ravel()
            self._count(references.size, 0)
            for index, reference in enumerate(references):
                if reference:
                    self._take(item.file[reference], f"{name}/{index}", depth + 1)
        elif _is_numeric(item):
            if _elsewhere(item):
                _warn(f"{self.path}: {name!r} is stored in another file, which is not read.")
            else:
                self.found[name] = item

    def _count(self, names: int, characters: int) -> None:
        self._names, self._characters = self._names + names, self._characters + characters
        if self._names > _MOST_NAMES or self._characters > _LONGEST_NAMES:
            raise InputError(
                f"{self.path}: more than {_MOST_NAMES} names, or very long ones; say which array "
                "to read by its name, or save it in a file of its own."
            )


def _check_stored(chosen: dict[str, h5py.Dataset], path: Path) -> None:
    """Raise InputError if these datasets, or chunks that they consist of, are too large."""
    stored, expanded = path.stat().st_size, 0
    for name, item in chosen.items():
        chunk = item.dtype.itemsize * int(np.prod(item.chunks or (0,), dtype=object))
        expanded += item.nbytes
        files.check_expansion(max(expanded, chunk), stored, f"{path}[{name}]")


def _warn(text: str) -> None:
    sys.stderr.write(f"{' '.join(text.split())}\n")


def _bound(path: Path, seconds: int) -> None:
    """Bound the memory and the processor time of this process, where the system can."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return
    limits = {resource.RLIMIT_CPU: seconds}
    with contextlib.suppress(OSError):  # only Linux tells, and only Linux keeps, this limit
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        allowed = _COPIES * files.largest_expansion(path.stat().st_size)
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + _ALWAYS_FREE + allowed
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (soft, hard))


def main(source: str, seconds: str, only: str = "", cells: str = "") -> int:
    """Read `source` and write its arrays and their names to stdout."""
    path = Path(source)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as target:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints
        try:
            _bound(path, int(seconds))
            found = read(path, only or None, bool(cells))
            arrays = {f"a{index}": value for index, value in enumerate(found.values())}
            np.savez(target, names=np.array([*found], np.str_), allow_pickle=False, **arrays)
            target.flush()
        except CsreconError as error:
            _warn(str(error))
            return error.exit_code
        except OSError as error:
            refusal = files.explained(error, Path(tempfile.gettempdir()) / path.name)
            _warn(str(refusal))
            sys.stderr.flush()
            os._exit(refusal.exit_code)  # without another attempt to write
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
