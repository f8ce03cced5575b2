"""A case of the fuzzer: a command line, the files around it, and what befalls it; and its play."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from forked import Done, Forked, Limits, Signal

Words = tuple[tuple[str, ...], ...]
Tree = dict[str, bytes | str]
"""Path -> content of a file, or `-> target` of a link, or `folder`, `fifo`."""

_SPACE = 16 * 2**20  # bytes of the small disk
_DEPTH = "a/b"  # so that ../.. is still inside the play's folder


@dataclass(frozen=True)
class Edit:
    """Bytes start..stop of a file, replaced."""

    start: int
    stop: int
    new: bytes = b""


@dataclass(frozen=True)
class Case:
    """One command and its circumstances.

    Attributes:
        mode: of the fuzzer.
        words: the command line in groups: the command, its arguments, options with their values.
        files: path -> content of every file there.
        damage: path -> edits of its content, one after the other.
        links, fifos, folders: other things there; a link has its target.
        limits, sent: for the child.
        room: bytes that are free on the disk; None for plenty.
        misdeed: of the server, in downloads.
    """

    mode: str
    words: Words
    files: Mapping[str, bytes] = field(default_factory=dict)
    damage: Mapping[str, tuple[Edit, ...]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    fifos: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    sent: Signal | None = None
    room: int | None = None
    misdeed: str | None = None

    @property
    def arguments(self) -> list[str]:
        """The command line."""
        return [word for group in self.words for word in group]

    @property
    def command(self) -> str:
        """Its command."""
        return " ".join(self.words[0][: 2 if self.words[0][0] in ("models", "data") else 1])

    def content(self, path: str) -> bytes:
        """The content of a file, damaged."""
        content = self.files[path]
        for edit in self.damage.get(path, ()):
            content = content[: edit.start] + edit.new + content[edit.stop :]
        return content

    def store(self, folder: Path) -> None:
        """Write the case and its files to a folder."""
        facts = asdict(replace(self, files={}, damage={}))
        facts["command line"] = shlex.join(["csrecon", *self.arguments])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "case.json").write_text(json.dumps(facts, indent=2) + "\n")
        shutil.rmtree(folder / "files", ignore_errors=True)
        for path in self.files:
            place = folder / "files" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(self.content(path))


def stored(folder: Path) -> Case:
    """The case that `store` wrote."""
    facts: dict[str, Any] = json.loads((folder / "case.json").read_text())
    del facts["command line"]
    kept = folder / "files"
    paths = [path for path in kept.rglob("*") if path.is_file()]
    facts |= {
        "words": tuple(tuple(group) for group in facts["words"]),
        "files": {str(path.relative_to(kept)): path.read_bytes() for path in paths},
        "fifos": tuple(facts["fifos"]),
        "folders": tuple(facts["folders"]),
        "limits": Limits(**facts["limits"]),
        "sent": Signal(**facts["sent"]) if facts["sent"] else None,
    }
    return Case(**facts)


@dataclass(frozen=True)
class Play:
    """What a case led to: the end of the command, and everything that lies there then.

    Paths are relative to the folder that the command ran in; `..` leads out of it.
    """

    done: Done
    before: Tree
    after: Tree
    place: Path


class Stage:
    """A folder where cases are played, and a small disk if one can be mounted.

    Args:
        forked: runs the commands.
        environment: for every command.
    """

    def __init__(self, forked: Forked, environment: Mapping[str, str]) -> None:
        self._forked = forked
        self._environment = environment
        self._made = tempfile.TemporaryDirectory(dir=_fast())
        self.root = Path(self._made.name)
        self._disk = self.root / "disk"
        self._disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_SPACE}", "none", str(self._disk)]
        with contextlib.suppress(OSError):
            self.mounted = not subprocess.run(mount, capture_output=True, check=False).returncode

    def __enter__(self) -> "Stage":
        """Start."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self._disk)], capture_output=True, check=False)
        self._made.cleanup()

    mounted = False

    def play(self, case: Case, environment: Mapping[str, str]) -> Play:
        """Set the case up, run it, and look at what is left; the folder stays until the next."""
        full = case.room is not None and self.mounted
        top = (self._disk if full else self.root) / "play"
        for old in (self._disk / "play", self._disk / "ballast", self.root / "play"):
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        place = top / _DEPTH
        place.mkdir(parents=True)
        (top / "tmp").mkdir()
        _arrange(case, place)
        limits = case.limits
        if full:
            _fill(self._disk, case.room or 0)
        elif case.room is not None:
            limits = replace(limits, file_size=case.room)
        before = _tree(top, place)
        everything = {
            **self._environment,
            **environment,
            "CSRECON_CACHE": str(place / "cache"),
            "TMPDIR": str(top / "tmp"),
            "HOME": str(top / "tmp"),
        }
        sent = (
            replace(case.sent, watched=str(top)) if case.sent and case.sent.watched else case.sent
        )
        done = self._forked.run(case.arguments, place, everything, limits, sent)
        return Play(done, before, _tree(top, place), place)


def _fast() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _arrange(case: Case, place: Path) -> None:
    for path in case.files:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(case.content(path))
    for name in case.folders:
        (place / name).mkdir(parents=True, exist_ok=True)
    for name, target in case.links.items():
        (place / name).symlink_to(target)
    for name in case.fifos:
        os.mkfifo(place / name)


def _fill(disk: Path, room: int) -> None:
    facts = os.statvfs(disk)
    size = facts.f_bavail * facts.f_frsize - room
    if size > 0:
        with (disk / "ballast").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size)


def _tree(top: Path, place: Path) -> Tree:
    found: Tree = {}
    for folder, names, files in os.walk(top):
        for name in [*names, *files]:
            path = Path(folder, name)
            key = os.path.relpath(path, place)
            if path.is_symlink():
                found[key] = f"-> {path.readlink()}"
            elif path.is_dir():
                found[key] = "folder"
            else:
                found[key] = path.read_bytes() if path.is_file() else "fifo"
    return found


def with_items(words: Words, items: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """The files of all items that the words name."""
    files: dict[str, bytes] = {}
    for word in (word for group in words for word in group):
        files |= items.get(word, items.get(word.partition(":")[0], {}))
    return files


def plain(words: Sequence[str]) -> str:
    """A command line to read."""
    return shlex.join(["csrecon", *(w if len(w) < 200 else f"{w[:20]}…({len(w)})" for w in words)])
