"""What all commands share: options, logging, signals, and errors mapped to exit codes."""

import dataclasses
import functools
import inspect
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from csrecon.cli import signals, usage
from csrecon.cli.terminal import (
    fail,
    log,
    progress,
    say,
    say_as_is,
    say_json,
    say_table,
    show_traceback,
    stderr,
    stdout,
)
from csrecon.errors import CsreconError, ResourceError, is_out_of_memory, out_of_memory
from csrecon.io.text import printable

__all__ = ["fail", "log", "progress", "say", "say_as_is", "say_json", "say_table"]

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
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=1024, help="CPU threads; 1 leaves the other cores to other work.  [all]"
    ),
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
        stderr().print(Text(printable(f"{label}: {record.getMessage()}")))


@contextmanager
def _shown(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar for a download."""
    with progress() as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.update(task, advance=amount)


@contextmanager
def _session(verbose: bool, quiet: bool, offline: bool) -> Iterator[list[int]]:
    """Logging, signals and the network; yields the signals received."""
    from csrecon.io import downloads

    shown = downloads.watcher.set(_shown)
    forbidden = downloads.forbidden.set(offline)
    handler = _ToStderr()
    handler.addFilter(_Once())
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
    try:
        with signals.unwinding() as received:
            yield received
    finally:
        log.removeHandler(handler)
        downloads.forbidden.reset(forbidden)
        downloads.watcher.reset(shown)


def _check_folder() -> None:
    """Raise ResourceError if the working folder was removed: compiled libraries end the process."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ResourceError("the working folder was removed: change into another.") from error


def _exit_code(run: Callable[[], object], debug: bool, received: Sequence[int]) -> int:
    try:
        try:
            _check_folder()
            run()
            stdout().file.flush()
        except Exception as error:
            if not received or isinstance(error, SignalError):
                raise
            raise signals.Terminated(received[0]) from error
    except CsreconError as error:
        if debug:
            show_traceback()
        fail(str(error))
        return error.exit_code
    except SignalError as error:
        fail(f"{signal.Signals(error.number).name}: ended after a whole step; the run is saved.")
        return 128 + error.number
    except (KeyboardInterrupt, signals.Terminated) as end:
        from csrecon.io import files

        number = getattr(end, "number", signal.SIGINT)
        what = "interrupted" if number == signal.SIGINT else "terminated"
        files.remove_temporaries()
        fail(f"{what}; no partial file is left.")
        return 128 + number
    except OSError as error:
        if debug:
            show_traceback()
        fail(f"operating system error: {error}.")
        return ResourceError.exit_code
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            show_traceback()
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
        with _session(verbose, quiet, offline) as received:
            for name, group in grouped.items():
                names = [field.name for field in dataclasses.fields(group)]
                options[name] = group(**{field: options.pop(field) for field in names})
            code = _exit_code(lambda: function(**options), debug, received)
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
            cls=usage.Group,
            rich_markup_mode="markdown",
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    def add(self, function: Callable[..., object], name: str | None = None) -> None:
        """Register a command; its docstring is its help."""
        self.command(name, cls=usage.Command)(_with_common_options(function))
