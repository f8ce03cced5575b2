"""Recursive deep unfolding: x ← prox_i(x - ρ_i Aᵀ(A x - y), α), layer i applied R_i times.

A plain unfolding network is the case where every count R_i is 1. A modulation maps the condition of
the measurement and the place in the recursion to gains α; it does not depend on the image, and a
block does not depend on the operator.

Source: R (Alhejaili et al. 2023), sections 3.1 and 3.2.
"""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Self, cast

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import pad

from csrecon.errors import UsageError
from csrecon.reconstructors.base import State, Step, last
from csrecon.reconstructors.modulation import Modulation
from csrecon.reconstructors.orientations import COUNT, oriented, upright
from csrecon.reconstructors.schedule import Count, Order, Schedule, Visit
from csrecon.reconstructors.starts import AdjointStart
from csrecon.sensing.measurement import Condition, Measurement
from csrecon.sensing.operators import BlockOperator, Blocks, IdentityOperator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recursion:
    """How the blocks of a network are applied.

    Attributes:
        schedule: default iterations of each layer.
        relax_after: relaxation (Krasnoselskii-Mann) of a layer's iterations after this one: the
            state moves half of the way to the layer's output, so that many iterations converge
            instead of oscillating; None for no relaxation.
        average_after: averaging of iterates (Polyak-Ruppert): the image is the mean of the iterates
            after this one, counted over all layers, and the recursion itself goes on from the last;
            None for the last iterate alone.
        rotate: rotation per iteration: the j-th iteration of a layer is computed in the j-th of the
            eight orientations of a square, so that errors of the layer do not accumulate: the
            geometric self-ensemble (Lim et al., EDSR, CVPR-W 2017) spread over the iterations.
        projection: the last iterate is made consistent with y (Measurement.consistent); with
            ‖A‖ ≤ 1 and noiseless y this never increases the error.
        order: of the visits (Schedule).
        blockwise: every block is reconstructed as a separate image (ISTA-Net+).
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schedule: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1, max_length=256)
    ]
    relax_after: Count | None = None
    average_after: Count | None = None
    rotate: bool = False
    projection: bool = False
    order: Order = "layers"
    blockwise: bool = False


@dataclass(frozen=True)
class Trained:
    """The range of training, and the largest IPL allowed.

    Attributes:
        ipl: the largest iteration count of a layer in training.
        max_ipl: the largest count allowed; above `ipl` the modulation is conditioned on its values
            at `ipl`, and a warning is logged.
        ratios: smallest and largest trained m/n.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    ipl: Annotated[int, Field(ge=1)]
    max_ipl: Annotated[int, Field(ge=1, le=1000)]
    ratios: tuple[float, float]


