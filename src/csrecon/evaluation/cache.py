"""The result cache: rows of a benchmark that were computed once are not computed again.

One JSON line a row, each under a key of everything that its figures depend on, so that equal keys
mean equal results. Several processes may write to one cache; a line that was cut off counts as not
written.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from csrecon.io import downloads, files

NUMERICS = 1
"""Raised whenever results of the same model, operator and image may change."""


def key_of(facts: dict[str, Any]) -> str:
    """The digest of facts that JSON can hold, and of the version of the numerics."""
    text = json.dumps({**facts, "numerics": NUMERICS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class ResultCache:
    """Rows by key.

    Args:
        path: the file; made with its folder when the first row comes.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Take in what is in the file, from other processes too."""
        if not self.path.exists():
            return
        with files.reading(self.path):
            lines = self.path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            try:
                record = json.loads(line)
                self._rows[record["key"]] = record["row"]
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of a key, or None."""
        return self._rows.get(key)

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Write a row down.

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
        """Whether the last line lacks its end."""
        with self.path.open("rb") as stream:
            stream.seek(0, 2)
            if not stream.tell():
                return False
            stream.seek(-1, 2)
            return stream.read() != b"\n"


def default() -> ResultCache:
    """The one in csrecon's cache folder."""
    return ResultCache(downloads.cache_dir() / "bench" / "rows.jsonl")
