"""What is printed: results on stdout, progress, notes and errors on stderr.

Names of files, arrays and models are shown as they are written: no markup, no emoji, and control
characters escaped. No progress bar is drawn if stderr is not a terminal.
"""

import contextlib
import functools
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from csrecon.cli import streams
from csrecon.io.text import json_text, printable

log = logging.getLogger("csrecon")


class _Results(Console):
    """Stdout; a reader that has enough, as `| head`, does not end the work of a command."""

    def on_broken_pipe(self) -> None:
        streams.discard(sys.stdout)


class _Notes(Console):
    """Stderr: a command does its work and has its exit code though nobody reads its notes."""

    def print(self, *objects: Any, **style: Any) -> None:
        with contextlib.suppress(OSError):
            super().print(*objects, **style)

    def on_broken_pipe(self) -> None:
        streams.discard(sys.stderr)


class _Description(ProgressColumn):
    """What a bar counts, as it is written."""

    def render(self, task: Task) -> Text:
        return Text(printable(task.description))


@functools.cache
def stderr() -> Console:
    """The console for progress, notes and errors."""
    return _Notes(stderr=True, soft_wrap=True)


@functools.cache
def stdout() -> Console:
    """The console for results; tables have their full width if stdout is not a terminal."""
    console = _Results(soft_wrap=True)
    return console if console.is_terminal else _Results(soft_wrap=True, width=1000)


def say(text: str) -> None:
    """Print a line of the result on stdout, as it is written; control characters are escaped."""
    stdout().print(Text(printable(text)))


def say_json(content: Any) -> None:
    """Print a result as JSON on stdout."""
    say_as_is(json_text(content))


def say_as_is(text: str) -> None:
    """Write lines for other programs on stdout, unchanged."""
    try:
        stdout().file.write(text)
        stdout().file.flush()
    except BrokenPipeError:
        stdout().on_broken_pipe()


def say_table(header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a table on stdout; the first `left` columns are left-aligned, the others right."""
    table = Table()
    for index, name in enumerate(header):
        align: Literal["left", "right"] = "left" if index < left else "right"
        table.add_column(Text(printable(name)), justify=align, no_wrap=True)
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    stdout().print(table)


def progress() -> Progress:
    """A progress bar on stderr; disabled if that is not a terminal or notes are off."""
    return Progress(
        _Description(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
        disable=not (stderr().is_terminal and log.isEnabledFor(logging.INFO)),
    )


def fail(message: str) -> None:
    """Print an error line on stderr."""
    stderr().print(Text(printable(f"error: {message}")), style="bold red")


def show_traceback() -> None:
    """Print the traceback of the error that is being handled on stderr."""
    for line in traceback.format_exc().splitlines():
        stderr().print(Text(printable(line)))
