"""Adapting a network to measurements alone, for one camera and one kind of images.

The network is trained to predict rows of Φ that it did not get (prediction.py), with Adam, a cosine
of the learning rate and averaged weights. Rows that training never uses (measured.py) choose the
best of these weights; others, which neither trained nor chose them, estimate the gain (gain.py).
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from csrecon.errors import CheckError, ModelError, UsageError, enough_memory
from csrecon.evaluation import heldout
from csrecon.reconstructors.starts import LinearStart
from csrecon.reconstructors.unfolding import ProxBlock, Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.training import gain, measured
from csrecon.training.gain import Gain
from csrecon.training.optimiser import Average, annealed, set_rate
from csrecon.training.prediction import Prediction, PredictionOptions

log = logging.getLogger(__name__)

_CLIP, _BETAS, _DECAY = 0.1, (0.9, 0.99), 0.98
_WATCHED, _JUDGED = 8, 32  # crops that choose the weights, and that estimate the gain


class AdaptOptions(PredictionOptions):
    """How a network is adapted; a run that continues has to have the same options.

    Attributes:
        layers: train `all` weights, or the `last` convolution of every layer and the modulation.
        learning_rate, final_learning_rate: ends of the cosine.
        max_seconds, steps: length of the run, whichever ends first; None for no limit. Without a
            limit of the time every run is the same.
        rounds: how often the weights are judged by the rows that choose them.
        patience: rounds without progress after which the run ends.
        seed: of everything random.
    """

    layers: Literal["all", "last"] = "all"
    learning_rate: float = Field(default=1e-4, gt=0)
    final_learning_rate: float = Field(default=1e-6, ge=0)
    max_seconds: float | None = Field(default=300.0, gt=0)
    steps: int | None = Field(default=None, ge=1)
    rounds: int = Field(default=10, ge=1)
    patience: int = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Progress:
    """A finished step: its loss, and the gain in dB so far of the best weights."""

    step: int
    loss: float
    best: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Adapted:
    """The result: the network with the best weights, in evaluation mode, and its gain."""

    network: Unfolding
    gain: Gain
    steps: int
    seconds: float


class Adaptation:
    """A run with its state: network, averaged and best weights, optimiser, generator, step.

    Args:
        network: where to start; it is not changed.
        measurements: block sampling, all with the same block size.
        options: of the run.
        setup: device and precision; None for the fastest.
        names: of the measurements, for messages.
        objective: makes what is minimized, as Prediction does.

    Raises:
        UsageError: no measurement, other operators, blocks of different sizes, too few rows, a
            network for one Φ only, or neither a time nor a number of steps.
        InputError: values far larger than those of any image in [0, 1].
    """

    def __init__(
        self,
        network: Unfolding,
        measurements: Sequence[Measurement],
        options: AdaptOptions,
        setup: execution.Setup | None = None,
        names: Sequence[str] | None = None,
        objective: Callable[..., Prediction] = Prediction,
    ) -> None:
        if options.steps is None and options.max_seconds is None:
            raise UsageError("neither max_seconds nor steps: give one, or the run has no end.")
        if isinstance(network.start, LinearStart):
            raise UsageError(
                "this network works with its own Φ only, and all rows of it; adapt a network for "
                "any Φ, such as rcoast."
            )
        self.options = options
        self.setup = replace(setup or execution.choose(), tile=None)
        names = names or [f"measurement {i + 1}" for i in range(len(measurements))]
        self._divided = _divided(measurements, names, options.seed)
        self._cases = measured.cases(self._divided, options.crop, _JUDGED, options.seed)
        self._objective = objective(self._divided, options, self.setup)
        self.network = _trainable(network, options.layers, self.setup.device)
        self._judge = copy.deepcopy(network).eval()
        self._average = Average(self.network, _DECAY)
        self._best = self._average_now()
        self._optimizer = torch.optim.Adam(
            [p for p in self.network.parameters() if p.requires_grad],
            options.learning_rate,
            _BETAS,
        )
        self._draw = torch.Generator().manual_seed(options.seed)
        self._base: list[tuple[Tensor, Tensor]] = []
        self.step, self.seconds = 0, 0.0
        self.best_gain, self.rounds, self._stale = 0.0, 0, 0

    @property
    def progress(self) -> float:
        """How much of the run is done, in [0, 1]."""
        options = self.options
        by_steps = self.step / options.steps if options.steps else 0.0
        by_time = self.seconds / options.max_seconds if options.max_seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    @property
    def finished(self) -> bool:
        """Whether the run is at its end, or makes no progress any more."""
        return self.progress >= 1 or self._stale >= self.options.patience

    def run(self) -> Iterator[Progress]:
        """Train to the end; yield after every step.

        Raises:
            CheckError: the loss became NaN or infinite; the weights are those before the step.
        """
        self._judge_base()
        began = time.perf_counter()
        while not self.finished:
            loss = self._train()
            self.step += 1
            self.seconds += time.perf_counter() - began
            began = time.perf_counter()
            due = int(self.progress * self.options.rounds)
            if due > self.rounds:
                self.rounds = due
                self._choose()
                self.seconds += time.perf_counter() - began
                began = time.perf_counter()
            yield Progress(self.step, loss, self.best_gain, self.seconds)

    def _train(self) -> float:
        """One step; returns its loss."""
        set_rate(
            self._optimizer,
            annealed(self.options.learning_rate, self.options.final_learning_rate, self.progress),
        )
        loss = self._objective.loss(self.network, self._draw)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CheckError(
                f"the loss became {value} at step {self.step + 1}: give a lower learning rate."
            )
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
        self._optimizer.step()
        self._average.update(self.network, self.step + 1)
        return value

    def _judge_base(self) -> None:
        if not self._base:
            self._base = [case.errors(self._image(case)) for case in self._cases]

    def _image(self, case: measured.Case) -> Tensor:
        return execution.image(self._judge, case.training, self.setup)

    def _average_now(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self._average.values.items()}

    def _gain(self, cases: Sequence[measured.Case], judged: bool) -> Gain:
        """The gain of the judge over the first network, by rows that choose or that judge."""
        of_image: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for case, base in zip(cases, self._base, strict=False):
            after = case.errors(self._image(case))[judged]
            of_image.setdefault(case.index, []).append((base[judged], after))
        return gain.estimate(
            [
                gain.Errors(
                    torch.cat([before for before, _ in pairs]),
                    torch.cat([after for _, after in pairs]),
                    self._divided[index].training.noise ** 2,
                )
                for index, pairs in of_image.items()
            ]
        )

    def _choose(self) -> None:
        """Keep the averaged weights if they are the best so far."""
        self._judge.load_state_dict(self._average.values)
        found = self._gain(self._cases[:_WATCHED], judged=False).db
        log.debug("step %d: %.3f dB on the rows that choose", self.step, found)
        if found > self.best_gain:
            self.best_gain, self._best, self._stale = found, self._average_now(), 0
        else:
            self._stale += 1

    def result(self) -> Adapted:
        """The best weights so far, and their gain on rows that neither trained nor chose them."""
        self._judge_base()
        self._judge.load_state_dict(self._best)
        found = self._gain(self._cases, judged=True)
        return Adapted(copy.deepcopy(self._judge).cpu().eval(), found, self.step, self.seconds)

    def state(self) -> dict[str, Any]:
        """The state for `restore`."""
        return {
            "network": self.network.state_dict(),
            "average": self._average.values,
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "draw": self._draw.get_state(),
            "numbers": [self.step, self.seconds, self.best_gain, self.rounds, self._stale],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state as if the run had never stopped.

        Raises:
            ModelError: it does not fit.
        """
        try:
            with enough_memory("the checkpoint"):
                self.network.load_state_dict(state["network"])
                self._average.load(state["average"])
                for key, value in state["best"].items():
                    self._best[key].copy_(value)
                self._optimizer.load_state_dict(state["optimizer"])
                self._draw.set_state(state["draw"])
                step, seconds, best, rounds, stale = state["numbers"]
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise ModelError(f"the checkpoint does not fit this network ({error}).") from error
        self.step, self.seconds = int(step), float(seconds)
        self.best_gain, self.rounds, self._stale = float(best), int(rounds), int(stale)


