"""The result cache: rows of a benchmark, each computed only once.

One JSON line per row, under a key of everything that its results depend on, so that equal keys mean
equal results. Several processes may write to one cache; a damaged line is left out, and computed
again.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from filelock import FileLock

from csrecon.io import documents, downloads, files

log = logging.getLogger(__name__)

_LARGEST, _LONGEST = 2**28, 2**14  # bytes of the file, and of a line; a row has a few hundred

NUMERICS = 2
"""Version of the numerics, raised whenever results of the same inputs may change."""


def key_of(facts: dict[str, Any]) -> str:
    """The digest of facts that JSON can hold, including the version of the numerics."""
    text = json.dumps({**facts, "numerics": NUMERICS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class ResultCache:
    """Rows by key.

    Args:
        path: the file; created with its folder when the first row is added.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Read the file, with the rows of other processes."""
        if not self.path.exists():
            return
        lines = documents.content(self.path, _LARGEST).splitlines()
        damaged = 0
        for line in filter(None, lines):
            try:
                if len(line) > _LONGEST:
                    raise ValueError(len(line))
                record = json.loads(line)
                key, row = record["key"], record["row"]
                if not (isinstance(key, str) and isinstance(row, dict)):
                    raise TypeError(key)
            except (ValueError, KeyError, TypeError, RecursionError):
                damaged += 1
                continue
            self._rows[key] = row
        if damaged:
            log.warning(
                "%s: %d damaged lines are left out; their rows are computed again.",
                self.path,
                damaged,
            )

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of a key, or None."""
        return self._rows.get(key)

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Add a row and write it to the file.

        Raises:
            ResourceError: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
            with lock, self.path.open("a", encoding="utf-8") as stream:
                stream.write("\n" * self._cut_off() + json.dumps({"key": key, "row": row}) + "\n")
        except OSError as error:
            raise files.explained(error, self.path) from error
        self._rows[key] = row

    def _cut_off(self) -> bool:
        """Whether the last line is truncated."""
        with self.path.open("rb") as stream:
            stream.seek(0, 2)
            if not stream.tell():
                return False
            stream.seek(-1, 2)
            return stream.read() != b"\n"


def default() -> ResultCache:
    """The result cache in csrecon's cache folder."""
    return ResultCache(downloads.cache_dir() / "bench" / "rows.jsonl")
