"""The command `csrecon`: its commands in the order a newcomer needs them."""

import sys
from typing import Annotated

import typer

from csrecon._version import __version__
from csrecon.cli import (
    adapt,
    bench,
    bring,
    calibrate,
    compare,
    data,
    demo,
    doctor,
    export,
    inspect,
    models,
    plot,
    quickstart,
    reconstruct,
    sample,
    streams,
    terminal,
    train,
)
from csrecon.cli.command import Application
from csrecon.errors import ResourceError
from csrecon.runtime.allocator import keep_freed_memory

app = Application(
    name="csrecon",
    help="""Recover images from compressive measurements y = Φx.

    Measure an image, or use your own measurements, and reconstruct with deep unfolding networks
    whose iterations per layer (--ipl) you choose at inference.

        csrecon quickstart
        csrecon sample img.png --ratio 0.1
        csrecon reconstruct y.npy --model rcoast --ipl 6
        csrecon bench --dataset bsd68
    """,
)
app.add(quickstart.quickstart)
app.add(demo.demo)
app.add(sample.sample)
app.add(reconstruct.reconstruct)
app.add(inspect.inspect)
app.add(bring.bring, "import")
app.add(calibrate.calibrate)
app.add(compare.compare)
app.add(bench.bench)
app.add(plot.plot)
app.add(train.train)
app.add(adapt.adapt)
app.add(export.export)
app.add_typer(models.app)
app.add_typer(data.app)
app.add(doctor.doctor)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"csrecon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    pass


def run() -> None:
    """Run the command line; what cannot be printed at the end is an error like any other.

    Raises:
        SystemExit: always, with one of the codes of csrecon.errors.
    """
    streams.open_missing()
    keep_freed_memory()
    code: str | int | None = 0
    try:
        try:
            app()
        except SystemExit as end:
            reader_gone = isinstance(end.__context__, BrokenPipeError)  # while Rich prints a help
            code = 0 if reader_gone else end.code
        sys.stdout.flush()
    except BrokenPipeError:
        streams.discard(sys.stdout)
    except OSError as error:
        streams.discard(sys.stdout)
        terminal.fail(f"operating system error: {error}.")
        code = code or ResourceError.exit_code
    raise SystemExit(code)
