"""The training loop: a generator that yields the progress after every step.

A step draws patches, a ratio, a Φ and the iteration counts R_i, reconstructs, and minimizes the
loss of the last iterate (R, section 3.3) plus the other terms of the recipe. All randomness comes
from generators whose states are part of the checkpoint, so that a run continues exactly.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from csrecon.errors import CheckError, ModelError, UsageError, enough_memory
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.training.data import Patches
from csrecon.training.muon import Muon
from csrecon.training.optimiser import Average, annealed, set_rate
from csrecon.training.recipe import ObjectiveOptions, OptimiserOptions, Recipe
from csrecon.training.tasks import Task

_FLOOR = 1e-5  # added to an image's MSE inside the logarithm: 50 dB


@dataclass(frozen=True)
class Progress:
    """A finished step: the loss as minimized, and the PSNR in dB of the batch's last iterate."""

    step: int
    steps: int
    loss: float
    psnr: float
    ratio: float
    counts: tuple[int, ...]
    learning_rate: float
    seconds: float


class Objective(nn.Module):
    """The recipe's loss as a module with one forward, as data-parallel wrappers need it."""

    def __init__(self, network: Unfolding, options: ObjectiveOptions) -> None:
        super().__init__()
        self.network = network
        self.options = options

    def _errors(self, image: Tensor, x: Tensor) -> Tensor:
        """The loss of every image, (B,)."""
        per_image = (image.float() - x).square().mean(dim=(1, 2, 3))
        return torch.log10(per_image + _FLOOR) if self.options.loss == "log" else per_image

    def _falls(self, m: Measurement, x: Tensor, counts: tuple[int, ...], now: Tensor) -> Tensor:
        """Mean increase of the images' loss by the last iteration of every layer, at least 0."""
        if min(counts) < 2:
            return now.new_zeros(())
        fewer = self.network.at([count - 1 for count in counts])
        with torch.no_grad():
            before = self._errors(fewer(m), x)
        return torch.relu(now - before).mean()

    def forward(self, m: Measurement, x: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The loss of images x (B, C, H, W), and the MSE of the last iterate."""
        recipe = self.options
        errors, penalties = [], []
        for step in self.network.at(counts).steps(m):
            last = step.index == step.total
            if recipe.every or recipe.worse or last:
                errors.append(self._errors(step.image, x).mean())
            penalties.append(step.penalty)
        loss = errors[-1]
        if recipe.every:
            loss = loss + recipe.every * torch.stack(errors).mean()
        if recipe.worse and len(errors) > 1:
            steps = torch.stack(errors)
            loss = loss + recipe.worse * torch.relu(steps[1:] - steps[:-1].detach()).mean()
        if recipe.rising:
            loss = loss + recipe.rising * self._falls(m, x, counts, self._errors(step.image, x))
        if recipe.penalty:
            loss = loss + recipe.penalty * torch.stack(penalties).sum()
        mse = (step.image.detach().float() - x).square().mean()
        return loss, mse


class Trainer:
    """The state of a run: network, averaged weights, optimiser, generators, step.

    Args:
        network: trained in place.
        recipe: of the run.
        patches: source of the training patches.
        device: of the network.
        rank: of this process; each draws its own patches, and all draw the same Φ and counts.
        wrap: a data-parallel wrapper for the objective.
        fit_seconds: if given, learning-rate curve, stages and end of the run follow the training
            time up to this limit instead of `recipe.steps`.
    """

    def __init__(
        self,
        network: Unfolding,
        recipe: Recipe,
        patches: Patches,
        device: torch.device,
        *,
        rank: int = 0,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        fit_seconds: float | None = None,
    ) -> None:
        self.network, self.recipe, self.patches, self.device = network, recipe, patches, device
        self.fit_seconds = fit_seconds
        objective = Objective(network.train(), recipe.objective)
        self._objective = wrap(objective) if wrap else objective
        self._optimizer = _optimizer(network, recipe.optimiser)
        self.setup = execution.choose(device, recipe.optimiser.precision, tile="off")
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.setup.precision == "fp16")
        self._average = Average(network, recipe.optimiser.ema)
        self._common = torch.Generator().manual_seed(recipe.seed)
        self._own = torch.Generator().manual_seed(recipe.seed + 1_000_003 * (rank + 1))
        self.task: Task = recipe.task.begin(recipe.seed)
        self.step = 0
        self.seconds = 0.0

    @property
    def progress(self) -> float:
        """How much of the run is done, in [0, 1]."""
        if self.fit_seconds is not None:
            return min(1.0, self.seconds / self.fit_seconds)
        return min(1.0, self.step / self.recipe.steps)

    def averaged(self) -> dict[str, Tensor]:
        """The state dict of the exponential moving average of the weights."""
        return {key: value.clone() for key, value in self._average.values.items()}

    def own_states(self) -> list[Tensor]:
        """The generator state of every process; every process must call this."""
        mine = self._own.get_state()
        if not distributed.is_initialized():
            return [mine]
        states: list[Tensor] = [mine] * distributed.get_world_size()
        distributed.all_gather_object(states, mine)
        return states

    def state(self, own: list[Tensor]) -> dict[str, Any]:
        """The state for `restore`, with the result of `own_states`."""
        return {
            "network": self.network.state_dict(),
            "average": self._average.values,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "common": self._common.get_state(),
            "own": own,
            "bases": self.task.state,
            "step": self.step,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any], rank: int = 0) -> None:
        """Continue from a state as if the run had never stopped.

        Raises:
            UsageError: the state was written by fewer processes.
            ModelError: it does not fit.
        """
        try:
            with enough_memory("the checkpoint"):
                self._restore(state, rank)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise ModelError(f"the checkpoint does not fit its recipe ({error}).") from error

    def _restore(self, state: dict[str, Any], rank: int) -> None:
        if rank >= len(state["own"]):
            raise UsageError(
                f"the checkpoint is of {len(state['own'])} process(es); continue with as many."
            )
        self.network.load_state_dict(state["network"])
        self._average.load(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._common.set_state(state["common"])
        self._own.set_state(state["own"][rank])
        self.task.state = state["bases"]
        step, seconds = state["step"], state["seconds"]
        if not (isinstance(step, int) and step >= 0 and 0 <= seconds < math.inf):
            raise ValueError(f"step {step!r} after {seconds!r} seconds")
        self.step, self.seconds = step, float(seconds)

    def learning_rate(self) -> float:
        """The learning rate of the next step: linear warm-up, then a cosine over the progress."""
        options = self.recipe.optimiser
        curve = annealed(options.learning_rate, options.final_learning_rate, self.progress)
        return curve * min(1.0, (self.step + 1) / max(1, options.warmup))

    def _counts(self, cap: int) -> tuple[int, ...]:
        layers = len(self.network.schedule.counts)
        draws = torch.randint(1, cap + 1, (layers + 1,), generator=self._common).tolist()
        equal = float(torch.rand((), generator=self._common)) < self.recipe.equal
        return (draws[0],) * layers if equal else tuple(draws[1:])

    def run(self) -> Iterator[Progress]:
        """Train to the end of the run; yield after every step.

        Raises:
            CheckError: the loss became NaN or infinite; the weights are those before the step.
        """
        recipe = self.recipe
        while self.progress < 1:
            began = time.perf_counter()
            rate = self.learning_rate()
            set_rate(self._optimizer, rate)
            camera = self.task.draw(self.step, self._common)
            stage = recipe.stage(self.progress)
            counts = self._counts(stage.cap)
            batch, patch = recipe.batch(stage)
            x = camera.images(self.patches.batch(batch, self._own, patch))
            m = camera(x, self._common)
            with self.setup.autocast():
                loss, mse = self._objective(m, x, counts)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise CheckError(
                    f"the loss became {value} at step {self.step + 1}: lower the learning rate "
                    "(--set learning_rate=…). The last checkpoint is intact."
                )
            self._update(loss)
            self.step += 1
            self.seconds += time.perf_counter() - began
            psnr = -10 * math.log10(float(mse) + 1e-12)
            yield Progress(
                step=self.step,
                steps=recipe.steps,
                loss=value,
                psnr=psnr,
                ratio=camera.ratio,
                counts=counts,
                learning_rate=rate,
                seconds=self.seconds,
            )

    def _update(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self._scaler.scale(loss))
        if self.recipe.optimiser.clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimiser.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._average.update(self.network, self.step)


def _optimizer(network: nn.Module, options: OptimiserOptions) -> torch.optim.Optimizer:
    if options.algorithm == "muon":
        return Muon(network, options.learning_rate, options.betas)
    return torch.optim.Adam(network.parameters(), options.learning_rate, options.betas)
