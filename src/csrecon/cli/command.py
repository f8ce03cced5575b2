"""What all commands share: logging, progress, JSON, and errors mapped to exit codes.

Results go to stdout; progress, notes and errors go to stderr. No progress bar is drawn if stderr
is not a terminal.
"""

import dataclasses
import functools
import inspect
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from csrecon.errors import CsreconError, ResourceError, is_out_of_memory, out_of_memory
from csrecon.io.files import json_text

log = logging.getLogger("csrecon")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Precision = Annotated[
    str,
    typer.Option(
        help="Precision of the convolutions: auto, fp32, bf16 or fp16.", metavar="PRECISION"
    ),
]
Tile = Annotated[
    str, typer.Option(help="Side in pixels of the tiles for large images, auto, or off.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the image sets; else CSRECON_DATA, else the cache."),
]
Seed = Annotated[int, typer.Option(help="Seed of Φ.", min=0)]
Kind = Annotated[
    str,
    typer.Option(
        help="Kind of Φ: gaussian, bernoulli, binary, hadamard, hadamard-cake, dct or pixels; or "
        "kind of operator: fourier (MRI) or identity (denoising).",
        metavar="KIND",
    ),
]
Color = Annotated[
    str,
    typer.Option(
        help="gray (luma, as in the papers), ycbcr or rgb (three planes).", metavar="KIND"
    ),
]


class _Pipe(Console):
    """A console that raises BrokenPipeError, to be handled with the other errors."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Terminated(BaseException):
    """Raised on SIGTERM: unwinds like KeyboardInterrupt, so that temporary files are removed."""


class SignalError(Exception):
    """A command ended in order because of a signal, with its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Once(logging.Filter):
    """Passes every message once: a batch does not repeat its notes."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self._seen
        self._seen.add(message)
        return new


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        label = "warning" if record.levelno >= logging.WARNING else "note"
        stderr().print(f"{label}: {record.getMessage()}", markup=False, highlight=False)


@functools.cache
def stderr() -> Console:
    """The console for progress, notes and errors."""
    return Console(stderr=True, soft_wrap=True)


@functools.cache
def stdout() -> Console:
    """The console for results; tables have their full width if stdout is not a terminal."""
    console = _Pipe(soft_wrap=True)
    return console if console.is_terminal else _Pipe(soft_wrap=True, width=1000)


def say(text: str) -> None:
    """Print a line of the result on stdout, without markup."""
    stdout().print(text, markup=False, highlight=False)


def say_json(content: Any) -> None:
    """Print a result as JSON on stdout."""
    stdout().file.write(json_text(content))


def say_table(header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a table on stdout; the first `left` columns are left-aligned, the others right."""
    table = Table()
    for index, name in enumerate(header):
        align: Literal["left", "right"] = "left" if index < left else "right"
        table.add_column(name, justify=align, no_wrap=True)
    for line in lines:
        table.add_row(*line)
    stdout().print(table)


def progress() -> Progress:
    """A progress bar on stderr; disabled if that is not a terminal or notes are off."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
        disable=not (stderr().is_terminal and log.isEnabledFor(logging.INFO)),
    )


@contextmanager
def _shown(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar for a download."""
    with progress() as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.update(task, advance=amount)


@contextmanager
def _session(verbose: bool, quiet: bool, offline: bool) -> Iterator[None]:
    from csrecon.io import downloads

    shown = downloads.watcher.set(_shown)
    forbidden = downloads.forbidden.set(offline)
    handler = _ToStderr()
    handler.addFilter(_Once())
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        log.removeHandler(handler)
        downloads.forbidden.reset(forbidden)
        downloads.watcher.reset(shown)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def fail(message: str) -> None:
    """Print an error line on stderr."""
    stderr().print(f"error: {message}", markup=False, highlight=False, style="bold red")


def _exit_code(run: Callable[[], object], debug: bool) -> int:
    try:
        run()
    except CsreconError as error:
        if debug:
            traceback.print_exc()
        fail(str(error))
        return error.exit_code
    except SignalError as error:
        fail(f"{signal.Signals(error.number).name}: ended after a whole step; the run is saved.")
        return 128 + error.number
    except KeyboardInterrupt:
        fail("interrupted; no partial file is left.")
        return 130
    except Terminated:
        fail("terminated; no partial file is left.")
        return 143
    except BrokenPipeError:  # the reader of the output has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            traceback.print_exc()
        fail(f"operating system error: {error}.")
        return ResourceError.exit_code
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        if is_out_of_memory(error):
            fail(str(out_of_memory(error)))
            return ResourceError.exit_code
        fail(
            f"{type(error).__name__}: {error}. This is a bug in csrecon: please report it, with "
            "the traceback that --debug shows."
        )
        return CsreconError.exit_code
    return 0


_COMMON = {
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Print more on stderr.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on stderr.")],
    "offline": Annotated[bool, typer.Option("--offline", help="Never use the network.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}


def _with_common_options(function: Callable[..., object]) -> Callable[..., None]:
    @functools.wraps(function)
    def run(*, verbose: bool, quiet: bool, offline: bool, debug: bool, **options: Any) -> None:
        with _session(verbose, quiet, offline):
            for name, group in grouped.items():
                names = [field.name for field in dataclasses.fields(group)]
                options[name] = group(**{field: options.pop(field) for field in names})
            code = _exit_code(lambda: function(**options), debug)
        if code:
            raise typer.Exit(code)

    own = inspect.signature(function)
    grouped, parameters = _ungrouped(own)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in _COMMON.items()
    ]
    run.__signature__ = own.replace(parameters=[*parameters, *common])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*parameters, *common]}
    return run


def _ungrouped(own: inspect.Signature) -> tuple[dict[str, type], list[inspect.Parameter]]:
    """Parameters whose type is a dataclass of options, and all parameters with its fields."""
    grouped: dict[str, type] = {}
    parameters = []
    for parameter in own.parameters.values():
        kind = parameter.annotation
        if not dataclasses.is_dataclass(kind):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        assert isinstance(kind, type)
        grouped[parameter.name] = kind
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=field.type,
            )
            for field in dataclasses.fields(kind)
        ]
    return grouped, parameters


class Application(typer.Typer):
    """A Typer application whose commands share -v, -q, --debug and the exit codes."""

    def __init__(self, name: str, help: str) -> None:  # noqa: A002 - Typer's word
        super().__init__(
            name=name,
            help=help,
            no_args_is_help=True,
            pretty_exceptions_enable=False,
            rich_markup_mode="markdown",
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    def add(self, function: Callable[..., object], name: str | None = None) -> None:
        """Register a command; its docstring is its help."""
        self.command(name)(_with_common_options(function))
