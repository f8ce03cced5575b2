"""Arrays read without pickle, and outputs written atomically.

Every output goes to a temporary file beside its target and is moved into place once it is complete,
so an interrupted command leaves no partial file. An existing file is replaced only on request.
"""

import contextlib
import errno
import hashlib
import math
import os
import struct
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError, ResourceError, UsageError
from csrecon.io import kept

MAX_ARRAY_BYTES = 64 * 2**30
"""In bytes; a header that promises a larger array is treated as damaged or hostile."""

_MAX_EXPANSION = 100  # largest plausible factor of compression: measurements look like noise
_ALWAYS_EXPANDED = 2**28

# What NumPy's header parser raises on arbitrary bytes (it tokenises and evaluates literals).
_HEADER_FAULTS = (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
    OverflowError,
)
_temporary: set[Path] = set()


def sha256(array: NDArray[Any], dtype: str = "<f4") -> str:
    """SHA-256 (hex) of the array's values as `dtype`, little-endian float32, in C order."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype=dtype).tobytes()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# What the zip reader raises on damaged, encrypted or unsupported archives.
_ARCHIVE_FAULTS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    OSError,
)
_ARCHIVE_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that NumPy writes


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError raised while `path` is read into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def require_regular(path: Path) -> None:
    """Raise InputError unless `path` is a regular file: reading others may never end."""
    with reading(path):
        if not path.exists():
            raise InputError(f"{path}: no such file.")
        if not path.is_file():
            raise InputError(f"{path}: expected a file, and this is a folder or a device.")


def require_file(path: Path) -> None:
    """Raise InputError unless `path` is a readable, non-empty regular file."""
    require_regular(path)
    with reading(path):
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty.")
        with path.open("rb"):
            pass


def largest_expansion(stored: int) -> int:
    """How many bytes `stored` compressed ones may become, over all arrays of a file."""
    return min(max(_ALWAYS_EXPANDED, _MAX_EXPANSION * stored), MAX_ARRAY_BYTES)


def check_expansion(promised: int, stored: int, label: str) -> None:
    """Raise InputError if `stored` compressed bytes would expand to implausibly many."""
    if promised > largest_expansion(stored):
        raise InputError(
            f"{label}: {stored} bytes would expand to {promised}, more than any measurement does. "
            "The file is damaged or hostile."
        )


def _read_npy(stream: IO[bytes], available: int, label: str) -> NDArray[Any]:
    """Read one .npy array after checking its header against the `available` bytes."""
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(stream)
    except _HEADER_FAULTS as error:
        raise InputError(f"{label}: not a readable .npy array ({error}).") from error
    if dtype.hasobject:
        raise InputError(
            f"{label}: holds pickled Python objects, which csrecon never loads because they can "
            "run code. Save it again as a plain numeric array."
        )
    plain = dtype.kind in "biufcU" and dtype.itemsize > 0 and dtype.subdtype is None
    if not plain or any(isinstance(d, bool) or not 0 <= d < 2**60 for d in shape):
        raise InputError(
            f"{label}: its header gives shape {shape} and type {dtype}; expected numbers or text."
        )
    count = math.prod(shape)
    promised = count * dtype.itemsize
    present = available - stream.tell()
    if promised > present or promised > MAX_ARRAY_BYTES:
        raise InputError(
            f"{label}: the header promises shape {shape} of {dtype} ({promised} bytes), but "
            f"{present} bytes follow. The file is truncated or damaged: copy or create it again."
        )
    content = stream.read(promised)
    if len(content) < promised:
        raise InputError(f"{label}: the file ends early; copy or create it again.")
    flat = np.frombuffer(content, dtype=dtype, count=count)
    try:
        return flat.reshape(shape, order="F" if fortran_order else "C").copy()
    except ValueError as error:  # more axes than NumPy has
        raise InputError(f"{label}: its header gives {len(shape)} axes ({error}).") from error


def read_npy(path: Path) -> NDArray[Any]:
    """Read a .npy array of numbers.

    Raises:
        InputError: missing or empty file, pickled objects, or a header that promises more
            than the file holds.
    """
    require_file(path)
    with reading(path), path.open("rb") as stream:
        return _read_npy(stream, os.fstat(stream.fileno()).st_size, str(path))


def read_npz(path: Path, only: str | None = None) -> dict[str, NDArray[Any]]:
    """Read every array of a .npz archive (or the one named `only`), checked as in `read_npy`.

    Raises:
        InputError: not a zip archive, a damaged member, two of one name, or as in `read_npy`.
    """
    require_file(path)
    with reading(path), path.open("rb") as stream:
        return read_archive(stream, str(path), only)


def read_archive(stream: IO[bytes], label: str, only: str | None = None) -> dict[str, NDArray[Any]]:
    """As `read_npz`, from an open file."""
    arrays: dict[str, NDArray[Any]] = {}
    stored, promised = stream.seek(0, os.SEEK_END), 0
    try:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                name, where = member.filename.removesuffix(".npy"), f"{label}[{member.filename}]"
                if only not in (None, name):
                    continue
                if name in arrays:
                    raise InputError(f"{where}: two arrays have this name. Save the file again.")
                if member.compress_type not in _ARCHIVE_METHODS:
                    raise InputError(f"{where}: compressed in a way that NumPy does not write.")
                promised += member.file_size
                check_expansion(member.file_size, member.compress_size, where)
                check_expansion(promised, stored, label)
                with archive.open(member) as content:
                    arrays[name] = _read_npy(content, member.file_size, where)
                    if content.read(1):  # else the checksum has been compared
                        raise InputError(f"{where}: longer than its header says; damaged.")
    except _ARCHIVE_FAULTS as error:
        raise InputError(f"{label}: not a readable .npz archive ({error}).") from error
    return arrays


def numbers(found: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The real numeric arrays among these that are not empty."""
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and value.size
    }


