"""y.npy and the y.json beside it: which belong together, and what must not replace them."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from csrecon.errors import UsageError
from csrecon.io import documents, files, pairs
from csrecon.sensing import sidecar

log = logging.getLogger(__name__)

MARK = f'"{sidecar.MARK}"'
"""In every sidecar, and in the metadata of a .npz."""
_LARGEST = 2**26  # bytes; a sidecar lists at most its missing blocks


def sidecar_path(path: Path) -> Path:
    """`y.json` of `y.npy`."""
    return path.with_suffix(".json")


def with_sidecars(paths: Iterable[Path]) -> list[Path]:
    """These files, and y.json for every y.npy among them."""
    found = list(paths)
    return [*found, *(sidecar_path(path) for path in found if path.suffix.lower() == ".npy")]


def refuse_described(targets: Iterable[Path]) -> None:
    """Raise UsageError if an array would be written as the y.npy of a y.json of csrecon."""
    for target in targets:
        beside = sidecar_path(target)
        if target.suffix.lower() == ".npy" and beside.is_file() and MARK in _content(beside):
            raise UsageError(
                f"{target}: belongs to the measurement that {beside} describes, and an image "
                "would replace its values; give another output with -o."
            )


def refuse_sidecars(targets: Iterable[Path]) -> None:
    """Raise UsageError if a report would replace a y.json of csrecon, without which y is lost."""
    for target in targets:
        if target.suffix.lower() == ".json" and target.is_file() and MARK in _content(target):
            raise UsageError(
                f"{target}: describes a measurement, which nothing else can; give another output "
                "with -o."
            )


def refuse_shared(data: Path) -> None:
    """Raise UsageError if y.json beside y.npy would also be that of y.NPY, or the reverse."""
    spellings = {f".{a}{b}{c}" for a in "nN" for b in "pP" for c in "yY"} - {data.suffix}
    for other in sorted(map(data.with_suffix, spellings)):
        if other.exists() and not (data.exists() and other.samefile(data)):
            raise UsageError(
                f"{data}: {other} is beside it, and both would have {sidecar_path(data).name}; "
                "give another output name."
            )


def refuse_foreign(beside: Path) -> None:
    """Raise UsageError if y.json is of another program, whose content nothing brings back."""
    content = _content(beside) if beside.is_file() else ""
    if MARK not in content and content.strip(" \0\r\n\t"):
        raise UsageError(
            f"{beside}: was not written by csrecon and is never replaced. Move it away, or give "
            "another output name or .npz."
        )


def read_text(path: Path, bare: bool) -> str | None:
    """The text of a sidecar; None for the .json of another program beside bare values."""
    text = _content(path)
    if bare and MARK not in text:
        log.info("%s: not written by csrecon, so it is ignored.", path)
        return None
    return text


def read_pair(path: Path, bare: bool) -> tuple[NDArray[Any], str | None]:
    """y of a .npy file, and the text of its sidecar; both of one moment."""
    beside = sidecar_path(path)
    while True:
        state = _state(beside)
        metadata = read_text(beside, bare) if state else None
        y = files.read_npy(pairs.finish(path, beside))
        if _state(beside) == state:  # else it was replaced meanwhile
            return y, metadata


def _content(path: Path) -> str:
    """The text of a .json; bytes that are no text are kept as lone surrogates."""
    return documents.content(path, _LARGEST).decode("utf-8-sig", "surrogateescape")


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes whenever a file is replaced; None if there is none."""
    with files.reading(path):
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
