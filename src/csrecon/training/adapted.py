"""An adaptation on disk: a weights file, and while it is not finished a folder beside it.

mine.safetensors                         the adapted network with its blueprint, for --model
mine.safetensors.adapting/checkpoint.pt  the full state for an exact continuation
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from csrecon._version import __version__
from csrecon.errors import CheckError, UsageError
from csrecon.io import files, locks
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.training import checkpoint
from csrecon.training.adapt import Adaptation, Adapted, AdaptOptions, Progress
from csrecon.zoo import loading, weights_file

_STATE = ".adapting"


@dataclass(frozen=True)
class Output:
    """Where the result goes.

    Attributes:
        path: of the weights file.
        resume: continue the run that was interrupted.
        overwrite: replace the file, and without `resume` a run that was interrupted.
        force: write it whatever the gain is.
    """

    path: Path
    resume: bool = False
    overwrite: bool = False
    force: bool = False

    @property
    def state(self) -> Path:
        """The folder of the state."""
        return self.path.with_name(self.path.name + _STATE)

    def check(self) -> None:
        """Raise UsageError for a path that is no weights file, or one that exists and is kept."""
        if self.path.suffix != ".safetensors":
            raise UsageError(f"{self.path}: a weights file ends in .safetensors.")
        files.refuse_existing(self.path, overwrite=self.overwrite)
        if not (self.resume or self.overwrite) and (self.state / checkpoint.FILE).exists():
            raise UsageError(
                f"{self.state}: the state of a run that was interrupted. Continue it with "
                "--resume, or begin again with --overwrite."
            )


class _Job(BaseModel):
    """Everything that a run and its continuation share."""

    model_config = ConfigDict(frozen=True)

    options: AdaptOptions
    weights: str
    values: tuple[str, ...]


class AdaptRun:
    """An adaptation whose result is written.

    Args:
        model: name of the network.
        network: where to start; it was built from a blueprint.
        measurements: by their names; as in Adaptation.
        options: of the adaptation.
        output: where the result goes.
        setup: device and precision.

    Raises:
        UsageError, InputError: as in Adaptation and Output.check.
        InputError, ModelError: nothing to resume, or a run with other options or measurements.
    """

    def __init__(
        self,
        model: str,
        network: Unfolding,
        measurements: dict[str, Measurement],
        options: AdaptOptions,
        output: Output,
        setup: execution.Setup,
    ) -> None:
        output.check()
        self.output = output
        self._model = model
        self._given = list(measurements.values())
        self._weights = str(loading.identity(network)["weights"])
        digests = (files.sha256(m.y.cpu().numpy(), "<f4") for m in self._given)
        self._job = _Job(options=options, weights=self._weights, values=tuple(digests))
        state = checkpoint.load(output.state, self._job) if output.resume else None
        self.adaptation = Adaptation(network, self._given, options, setup, list(measurements))
        if state is not None:
            self.adaptation.restore(state)

    def steps(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
        """Train and yield every step; on `stop`, and ten times on the way, save the state.

        Raises:
            CheckError: the loss became NaN.
            ResourceError: the state cannot be written.
            UsageError: another process adapts to this output.
        """
        with self._alone():
            best = self.adaptation.rounds
            for progress in self.adaptation.run():
                yield progress
                if self.adaptation.rounds > best or stop():
                    best = self.adaptation.rounds
                    checkpoint.save(self.output.state, self._job, self.adaptation.state())
                if stop():
                    break

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes away from the output."""
        folder = self.output.state
        with contextlib.ExitStack() as held:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                free = held.enter_context(locks.locked(folder / ".lock", wait=False))
            except OSError as error:
                raise files.explained(error, folder) from error
            if not free:
                raise UsageError(f"{self.output.path}: another process adapts to this output.")
            yield

    def finish(self) -> Adapted:
        """Write the network and remove the state.

        Raises:
            CheckError: its gain does not exceed two standard errors; nothing is written.
            ResourceError: it cannot be written; the state is kept.
        """
        found = self.adaptation.result()
        if found.gain.sure or self.output.force:
            assert found.network.blueprint is not None
            weights_file.save(
                found.network,
                Blueprint.model_validate_json(found.network.blueprint),
                self.output.path,
                self.output.overwrite,
                self._made_from(found),
            )
        with contextlib.suppress(OSError):
            (self.output.state / checkpoint.FILE).unlink(missing_ok=True)
            self.output.state.rmdir()
        if not (found.gain.sure or self.output.force):
            raise CheckError(
                f"no sure gain: {found.gain} on held-out rows after {found.steps} steps; expected "
                "more than two standard errors. Nothing was written. Give more measurements or a "
                "longer --max-time, or write the result all the same with --force."
            )
        return found

    def facts(self, found: Adapted) -> dict[str, Any]:
        """What a report says about the run."""
        return {
            "output": str(self.output.path),
            "model": self._model,
            "model_sha256": self._weights,
            "measurements": len(self._given),
            "ratios": sorted({round(m.operator.ratio, 4) for m in self._given}),
            "loss": self._job.options.loss,
            "steps": found.steps,
            "seconds": round(found.seconds, 1),
            "gain": round(found.gain.db, 3),
            "gain_error": round(found.gain.error, 3),
            "sure": found.gain.sure,
            "heldout_before": found.gain.before,
            "heldout_after": found.gain.after,
        }

    def _made_from(self, found: Adapted) -> str:
        """The origin of the weights in words, without paths."""
        facts = self.facts(found)
        ratios = ", ".join(f"{ratio:g}" for ratio in facts["ratios"])
        return (
            f"{Path(self._model).name} (weights {self._weights[:16]}…), adapted to "
            f"{facts['measurements']} measurement(s) of ratio {ratios} without their images: "
            f"{facts['loss']} loss of predicted rows, {facts['steps']} steps; estimated gain "
            f"{found.gain} on held-out rows; csrecon {__version__}"
        )


def outputs(path: Path) -> Sequence[Path]:
    """The files that a run with this output writes."""
    return path, Output(path).state / checkpoint.FILE
