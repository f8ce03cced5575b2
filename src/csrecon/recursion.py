"""Recursive deep unfolding: x ← prox_i(x - ρ_i Aᵀ(A x - y), α), layer i applied R_i times.

A plain unfolding network is the case where every count R_i is 1. A modulation turns the place in
the recursion into gains α; it never sees the image, a block never sees the operator.

Source: R (Alhejaili et al. 2023), sections 3.1 and 3.2.
"""

import logging
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from csrecon.errors import UsageError
from csrecon.measurement import Measurement
from csrecon.orientations import COUNT, oriented, upright
from csrecon.starts import AdjointStart

log = logging.getLogger(__name__)

Order = Literal["layers", "stack"]
Count = Annotated[int, Field(ge=1, le=1024)]
"""A number of channels or steps; builders are called with what a file's metadata say."""


@dataclass(frozen=True)
class Visit:
    """One application of a layer.

    Attributes:
        layer: which block, from 0.
        iteration: this is the layer's own iteration-th, from 1.
        index: this is the index-th iteration of the call, from 1, of `total`.
        told_index, told_total: R_cur and R_tot as the modulation hears them; inside the trained
            counts they equal index and total.
    """

    layer: int
    iteration: int
    index: int
    total: int
    told_index: int
    told_total: int


@dataclass(frozen=True)
class Schedule:
    """How often each layer is applied, and in which order the layers are visited.

    `layers` visits 0,0,0,1,1,1,… as the paper does; `stack` loops the whole stack, 0,1,0,1,….
    """

    counts: tuple[int, ...]
    order: Order = "layers"

    def __post_init__(self) -> None:
        """Raise UsageError for a count below 1."""
        if not self.counts or min(self.counts) < 1:
            raise UsageError(
                f"iterations per layer {self.counts}: expected at least 1 for every layer."
            )

    def with_ipl(self, ipl: int | Sequence[int]) -> "Schedule":
        """The same layers and order with other counts: one IPL for all, or one a layer.

        Raises:
            UsageError: a count below 1, or another number of counts than layers.
        """
        layers = len(self.counts)
        counts = (ipl,) * layers if isinstance(ipl, int) else tuple(ipl)
        if len(counts) != layers:
            raise UsageError(
                f"{len(counts)} iteration counts {counts} for a network of {layers} layers: "
                f"give one number, or {layers}."
            )
        return Schedule(counts, self.order)

    def path(self) -> Iterator[int]:
        """The layer of every iteration, in order."""
        if self.order == "layers":
            for layer, count in enumerate(self.counts):
                yield from (layer,) * count
        else:
            for loop in range(max(self.counts)):
                yield from (layer for layer, count in enumerate(self.counts) if count > loop)

    def visits(self, trained_ipl: int) -> Iterator[Visit]:
        """Every iteration with what the modulation is told.

        Counts beyond `trained_ipl` are told as the schedule clamped to it: the j-th iteration of
        a layer hears what its min(j, trained_ipl)-th hears there, so that conditioning stays,
        layer by layer, inside the values that layer was trained with.
        """
        clamped = Schedule(tuple(min(c, trained_ipl) for c in self.counts), self.order)
        told: dict[tuple[int, int], int] = {}
        seen: Counter[int] = Counter()
        for position, layer in enumerate(clamped.path(), start=1):
            seen[layer] += 1
            told[layer, seen[layer]] = position
        seen.clear()
        for position, layer in enumerate(self.path(), start=1):
            seen[layer] += 1
            known = told[layer, min(seen[layer], trained_ipl)]
            yield Visit(layer, seen[layer], position, sum(self.counts), known, sum(clamped.counts))

    def __str__(self) -> str:
        """`4` for equal counts, else `4,4,4,6,6`."""
        same = len(set(self.counts)) == 1
        return str(self.counts[0]) if same else ",".join(map(str, self.counts))


@dataclass(frozen=True)
class Limits:
    """What a trained network knows: facts of its card.

    Attributes:
        trained_ipl: the largest iteration count of a layer seen in training.
        max_ipl: the largest count allowed; between both, conditioning is held and a note says so.
        ratios: smallest and largest trained level m/n.
    """

    trained_ipl: int
    max_ipl: int
    ratios: tuple[float, float]


@dataclass(frozen=True)
class Step:
    """One iterate: images (B, 1, H, W), the training penalty (scalar), and where we are."""

    image: Tensor
    penalty: Tensor
    index: int
    total: int


def last(iterates: Iterator[Step]) -> Step:
    """The final iterate; the others are let go as they come."""
    return deque(iterates, maxlen=1).pop()


