"""The log of a run: JSON lines with losses and validations.

A process that is killed while it appends leaves a cut last line. Lines that are no records are left
out, and a warning says which.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from csrecon.errors import InputError
from csrecon.io import documents, files

log = logging.getLogger(__name__)

_LARGEST = 2**26  # bytes, of which a record has about a hundred
_BEGINNING = b'{"step": '


class _Content(BaseModel):
    model_config = ConfigDict(strict=True)

    step: int = Field(ge=0)
    loss: float | None = None
    validation: dict[str, dict[str, float]] | None = None


@dataclass(frozen=True)
class Record:
    """A line of the log as it is in the file, its step, and what was logged there.

    Attributes:
        line, step: the line, and its step.
        loss: the mean loss since the line before; None in other lines.
        validation: PSNR in dB by ratio and IPL; None in other lines.
    """

    line: str
    step: int
    loss: float | None
    validation: dict[str, dict[str, float]] | None


def append(path: Path, record: dict[str, Any]) -> None:
    """Append a record.

    Raises:
        ResourceError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
    except OSError as error:
        raise files.explained(error, path) from error


def check(path: Path) -> None:
    """Raise InputError if a log is there that cannot be read, or is that of something else."""
    _records(path)


def read(path: Path) -> list[Record]:
    """The records of a log, none if there is no log; a warning names the lines left out.

    Raises:
        InputError: it cannot be read, or is that of something else.
    """
    records, damaged, cut = _records(path)
    if cut:
        log.warning("%s: its last line was cut off in writing, and is left out.", path)
    if damaged:
        lines = ", ".join(map(str, damaged[:5])) + (", …" if len(damaged) > 5 else "")
        log.warning("%s: damaged, and left out: line %s.", path, lines)
    return records


def _records(path: Path) -> tuple[list[Record], list[int], bool]:
    """The records, the numbers of the damaged lines, and whether the last line is cut."""
    with files.reading(path):
        there = path.exists()
    content = documents.content(path, _LARGEST) if there else b""
    *whole, last = content.split(b"\n")
    records, damaged, cut = [], [], False
    for number, line in enumerate([*whole, last]):
        try:
            facts = _Content.model_validate_json(line)
        except pydantic.ValidationError:
            if number == len(whole) and _BEGINNING.startswith(line[: len(_BEGINNING)]):
                cut = bool(line)
            elif line.strip():
                damaged.append(number + 1)
            continue
        records.append(Record(line.decode(), facts.step, facts.loss, facts.validation))
    if damaged and not records:
        raise InputError(
            f"{path}: not the log of a training run; it is kept. Move it away to continue."
        )
    return records, damaged, cut