class ProxBlock(nn.Module, ABC):
    """One layer: a learned step length ρ and a proximal network.

    Attributes:
        channels: the most that its images may have: 1 for real images, 2 for complex ones too.
        sites: rows of gains that it takes.
        reach: radius of the receptive field of `prox` in pixels: the margin that a tile needs;
            None for blocks that depend on all of an image, which is never cut into tiles.
        scale: its features have 1/scale of the image's resolution.
        stride: the image is padded to multiples of it, by replication at the bottom and right.
        penalised: whether training uses the penalty of `prox`; if not, it is not computed.
        noise: of a denoiser for one noise level, its σ; None for others.
    """

    channels: int = 1
    sites = 1
    reach: int | None
    scale = 1
    stride = 1
    penalised = True
    noise: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.tensor(0.5))

    def begin(self, x: Tensor) -> State:
        """The initial state of the recursion, from x⁰ (B, C, H, W) of a padded size."""
        return State(x)

    def descend(self, state: State, gradient: Tensor) -> Tensor:
        """The gradient step r = x - ρ Aᵀ(A x - y), (B, C, H, W) (R, eq. 4)."""
        return state.image - self.rho * gradient

    @abstractmethod
    def prox(self, state: State, gradient: Tensor, gain: Tensor) -> tuple[State, Tensor]:
        """One iteration (R, eqs. 4 and 5).

        Args:
            state: image (B, C, H, W) and features.
            gradient: of the data-fidelity term at the image, (B, C, H, W).
            gain: (sites, features).

        Returns:
            The next state, and a scalar penalty that training may add to its loss; zero in
            evaluation mode.
        """

    def fold(self, gain: Tensor) -> None:
        """Multiply gains (sites, features) into the weights, in place.

        Gains of 1 then have the effect that these gains had. Only unrolling needs it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not fold gains into its weights.")

    def forward(self, state: State, gradient: Tensor, gain: Tensor) -> tuple[State, Tensor]:
        """`prox`."""
        return self.prox(state, gradient, gain)


Apply = Callable[[ProxBlock, State, Tensor, Tensor], tuple[State, Tensor]]
"""How a block is applied to a state, the gradient there, and its gains: state and penalty."""


def apply_whole(
    block: ProxBlock, state: State, gradient: Tensor, gain: Tensor
) -> tuple[State, Tensor]:
    """Apply a block to whole images."""
    result: tuple[State, Tensor] = block(state, gradient, gain)
    return result


class Average:
    """The mean of the iterates after one of them; up to that one, each iterate itself.

    Args:
        after: index, from 1, of the last iterate that is left out; None for no averaging.
    """

    def __init__(self, after: int | None) -> None:
        self._after = after
        self._mean: Tensor | None = None

    def __call__(self, image: Tensor, index: int) -> Tensor:
        """The result after the index-th iterate, (B, C, H, W); to be called for each in order."""
        if self._after is None or index <= self._after:
            return image
        if self._mean is None:
            self._mean = image
        else:
            self._mean = torch.lerp(self._mean, image, 1 / (index - self._after))
        return self._mean


class Unfolding(nn.Module):
    """An unfolding network: blocks applied by a schedule, with a modulation and a start.

    Args:
        blocks: one ProxBlock per layer.
        recursion: how they are applied; a Schedule stands for a Recursion without other options.
        modulation: makes the gains of every iteration.
        start: makes x⁰ of a measurement, and the gradient there; None for Aᵀy.
        trained: the range of training; None allows the counts of the schedule.

    Attributes:
        blueprint: JSON of the blueprint that the network was built from; None without one.
        task: what it was trained for.
    """

    blueprint: str | None = None
    task: str = "compressive-sensing"

    def __init__(
        self,
        blocks: Sequence[ProxBlock],
        recursion: Recursion | Schedule,
        modulation: Modulation,
        start: nn.Module | None = None,
        trained: Trained | None = None,
    ) -> None:
        super().__init__()
        if isinstance(recursion, Schedule):
            recursion = Recursion(recursion.counts, order=recursion.order)
        if len(blocks) != len(recursion.schedule):
            raise UsageError(f"{len(blocks)} blocks for a schedule of {len(recursion.schedule)}.")
        self.blocks = nn.ModuleList(blocks)
        self.recursion = recursion
        self.modulation = modulation
        highest = max(recursion.schedule)
        self.trained = trained or Trained(highest, highest, (0.0, 1.0))
        self.start = start or AdjointStart()
        self._apply_block: Apply = apply_whole

    @property
    def schedule(self) -> Schedule:
        """The counts and the order of the visits."""
        return Schedule(self.recursion.schedule, self.recursion.order)

    def at(self, ipl: int | Sequence[int]) -> Self:
        """A view of this network with other iteration counts, one for all layers or one per layer.

        The view shares all weights.

        Raises:
            UsageError: a count below 1, or another number of counts than layers.
        """
        view = copy.copy(self)
        view.recursion = replace(self.recursion, schedule=self.schedule.with_ipl(ipl).counts)
        return view

    def applied(self, by: Apply) -> Self:
        """A view of this network with its blocks applied in another way, such as tile by tile."""
        view = copy.copy(self)
        view._apply_block = by
        return view

    def orientation(self, visit: Visit) -> int:
        """The orientation, 0..7, in which a visited layer computes."""
        return (visit.iteration - 1) % COUNT if self.recursion.rotate else 0

    @property
    def allowed(self) -> bool:
        """Whether no count of the schedule is above `trained.max_ipl`."""
        return max(self.recursion.schedule) <= self.trained.max_ipl

    def check_allowed(self) -> None:
        """Raise UsageError for a schedule that is not allowed."""
        if not self.allowed:
            raise UsageError(
                f"IPL {self.schedule}: this network allows 1..{self.trained.max_ipl} iterations "
                "per layer."
            )

    def _check(self, m: Measurement) -> None:
        """Refuse images of too many channels; warn about conditions outside the training."""
        channels = m.operator.domain[0]
        known = cast(ProxBlock, self.blocks[0]).channels
        if channels > known:
            raise UsageError(
                f"this network reconstructs images of {known} channel(s), and the measurement is "
                f"of {'a complex image' if channels == 2 else f'{channels} channels'}. Use a "
                "classical solver, such as --model fista, or another network."
            )
        if self.training:
            return
        self.check_allowed()
        highest, trained = max(self.recursion.schedule), self.trained
        if highest > trained.ipl:
            log.warning(
                "IPL %s: above %d iterations per layer the modulation is conditioned on its "
                "values there.",
                self.schedule,
                trained.ipl,
            )
        low, high = trained.ratios
        ratio = m.operator.ratio
        if not low * 0.9 <= ratio <= high * 1.1:
            log.warning(
                "ratio %.4f lies outside the trained range %g..%g: quality is unknown there.",
                ratio,
                low,
                high,
            )
        if self.task == "mri" and isinstance(m.operator, (BlockOperator, IdentityOperator)):
            log.warning(
                "this network was trained on k-space, and the measurement is of another kind: "
                "quality is unknown. `frcoast` is for block sampling."
            )
        only = cast(ProxBlock, self.blocks[0]).noise
        if only and not only * 0.9 <= m.noise <= only * 1.1:
            log.warning(
                "noise σ %.4g: this network denoises σ %.4g only. `denoise:with=` scales every "
                "image to it.",
                m.noise,
                only,
            )

    def steps(self, m: Measurement) -> Iterator[Step]:
        """Every iterate of the recursion, in order.

        Args:
            m: the measurement; its operator should have ‖A‖ ≤ 1 (Measurement.normalized).

        Raises:
            UsageError: counts that this network does not allow, images with too many channels, or
                `blockwise` without block sampling.
        """
        self._check(m)
        condition = Condition(m.operator.ratio, m.noise)
        local, blocks = self._split(m)
        with torch.autocast(local.y.device.type, enabled=False):
            x, gradient = self.start(local)
        state = cast(ProxBlock, self.blocks[0]).begin(self._padded(x))
        height, width = x.shape[-2:]
        del x
        average = Average(self.recursion.average_after)
        for visit in self.schedule.visits(self.trained.ipl):
            if visit.index > 1:
                gradient = local.gradient(state.image[..., :height, :width])
            gain = self.modulation(condition, visit)
            block = cast(ProxBlock, self.blocks[visit.layer])
            turn = self.orientation(visit)
            gradient = oriented(self._padded(gradient), turn)
            relax_after = self.recursion.relax_after
            relaxing = relax_after is not None and visit.iteration > relax_after
            previous = state if relaxing else None
            state = state.map(partial(oriented, orientation=turn))
            proposed, penalty = self._apply_block(block, state, gradient, gain)
            del gradient, state  # saves memory for huge images
            proposed = proposed.map(partial(upright, orientation=turn))
            state = previous.relaxed(proposed) if previous is not None else proposed
            del previous, proposed
            if block.stride > 1:  # the padding replicates the border of the image
                cropped = state.image[..., :height, :width]
                state = State(self._padded(cropped), state.features)
            image = average(state.image[..., :height, :width], visit.index)
            if self.recursion.projection and visit.index == visit.total:
                image = local.consistent(image)
            whole = blocks.join(image) if blocks is not None else image
            yield Step(whole, penalty, visit.index, visit.total)
            del image, whole

    def _split(self, m: Measurement) -> tuple[Measurement, Blocks | None]:
        """The measurement to reconstruct, and what joins its blocks if it was split."""
        if not self.recursion.blockwise:
            return m, None
        if not isinstance(m.operator, Blocks):
            raise UsageError(
                "this network works block by block, and the operator "
                f"({type(m.operator).__name__}) has no blocks."
            )
        operator, y = m.operator.split(m.y)
        return replace(m, operator=operator, y=y), m.operator

    def _padded(self, x: Tensor) -> Tensor:
        """Images padded to a multiple of the blocks' stride, by replication."""
        stride = cast(ProxBlock, self.blocks[0]).stride
        down, right = -x.shape[-2] % stride, -x.shape[-1] % stride
        return pad(x, (0, right, 0, down), mode="replicate") if down or right else x

    def forward(self, m: Measurement) -> Tensor:
        """The last iterate, (B, C, H, W), not clipped."""
        return last(self.steps(m)).image
