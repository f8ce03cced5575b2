"""Batches: files, folders and globs in, one output each; a failure does not stop the others."""

import functools
import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csrecon.cli import torchrun
from csrecon.cli.command import fail, progress
from csrecon.errors import BatchError, CsreconError, InputError, UsageError, enough_memory
from csrecon.io.files import reading, refuse_existing
from csrecon.io.folders import shown


@dataclass(frozen=True)
class Task:
    """One input and its output; `part` counts the slices of an input that has several images."""

    source: Path
    target: Path
    part: int | None = None


def expand(
    inputs: Sequence[str], in_folder: Callable[[Path], list[Path]]
) -> tuple[list[Path], bool]:
    """The files of some paths, folders and globs, and whether they are a batch."""
    found: list[Path] = []
    many = len(inputs) > 1
    for text in inputs:
        path = Path(text)
        with reading(path):
            if path.is_dir():
                found += in_folder(path)
                many = True
            elif not path.exists() and any(character in text for character in "*?["):
                matches = shown(Path(match) for match in glob.glob(text))  # noqa: PTH207
                if not matches:
                    raise InputError(f"{text}: no file matches.")
                found += matches
                many = True
            else:
                found.append(path)
    place = _places()
    return list({place(path): path for path in reversed(found)}.values())[::-1], many


def measurements_in(folder: Path) -> list[Path]:
    """The measurement files of a folder."""
    from csrecon.io import folders, pairs
    from csrecon.sensing.native import SUFFIXES

    pairs.finish_all(folder, ".json")
    found = folders.listed(folder, SUFFIXES)
    if not found:
        raise InputError(f"{folder}: no measurement in it (looked for {', '.join(SUFFIXES)}).")
    return found


def _places() -> Callable[[Path], tuple[str, str]]:
    """The function path -> true folder and name: equal for one name, not for two links."""
    folder = functools.cache(os.path.realpath)
    return lambda path: (str(folder(path.parent)), path.name)


def plan(
    sources: Sequence[Path],
    many: bool,
    output: str | None,
    suffix: str,
    default: Callable[[Path], Path | None],
    outputs: Callable[[Path], tuple[Path, ...]],
    overwrite: bool,
) -> list[Task]:
    """Name the output of every source, before any work is done.

    Args:
        sources: the inputs.
        many: whether they are a batch, whose output is a folder.
        output: `-o`; a file for one input, else a folder; a slash at the end also means a folder.
        suffix: of outputs that are named after their input.
        default: the output without `-o`, or None if `-o` is required.
        outputs: all files that are written for a target.
        overwrite: whether they may exist.

    Raises:
        UsageError: no output name, the same one for two inputs, or one that exists.
    """
    tasks = []
    into_folder = output is not None and (
        many or output.endswith(("/", os.sep)) or Path(output).is_dir() or not Path(output).suffix
    )
    for source in sources:
        if output is None:
            target = default(source)
            if target is None:
                raise UsageError("several inputs need -o FOLDER for their outputs.")
        elif into_folder:
            target = Path(output) / f"{source.stem}{suffix}"
        else:
            target = Path(output)
        tasks.append(Task(source, target))
    made: dict[tuple[str, str], Path] = {}
    place = _places()
    for task in tasks:
        for path in outputs(task.target):
            other = made.setdefault(place(path), task.source)
            if other != task.source:
                raise UsageError(
                    f"{other} and {task.source} would both write {path}; rename one, or "
                    "give them different output folders."
                )
    if not many:
        refuse_existing(*outputs(tasks[0].target), overwrite=overwrite)
    return tasks


def run(
    tasks: Sequence[Task],
    work: Callable[[Task], dict[str, Any]],
    report: Callable[[list[dict[str, Any]]], None],
    share: tuple[int, int] = (0, 1),
) -> None:
    """Do the work of every task and report the results of those that succeeded.

    A single task raises its own error. In a batch, every failure is printed and the other tasks
    continue. With `share` (i, n) this process is the i-th of n and does every n-th task; the first
    process reports for all.

    Raises:
        BatchError: after the report, if a task of a batch failed.
    """
    rank, world = share
    if len(tasks) == 1:
        if not rank:
            with enough_memory(str(tasks[0].source)):
                result = work(tasks[0])
            report([result])
        return
    results: dict[int, dict[str, Any]] = {}
    failed: dict[int, str] = {}
    with progress() as bar:
        mine = range(rank, len(tasks), world)
        files = bar.add_task("files", total=len(mine))
        for index in mine:
            try:
                with enough_memory(str(tasks[index].source)):
                    results[index] = work(tasks[index])
            except (CsreconError, OSError) as error:
                failed[index] = tasks[index].source.name
                fail(str(error))
            bar.advance(files)
    if world > 1:
        for theirs in torchrun.gathered((results, failed)):
            results |= theirs[0]
            failed |= theirs[1]
    if rank:
        return
    report([results[index] for index in sorted(results)])
    if failed:
        first = [failed[index] for index in sorted(failed)][:5]
        names = ", ".join(first) + (", …" if len(failed) > 5 else "")
        raise BatchError(
            f"{len(failed)} of {len(tasks)} files failed ({names}); the others are done."
        )