def _divided(
    measurements: Sequence[Measurement], names: Sequence[str], seed: int
) -> list[measured.Divided]:
    """The measurements with their rows divided, after all checks."""
    if not measurements:
        raise UsageError("no measurement to adapt to: give at least one.")
    pairs = list(zip(measurements, names, strict=True))
    found = [measured.Divided.of(m, seed + i, name) for i, (m, name) in enumerate(pairs)]
    blocks = {one.operator.block: name for one, name in zip(found, names, strict=True)}
    if len(blocks) > 1:
        sizes = " and ".join(f"{h}×{w} ({name})" for (h, w), name in blocks.items())
        raise UsageError(f"blocks of {sizes} pixels: adapt to measurements of one block size.")
    if len({m.operator.phi.sha256 for m in measurements}) > 1:  # type: ignore[union-attr]
        log.info("the measurements were made with different Φ; the network adapts to all of them.")
    if len(found) == 1:
        log.warning(
            "one measurement: the gain can be estimated for this image only, and nothing says "
            "whether other images of its kind gain as much. Give several where there are several."
        )
    if any(heldout.is_ordered(one.operator) for one in found):
        log.info(
            "the rows of this Φ are the important ones of an image: what is predicted is then "
            "mostly what was measured, and the gain of the image is less sure than estimated."
        )
    return found


def _trainable(network: Unfolding, layers: str, device: torch.device) -> Unfolding:
    """A copy in training mode, the weights outside the chosen layers fixed."""
    made = copy.deepcopy(network).train()
    for name, parameter in made.named_parameters():
        ends = ".tail." in name or name.startswith("modulation.")
        parameter.requires_grad_(layers == "all" or ends)
    for block in made.blocks:
        assert isinstance(block, ProxBlock)
        block.penalised = False
    made.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


_DEFAULT = AdaptOptions()


def adapt(
    network: Unfolding,
    measurements: Sequence[Measurement],
    options: AdaptOptions = _DEFAULT,
    setup: execution.Setup | None = None,
) -> Adapted:
    """Adapt a network to measurements, without their images.

    Args:
        network: where to start; it is not changed.
        measurements: block sampling, all with the same block size.
        options: of the run.
        setup: device and precision; None for the fastest.

    Returns:
        The network with the best weights, those of `network` if none were better, and the
        estimated gain; `gain.sure` says whether it exceeds two standard errors.

    Raises:
        UsageError, InputError, CheckError: as in Adaptation.
    """
    adaptation = Adaptation(network, measurements, options, setup)
    for _ in adaptation.run():
        pass
    return adaptation.result()