class Reconstructor(Protocol):
    """What turns a measurement into an image: an unfolding network or a classical solver."""

    def steps(self, m: Measurement, schedule: Schedule | None = None) -> Iterator[Step]:
        """Every iterate, in order; the last is the result."""

    def __call__(self, m: Measurement, schedule: Schedule | None = None) -> Tensor:
        """The reconstruction (B, 1, H, W), not clipped."""


class Modulation(nn.Module, ABC):
    """Makes the gains α of an iteration, (sites, features): one row a place in the block."""

    @abstractmethod
    def forward(self, level: float, noise: float, visit: Visit) -> Tensor:
        """Gains for a measurement of this level and noise at this place in the recursion."""


class NoModulation(Modulation):
    """Gains that are all 1."""

    ones: Tensor

    def __init__(self, features: int, sites: int = 1) -> None:
        super().__init__()
        self.register_buffer("ones", torch.ones(sites, features), persistent=False)

    def forward(self, level: float, noise: float, visit: Visit) -> Tensor:
        """Return ones."""
        return self.ones


class RatioGain(Modulation):
    """COAST's modulation: Linear(1 → features) of the ratio m/n, one unit for every block.

    Source: C, section III-C.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(1, features)

    def forward(self, level: float, noise: float, visit: Visit) -> Tensor:
        """Gains from the level alone."""
        return cast(Tensor, self.linear(self.linear.weight.new_tensor([[level]])))


class RFMU(Modulation):
    """Recursion feature modulation unit: Linear, ReLU, Linear of z, shared by all blocks.

    z = (level_scale · level, R_tot / max_steps, R_cur / max_steps, noise_scale · σ); without
    `level_scale` the level is left out, as in RISTA-Net+, and without `noise_scale` the noise, as
    in both networks of the paper.

    Args:
        features: gains per site.
        max_steps: layers × IPL that the network is trained for.
        sites: places in a block with a unit of their own.
        level_scale: what the level is multiplied by (2 for ratios up to 1/2), or None.
        noise_scale: what the standard deviation of the noise on y is multiplied by, 1 at most
            being told, or None.

    Source: R, section 3.2.
    """

    def __init__(
        self,
        features: int,
        max_steps: int,
        sites: int = 1,
        level_scale: float | None = 2.0,
        noise_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.max_steps = max_steps
        self.level_scale = level_scale
        self.noise_scale = noise_scale
        inputs = 2 + (level_scale is not None) + (noise_scale is not None)
        self.units = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, features), nn.ReLU(), nn.Linear(features, features))
            for _ in range(sites)
        )

    def forward(self, level: float, noise: float, visit: Visit) -> Tensor:
        """Gains from the level, the noise and the place in the recursion."""
        z = [visit.told_total / self.max_steps, visit.told_index / self.max_steps]
        if self.level_scale is not None:
            z.insert(0, self.level_scale * level)
        if self.noise_scale is not None:
            z.append(min(1.0, self.noise_scale * noise))  # no more than in training
        told = next(self.parameters()).new_tensor(z)
        return torch.stack([unit(told) for unit in self.units])


class ProxBlock(nn.Module, ABC):
    """One layer: a learned step length ρ and a proximal network.

    Attributes:
        reach: how many pixels far `prox` looks: what a tile needs around it.
        penalised: whether training wants the penalty of `prox`; without, none is computed.
    """

    reach: int
    penalised = True

    def __init__(self) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.tensor(0.5))

    @abstractmethod
    def prox(self, r: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 1, H, W) and gains (sites, features) to images and a penalty.

        The penalty is a scalar that training may add to its loss; zero in evaluation mode.
        """

    def fold(self, gain: Tensor) -> None:
        """Multiply gains (sites, features) into the weights, in place.

        From then on gains of 1 do what these gains did before. Unrolling needs it, nothing else.
        """
        raise NotImplementedError(f"{type(self).__name__} does not fold gains into its weights.")

    def forward(self, x: Tensor, gradient: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """One iteration from x with the gradient of the data term at x (R, eqs. 4 and 5)."""
        return self.prox(x - self.rho * gradient, gain)


Apply = Callable[[ProxBlock, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""How a block is applied to x, the gradient at x, and its gains: images and the penalty."""


def apply_whole(
    block: ProxBlock, x: Tensor, gradient: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor]:
    """Apply a block to whole images."""
    result: tuple[Tensor, Tensor] = block(x, gradient, gain)
    return result


class Unfolding(nn.Module):
    """Blocks, visited by a schedule, modulated, from a start: every network of csrecon.

    Args:
        blocks: one ProxBlock a layer.
        schedule: the counts used where a call names none.
        modulation: makes the gains of every iteration.
        limits: what the network was trained for; None allows what the schedule asks.
        start: makes x⁰ of a measurement, and the gradient to begin with.
        blockwise: every block is reconstructed as an image of its own (ISTA-Net+).
        projection: the last iterate is made consistent with y (Measurement.consistent); with
            ‖A‖ ≤ 1 and noiseless y that never raises the error.
        halved_after: from the iteration of a layer after this one, x moves half of the way that
            the layer proposes (Krasnoselskii-Mann), so that many iterations settle instead of
            swinging; None never.
        turning: the j-th iteration of a layer sees the image in the j-th of the eight
            orientations of a square, so that the layer's own errors do not add up: the geometric
            self-ensemble (Lim et al., EDSR, CVPR-W 2017) spread over the iterations.
    """

    def __init__(
        self,
        blocks: Sequence[ProxBlock],
        schedule: Schedule,
        modulation: Modulation,
        limits: Limits | None = None,
        start: nn.Module | None = None,
        blockwise: bool = False,
        projection: bool = False,
        halved_after: int | None = None,
        turning: bool = False,
    ) -> None:
        super().__init__()
        if len(blocks) != len(schedule.counts):
            raise UsageError(f"{len(blocks)} blocks for a schedule of {len(schedule.counts)}.")
        self.blocks = nn.ModuleList(blocks)
        self.schedule = schedule
        self.modulation = modulation
        highest = max(schedule.counts)
        self.limits = limits or Limits(highest, highest, (0.0, 1.0))
        self.start = start or AdjointStart()
        self.blockwise = blockwise
        self.projection = projection
        self.halved_after = halved_after
        self.turning = turning

    def orientation(self, visit: Visit) -> int:
        """The orientation, 0..7, in which a visited layer sees the image."""
        return (visit.iteration - 1) % COUNT if self.turning else 0

    def check_allowed(self, schedule: Schedule) -> None:
        """Raise UsageError for a schedule above `limits.max_ipl`."""
        if max(schedule.counts) > self.limits.max_ipl:
            raise UsageError(
                f"IPL {schedule}: this network allows 1..{self.limits.max_ipl} iterations per "
                "layer."
            )

    def _warn(self, m: Measurement, schedule: Schedule) -> None:
        """Say what lies outside the training."""
        highest, limits = max(schedule.counts), self.limits
        if highest > limits.trained_ipl:
            log.warning(
                "IPL %s: above %d iterations per layer, what the layers are told of their place "
                "stays as it is there.",
                schedule,
                limits.trained_ipl,
            )
        low, high = limits.ratios
        if not low * 0.9 <= m.level <= high * 1.1:
            log.warning(
                "ratio %.4f lies outside the trained range %g..%g: quality is not known there.",
                m.level,
                low,
                high,
            )

    def steps(
        self, m: Measurement, schedule: Schedule | None = None, apply: Apply = apply_whole
    ) -> Iterator[Step]:
        """Every iterate of the recursion, in order.

        Args:
            m: the measurement; its operator should have orthonormal rows (Measurement.whiten).
            schedule: counts of this call; None for the network's own.
            apply: how a block is applied, such as tile by tile.

        Raises:
            UsageError: a schedule that this network does not allow.
        """
        schedule = self.schedule.with_ipl(schedule.counts) if schedule else self.schedule
        if not self.training:
            self.check_allowed(schedule)
            self._warn(m, schedule)
        local = m.per_block() if self.blockwise else m
        with torch.autocast(local.y.device.type, enabled=False):
            x, gradient = self.start(local)
        for visit in schedule.visits(self.limits.trained_ipl):
            if visit.index > 1:
                gradient = local.gradient(x)
            gain = self.modulation(m.level, m.noise, visit)
            block = cast(ProxBlock, self.blocks[visit.layer])
            seen = self.orientation(visit)
            gradient = oriented(gradient, seen)
            proposed, penalty = apply(block, oriented(x, seen), gradient, gain)
            del gradient  # a huge image has room for few of its size
            proposed = upright(proposed, seen)
            settling = self.halved_after is not None and visit.iteration > self.halved_after
            x = (x + proposed) / 2 if settling else proposed
            del proposed
            if self.projection and visit.index == visit.total:
                x = local.consistent(x)
            image = m.operator.join_blocks(x) if self.blockwise else x
            yield Step(image, penalty, visit.index, visit.total)

    def forward(self, m: Measurement, schedule: Schedule | None = None) -> Tensor:
        """The last iterate, (B, 1, H, W), not clipped."""
        return last(self.steps(m, schedule)).image