def refuse_existing(*targets: Path, overwrite: bool) -> None:
    """Raise UsageError if a target exists and must not be replaced."""
    for target in targets:
        try:
            folder, taken = target.is_dir(), os.path.lexists(target)
        except OSError as error:
            raise explained(error, target) from error
        if folder:
            raise UsageError(f"{target}: is a folder; give a file name.")
        if taken and not overwrite:
            raise UsageError(
                f"{target}: exists already and is kept. Pass --overwrite (overwrite=True) to "
                "replace it, or give another output name."
            )
        if taken:
            kept.refuse_protected(target)


def refuse_inputs(targets: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise UsageError if a target is one of the inputs, under whatever name; --overwrite or not.

    Symbolic and hard links, relative paths and names that differ in case only, where the file
    system ignores it, are the same file.
    """
    known: dict[Path | tuple[int, int], Path] = {}
    for path in inputs:
        known |= dict.fromkeys(_identities(path), path)
    for target in targets:
        for identity in _identities(target):
            if identity in known:
                raise UsageError(
                    f"{target}: is an input of this command ({known[identity]}), which is never "
                    "replaced; give another output."
                )


def _identities(path: Path) -> list[Path | tuple[int, int]]:
    """What two paths of one file have in common: the resolved path, and the file's number."""
    try:
        found: list[Path | tuple[int, int]] = [path.resolve()]
    except (OSError, RuntimeError, ValueError):  # a circle of symbolic links, or no path at all
        return [path.absolute()]
    with contextlib.suppress(OSError, ValueError):
        status = path.stat()
        if status.st_ino:
            found.append((status.st_dev, status.st_ino))
    return found


def publish(temporary: Path, target: Path, overwrite: bool) -> None:
    """Move a complete file into place.

    Raises:
        UsageError: the target exists and `overwrite` is false.
    """
    if overwrite:
        kept.keep_permissions(temporary, target)
        temporary.replace(target)
        return
    try:
        target.hardlink_to(temporary)  # unlike a rename, refuses an existing target
    except FileExistsError:
        refuse_existing(target, overwrite=False)
        raise
    except OSError:  # a file system without hard links
        refuse_existing(target, overwrite=False)
        temporary.rename(target)


@contextlib.contextmanager
def temporaries(*targets: Path) -> Iterator[list[Path]]:
    """Yield one temporary path beside every target; remove what is left of them at the end.

    Missing parent folders are created. The names keep the suffix of their target.

    Raises:
        ResourceError: the disk is full, the folder is read-only or cannot be created.
    """
    tag = uuid.uuid4().hex[:12]
    made = [t.with_name(f".{tag}-{i}{t.suffix}") for i, t in enumerate(targets)]
    _temporary.update(made)
    try:
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        yield made
    except OSError as error:
        raise explained(error, targets[0]) from error
    finally:
        try:
            _remove(made)
        except BaseException:  # a signal; those that follow shortly do not interrupt
            _remove(made)
            raise
        _temporary.difference_update(made)


def remove_temporaries() -> None:
    """Remove what `temporaries` has left: a signal may come just before its own removal begins."""
    _remove(list(_temporary))


def _remove(leftovers: Iterable[Path]) -> None:
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def new_files(*targets: Path, overwrite: bool = False) -> Iterator[list[Path]]:
    """Yield one temporary path per target; on success move them all into place, else remove them.

    A signal between two moves leaves no mixture: files that replace others are all moved, new ones
    are removed.

    Raises:
        UsageError: a target exists and `overwrite` is false.
        ResourceError: as `temporaries`.
    """
    refuse_existing(*targets, overwrite=overwrite)
    with temporaries(*targets) as made:
        yield made
        moves = list(zip(made, targets, strict=True))
        try:
            for temporary, target in moves:
                publish(temporary, target, overwrite)
        except BaseException:
            with contextlib.suppress(OSError):
                for temporary, target in moves:
                    if overwrite and temporary.exists():
                        publish(temporary, target, overwrite)
                    elif not overwrite and _is_moved(temporary, target):
                        target.unlink()
            raise


def _is_moved(temporary: Path, target: Path) -> bool:
    """Whether `publish` has moved a new file into place, and not found one of another there."""
    return not temporary.exists() or (target.exists() and target.samefile(temporary))


def check_writable(*targets: Path, overwrite: bool = False) -> None:
    """Check that these files can be written, and leave none.

    Raises:
        UsageError: a target exists and `overwrite` is false.
        ResourceError: as `temporaries`.
    """
    refuse_existing(*targets, overwrite=overwrite)
    with temporaries(*targets) as made:
        for temporary in made:
            temporary.touch()


def explained(error: OSError, target: Path) -> ResourceError:
    """The error to raise when the operating system refuses to write `target`."""
    if error.errno == errno.ENOSPC:
        return ResourceError(f"{target}: the disk is full; nothing was written. Free some space.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(
            f"{target}: no permission to write in {os.fspath(target.parent)}; nothing was "
            "written. Choose another folder: -o for outputs, CSRECON_CACHE for downloads."
        )
    return ResourceError(
        f"{target}: cannot be written ({error.strerror or error}); nothing was written."
    )


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy (no pickle), whole or not at all.

    NumPy's own writer does not notice if the disk is full at the end of the file.

    Raises:
        OSError: it cannot be written.
    """
    values = np.asarray(array, order="C")
    with path.open("wb") as stream:
        header = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(values.reshape(-1).view(np.uint8).data)


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write plain arrays to an uncompressed .npz (no pickle)."""
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
