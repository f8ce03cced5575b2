"""`csrecon train`: run a recipe, or continue a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon.cli import parse, signals, torchrun
from csrecon.cli.command import (
    DataDir,
    Device,
    Json,
    SignalError,
    Threads,
    progress,
    say,
    say_json,
)
from csrecon.errors import UsageError

if TYPE_CHECKING:
    from csrecon.training.run import Run


def train(
    name: Annotated[str, typer.Argument(help="A model with a recipe, such as rcoast.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Training images: a named set or a folder; repeatable.  [the recipe's]"),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A variant of the recipe: refine, any or paper.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the recipe: key=value; repeatable."),
    ] = None,
    data_fraction: Annotated[
        float | None, typer.Option(help="Share of the paper's training blocks; 0.03 is its 3 %.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.  [runs/NAME, runs/NAME-VARIANT]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace the run in --out: its checkpoint, weights, log and recipe."
        ),
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(help="Initial weights: a model name or .safetensors file.  [the recipe's]"),
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="Stop after this training time: 90s, 25m or 2h.")
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit the learning-rate curve to --max-time.")
    ] = False,
    data_dir: DataDir = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a network by its recipe.

    The run's folder gets recipe.json, log.jsonl, checkpoint.pt, weights.safetensors (for --model)
    and curve.png. Ctrl-C finishes the step and saves; --resume then continues exactly. The weights
    are validated on Set11 (MRI: on held-out slices of brain_train) if that set is on this machine.

    **Examples**

        csrecon train rcoast --data-dir sets/
        csrecon train rcoast --data photos/ --max-time 25m --fit
        csrecon train rcoast --resume
        csrecon train rcoast --recipe paper --set steps=1000 --out runs/paper
        torchrun --nproc-per-node 8 -m csrecon train rcoast
    """
    import torch

    from csrecon.runtime import execution
    from csrecon.training import recipe as recipes
    from csrecon.training import run as running
    from csrecon.zoo import datasets

    plan = recipes.recipe(name, recipe)
    changes = dict(_setting(text) for text in settings or [])
    if data_fraction is not None:
        changes["data_fraction"] = str(data_fraction)
    plan = plan.changed(changes)
    if init is not None:
        plan = plan.model_copy(update={"init": init})
    if data:
        sets = plan.data.model_copy(update={"sets": tuple(data)})
        plan = plan.model_copy(update={"data": sets})
    seconds = parse.seconds(max_time) if max_time is not None else None
    if fit and seconds is None:
        raise UsageError("--fit needs --max-time.")
    paths = [path for source in plan.data.sets for path in datasets.images(source, data_dir)]
    scored = plan.task.validation
    known = datasets.at_hand(scored, data_dir)
    validation = datasets.images(scored, data_dir)[:3] if known else []
    with torchrun.processes(device) as (chosen, rank, _):
        if threads is not None:
            torch.set_num_threads(threads)
        options = running.Options(
            out=out or Path("runs") / (f"{name}-{recipe}" if recipe else name),
            data=paths,
            device=execution.choose_device(chosen),
            validation=validation,
            resume=resume,
            overwrite=overwrite,
            max_seconds=seconds,
            fit=fit,
        )
        facts, caught = _carry_out(running.Run(plan, options))
        if rank == 0:
            running.draw(options.out)
            _report(facts, f"{scored} (first {len(validation)})", as_json)
    if caught and rank == 0:
        raise SignalError(caught[0])


def _carry_out(run: "Run") -> tuple[dict[str, Any], list[int]]:
    """Train to the end or to a signal; return the results and the received signals."""
    with signals.collected() as caught, progress() as bar:
        task = bar.add_task("training", total=100)
        for step in run.steps(stop=lambda: bool(caught)):
            bar.update(
                task,
                completed=100 * run.trainer.progress,
                description=f"step {step.step}, {step.psnr:.2f} dB at {step.ratio:g}",
            )
    facts = {
        "out": str(run.options.out),
        "step": run.trainer.step,
        "seconds": round(run.trainer.seconds, 1),
        "finished": run.trainer.progress >= 1,
        "validation": {} if caught else run.validate(),
    }
    return facts, caught


def _report(facts: dict[str, Any], validated: str, as_json: bool) -> None:
    if as_json:
        say_json(facts)
        return
    say(
        f"{facts['out']}: step {facts['step']} after {facts['seconds']} s of training"
        + ("" if facts["finished"] else "; continue with --resume")
    )
    for ratio, scores in facts["validation"].items():
        pairs = ", ".join(f"IPL {ipl} {psnr:.2f} dB" for ipl, psnr in scores.items())
        say(f"{validated} at {ratio}: {pairs}")


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise UsageError(f"--set {text!r}: expected key=value.")
    return name, value
