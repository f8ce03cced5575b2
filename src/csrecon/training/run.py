"""A training run on disk: a folder with recipe, log in JSON lines, checkpoint and weights.

recipe.json         the recipe
log.jsonl           losses, and PSNR on the validation images per ratio and IPL
checkpoint.pt       the full state for an exact continuation
weights.safetensors the moving average of the weights with their blueprint, for --model
curve.png           the learning curve
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from csrecon import zoo
from csrecon.errors import UsageError
from csrecon.evaluation import plot
from csrecon.io import files, locks
from csrecon.reconstructors.unfolding import ProxBlock, Unfolding
from csrecon.training import checkpoint, runlog
from csrecon.training.data import Patches
from csrecon.training.loop import Progress, Trainer
from csrecon.training.recipe import Recipe
from csrecon.training.unroll import unroll, widen
from csrecon.zoo import weights_file

LOG, WEIGHTS, CURVE = "log.jsonl", "weights.safetensors", "curve.png"
FILES = (checkpoint.FILE, checkpoint.RECIPE, LOG, WEIGHTS, CURVE)
_LOG_EVERY = 50


@dataclass(frozen=True)
class Options:
    """How a run is carried out; the recipe defines what it computes.

    Attributes:
        out: the run's folder.
        data: training images.
        validation: images to score on; may be empty.
        device: to train on.
        resume: continue from the checkpoint in `out`.
        overwrite: replace the files of a run in `out` by those of this one.
        max_seconds: limit of the training time, summed over interrupted and continued runs; None
            for no limit.
        fit: learning-rate curve and stages follow max_seconds instead of the steps.
        save_every: seconds of training between checkpoints, each with a validation.
    """

    out: Path
    data: Sequence[Path]
    device: torch.device
    validation: Sequence[Path] = ()
    resume: bool = False
    overwrite: bool = False
    max_seconds: float | None = None
    fit: bool = False
    save_every: float = 600.0


def _network(recipe: Recipe, fresh: bool) -> Unfolding:
    """The network to train; with initial weights if the run is new."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = recipe.blueprint().build()
    if fresh and recipe.init is not None:
        _begin(network, recipe.init)
    elif recipe.zero_tail:
        for name, parameter in network.named_parameters():
            if ".tail." in name:
                torch.nn.init.zeros_(parameter)
    for block in network.blocks:
        assert isinstance(block, ProxBlock)
        block.penalised = recipe.objective.penalty > 0
    return network


def _begin(network: Unfolding, init: str) -> None:
    source = zoo.load(init)
    if not isinstance(source, Unfolding):
        raise UsageError(f"{init}: a classical solver has no weights to start from.")
    if type(source.modulation) is not type(network.modulation):
        unroll(source, network)
    else:
        widen(source, network)


def _agree(trainer: Trainer, stop: bool) -> bool:
    """Agree between processes on the training time; return whether any of them should stop."""
    if not distributed.is_initialized():
        return stop
    known = torch.tensor([trainer.seconds, float(stop)], device=trainer.device)
    distributed.all_reduce(known, distributed.ReduceOp.MAX)
    trainer.seconds = float(known[0])
    return bool(known[1])


