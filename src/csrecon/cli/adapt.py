"""`csrecon adapt`: fine-tune a network on measurements alone."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon import _default
from csrecon.cli import batch, lab, parse, signals
from csrecon.cli.command import (
    Device,
    Json,
    Overwrite,
    Precision,
    SignalError,
    Threads,
    progress,
    say,
    say_json,
)
from csrecon.errors import UsageError

_NATIVE = lab.LabOptions()
_MAX_TIME = "5m"

if TYPE_CHECKING:
    from csrecon.reconstructors.unfolding import Unfolding
    from csrecon.sensing.measurement import Measurement
    from csrecon.training.adapt import AdaptOptions
    from csrecon.training.adapted import AdaptRun


def adapt(
    measurements: Annotated[
        list[str],
        typer.Argument(help="Measurement files, folders or globs.", metavar="MEASUREMENT"),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The weights file to write: .safetensors.")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Where to start: a network of `csrecon models list`, a .safetensors file, or "
            "hf:owner/name."
        ),
    ] = _default.MODEL,
    layers: Annotated[
        str,
        typer.Option(
            help="What is trained: all, or last (the last convolution of every layer, and the "
            "modulation)."
        ),
    ] = "all",
    loss: Annotated[
        str,
        typer.Option(help="log (every image counts) or plain, of the squared error of the rows."),
    ] = "log",
    equivariance: Annotated[
        float,
        typer.Option(
            help="Weight of a second loss: a turned reconstruction, measured and reconstructed "
            "again, should not change.",
            min=0,
        ),
    ] = 0.0,
    max_time: Annotated[
        str | None,
        typer.Option(help=f"Longest training time: 90s, 25m or 2h.  [{_MAX_TIME}, unless --steps]"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Length in steps; the result is then reproducible.", min=1)
    ] = None,
    train_seed: Annotated[int, typer.Option(help="Seed of rows, crops and splits.", min=0)] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Write the result even without a sure gain.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that was interrupted.")
    ] = False,
    laboratory: lab.LabOptions = _NATIVE,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Adapt a network to your camera and your kind of images, from measurements alone.

    No image is needed: the network learns to predict some rows of Φ from the others. A tenth of
    the rows is never used in training and tells the gain, with its standard error. If the gain does
    not exceed two standard errors, nothing is written and the exit code is 7. The measurements are
    of block sampling with one block size; some twenty say more than one. Lab measurements need the
    same options as for `csrecon reconstruct`. Ctrl-C finishes the step and saves; --resume then
    continues exactly.

    **Examples**

        csrecon adapt measurements/ -o mine.safetensors
        csrecon adapt measurements/ --model rcoast --max-time 20m -o mine.safetensors
        csrecon adapt measurements/ -o mine.safetensors --resume
    """
    import torch

    from csrecon.io import files
    from csrecon.runtime import execution
    from csrecon.sensing import beside
    from csrecon.training import adapted

    parse.shape(laboratory.shape)
    options = _options(layers, loss, equivariance, max_time, steps, train_seed)
    where = adapted.Output(output, resume, overwrite, force)
    where.check()
    sources, _ = batch.expand(measurements, batch.measurements_in)
    given = [*sources, *laboratory.inputs(), Path(model)]
    files.refuse_inputs(adapted.outputs(output), beside.with_sidecars(given))
    if threads is not None:
        torch.set_num_threads(threads)
    run = adapted.AdaptRun(
        model,
        _network(model),
        _read(sources, laboratory),
        options,
        where,
        execution.choose(device, precision, "off"),
    )
    _carry_out(run)
    found = run.finish()
    _report(run.facts(found), str(sources[0]), as_json)


def _options(
    layers: str,
    loss: str,
    equivariance: float,
    max_time: str | None,
    steps: int | None,
    seed: int,
) -> "AdaptOptions":
    import pydantic

    from csrecon.io import documents
    from csrecon.training.adapt import AdaptOptions

    length = max_time or (None if steps else _MAX_TIME)
    try:
        return AdaptOptions(
            layers=layers,  # type: ignore[arg-type]
            loss=loss,  # type: ignore[arg-type]
            equivariance=equivariance,
            max_seconds=parse.seconds(length) if length else None,
            steps=steps,
            seed=seed,
        )
    except pydantic.ValidationError as error:
        raise UsageError(f"options: {documents.faults(error)}") from error


def _network(model: str) -> "Unfolding":
    """The network to start from."""
    from csrecon import zoo
    from csrecon.reconstructors.unfolding import Unfolding
    from csrecon.zoo import cards

    if model in cards.cards() and cards.card(model).per_ratio:
        raise UsageError(
            f"--model {model}: has per-ratio weights for its own Φ; adapt a network for any Φ, "
            f"such as {_default.MODEL}."
        )
    network = zoo.load(model)
    if not isinstance(network, Unfolding):
        raise UsageError(f"--model {model}: a classical solver has no weights to adapt.")
    return network


def _read(sources: list[Path], laboratory: lab.LabOptions) -> "dict[str, Measurement]":
    """The measurements by their names."""
    matrix = laboratory.sampling()
    return {str(source): lab.load(source, laboratory, matrix).measurement for source in sources}


def _carry_out(run: "AdaptRun") -> None:
    """Train to the end; raise SignalError if a signal came, with the state saved."""
    with signals.collected() as caught, progress() as bar:
        task = bar.add_task("adapting", total=100)
        for step in run.steps(stop=lambda: bool(caught)):
            bar.update(
                task,
                completed=100 * run.adaptation.progress,
                description=f"step {step.step}, {step.best:+.2f} dB on held-out rows",
            )
    if caught:
        raise SignalError(caught[0])


def _report(facts: dict[str, Any], source: str, as_json: bool) -> None:
    if as_json:
        say_json(facts)
        return
    doubt = "" if facts["sure"] else "; not sure, and written by --force"
    say(
        f"held-out error {facts['heldout_before']:.3g} -> {facts['heldout_after']:.3g}: an "
        f"estimated gain of {facts['gain']:.2f} ± {facts['gain_error']:.2f} dB{doubt} "
        f"({facts['measurements']} measurement(s), {facts['steps']} steps, "
        f"{facts['seconds']:.0f} s)"
    )
    say(f"{facts['output']} is written. Next:")
    say(f"csrecon reconstruct {shlex.quote(source)} --model {shlex.quote(facts['output'])}")