class Run:
    """A training run in its folder, which `steps` writes.

    Raises:
        UsageError: the folder holds files of a run already and `resume` and `overwrite` are
            false, an input would be replaced, or initial weights that do not fit.
        InputError, ModelError: nothing to resume, or a checkpoint of another recipe.
    """

    def __init__(self, recipe: Recipe, options: Options) -> None:
        self.recipe, self.options = recipe, options
        self._begun = False
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0
        targets = [options.out / name for name in FILES]
        if options.resume and options.overwrite:
            raise UsageError("--resume continues a run and --overwrite replaces it: give one.")
        if not options.resume:
            _refuse_existing(targets, options.overwrite)
            files.refuse_inputs(targets, [Path(recipe.init)] if recipe.init else [])
        files.refuse_inputs(targets, [*options.data, *options.validation])
        state = checkpoint.load(options.out, recipe) if options.resume else None
        patches = Patches(options.data, recipe.data, options.device, recipe.seed, recipe.patches)
        network = _network(recipe, fresh=state is None)
        network.to(options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trainer = Trainer(
            network,
            recipe,
            patches,
            options.device,
            rank=self.rank,
            wrap=DistributedDataParallel if distributed.is_initialized() else None,
            fit_seconds=options.max_seconds if options.fit else None,
        )
        if state is not None:
            self.trainer.restore(state, self.rank)
            if self.rank == 0:
                runlog.check(options.out / LOG)

    def _begin(self) -> None:
        """Write the files of a new run, the checkpoint first: what it leaves can be continued.

        Of a run that continues, truncate the log after the step of the checkpoint.
        """
        out, path = self.options.out, self.options.out / LOG
        kept: list[str] = []
        if self._begun:
            return
        self._begun = True
        if self.options.resume:
            kept = [r.line for r in runlog.read(path) if r.step <= self.trainer.step]
        else:
            if self.rank == 0:
                _refuse_existing([out / name for name in FILES], self.options.overwrite)
            self.save(instead_of=[out / name for name in FILES if name != checkpoint.FILE])
        if self.rank:
            return
        with files.new_files(path, out / checkpoint.RECIPE, overwrite=True) as (log, record):
            log.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            record.write_text(self.recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def _log(self, record: dict[str, Any]) -> None:
        if self.rank == 0:
            runlog.append(self.options.out / LOG, record)

    def steps(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
        """Train and yield every step; save at the end of the run or of its time, or on `stop`.

        Raises:
            CheckError: the loss became NaN; the last checkpoint is intact.
            ResourceError: a checkpoint cannot be written; the last one is intact.
            UsageError: another process trains in this folder.
        """
        with self._alone():
            self._begin()
            yield from self._train(stop)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes out of the folder."""
        out = self.options.out
        with contextlib.ExitStack() as held:
            if self.rank == 0:
                try:
                    out.mkdir(parents=True, exist_ok=True)
                    free = held.enter_context(locks.locked(out / ".lock", wait=False))
                except OSError as error:
                    raise files.explained(error, out / LOG) from error
                if not free:
                    raise UsageError(
                        f"{out}: another process trains in this folder; wait for it, or give "
                        "another --out."
                    )
            yield

    def _train(self, stop: Callable[[], bool]) -> Iterator[Progress]:
        trainer, options = self.trainer, self.options
        saved = trainer.seconds
        losses: list[float] = []
        for progress in trainer.run():
            losses.append(progress.loss)
            if progress.step % _LOG_EVERY == 0:
                self._log(
                    {
                        "step": progress.step,
                        "seconds": round(progress.seconds, 2),
                        "loss": math.fsum(losses) / len(losses),
                        "learning_rate": progress.learning_rate,
                    }
                )
                losses.clear()
            yield progress
            late = options.max_seconds is not None and trainer.seconds >= options.max_seconds
            if _agree(trainer, stop() or late):
                break
            if trainer.seconds - saved > options.save_every:
                self.save()
                self.validate()
                saved = trainer.seconds
        self.save()

    def averaged(self) -> Unfolding:
        """A network with the averaged weights, in evaluation mode."""
        network = self.recipe.blueprint().build()
        network.load_state_dict(self.trainer.averaged())
        return network.eval()

    def save(self, instead_of: Sequence[Path] = ()) -> None:
        """Write the checkpoint and the averaged weights (process 0 only).

        Args:
            instead_of: as in checkpoint.save.
        """
        own = self.trainer.own_states()
        if self.rank:
            return
        checkpoint.save(self.options.out, self.recipe, self.trainer.state(own), instead_of)
        path = self.options.out / WEIGHTS
        weights_file.save(self.averaged(), self.recipe.blueprint(), path, overwrite=True)

    def validate(self) -> dict[str, dict[str, float]]:
        """Score the averaged weights on the validation images, and log it."""
        if self.rank or not self.options.validation:
            return {}
        trainer, paths = self.trainer, self.options.validation
        table = trainer.task.validate(self.averaged(), paths, trainer.setup)
        self._log({"step": self.trainer.step, "validation": table})
        return table


def _refuse_existing(targets: Sequence[Path], overwrite: bool) -> None:
    """Raise UsageError if any file of a run is there, which only --overwrite replaces."""
    try:
        files.refuse_existing(*targets, overwrite=overwrite)
    except UsageError as error:
        raise UsageError(f"{error} Or continue the run with --resume.") from error


def draw(out: Path) -> None:
    """Draw the log of a run as its learning curve.

    Raises:
        InputError: there is no log, or it is that of something else.
        ResourceError: the curve cannot be written.
    """
    records = runlog.read(out / LOG)
    if records:
        losses = [(r.step, r.loss) for r in records if r.loss is not None]
        scores = [(r.step, r.validation) for r in records if r.validation is not None]
        plot.learning_curve(losses, scores, out / CURVE)
