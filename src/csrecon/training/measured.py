"""Measurements as training data: rows that are kept apart, crops, and random splits of the rows.

The rows of every Φ (m, n) are orthonormal. They are divided once:

* a tenth of them is held out and never used in training. Half of these rows choose the best
  weights (`chosen`), the other half only judges them (`judged`), so that the choice does not
  flatter the gain;
* the others train. In every step a random part of them is the input, and the network has to predict
  the rest, the targets.

Rows that see the mean of a block are always part of the input: without them no network could know
the brightness, and no random row stands for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from csrecon.errors import UsageError
from csrecon.evaluation import heldout
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator
from csrecon.sensing.parts import Corner, crop, of_rows

_HELD = 0.1  # share of the free rows that training never uses
_FEWEST = 6  # free rows: two are held out, and the others split into input and targets
_LEAST, _MOST = 0.6, 0.95  # share of the free training rows that are the input


@dataclass(frozen=True, eq=False)
class Divided:
    """A normalized measurement, its rows divided.

    Attributes:
        training: the measurement by the rows of training.
        held: by the rows that are held out, the `chosen` ones first.
        chosen: how many of these choose the weights; the others judge them.
        free: rows of `training` that may be targets.
    """

    training: Measurement
    held: Measurement
    chosen: int
    free: Tensor

    @classmethod
    def of(cls, m: Measurement, seed: int, name: str) -> "Divided":
        """Divide the rows of a measurement at random.

        Args:
            m: block sampling of at least six rows besides those that see the mean.
            seed: of the choice.
            name: of the measurement, for messages.

        Raises:
            UsageError: another operator, or too few rows.
            InputError: values far larger than those of any image in [0, 1].
        """
        if not isinstance(m.operator, BlockOperator):
            raise UsageError(
                f"{name}: measured by {type(m.operator).__name__}. A network is adapted to block "
                "sampling only, whose rows can be held out; leave this measurement out."
            )
        whole = m.normalized()
        execution.check_scale(whole)
        operator = whole.operator
        assert isinstance(operator, BlockOperator)
        free = heldout.free_rows(operator)
        if len(free) < _FEWEST:
            raise UsageError(
                f"{name}: {operator.m} rows per block, {operator.m - len(free)} of which see the "
                f"mean: too few. Adapting needs {_FEWEST} others, to hold some out and to predict "
                "some; measure more values per block, or use larger blocks."
            )
        draw = torch.Generator().manual_seed(seed)
        order = free[torch.randperm(len(free), generator=draw)].tolist()
        count = max(2, round(_HELD * len(order)))
        out = order[:count]
        rest = sorted(set(range(operator.m)) - set(out))
        training = of_rows(whole, rest)
        assert isinstance(training.operator, BlockOperator)
        return cls(
            training,
            of_rows(whole, out),
            count // 2,
            heldout.free_rows(training.operator),
        )

    @property
    def operator(self) -> BlockOperator:
        """The operator of the rows of training."""
        assert isinstance(self.training.operator, BlockOperator)
        return self.training.operator

    def to(self, device: torch.device) -> "Divided":
        """A copy on a device."""
        return replace(self, training=self.training.to(device))

    def size(self, pixels: int) -> tuple[int, int]:
        """Blocks per column and row of a crop of about so many pixels a side."""
        down, across = (
            min(blocks, max(1, round(pixels / side)))
            for blocks, side in zip(self.operator.grid, self.operator.block, strict=True)
        )
        return down, across

    def corners(self, pixels: int, apart: bool = False) -> list[Corner]:
        """The crops with measured blocks in them: all, or those that lie side by side."""
        (down, across), (gh, gw) = self.size(pixels), self.operator.grid
        there = self.operator.present
        return [
            (top, left)
            for top in range(0, gh - down + 1, down if apart else 1)
            for left in range(0, gw - across + 1, across if apart else 1)
            if there is None or bool(there[top : top + down, left : left + across].any())
        ]

    def split(self, draw: torch.Generator) -> tuple[list[int], list[int]]:
        """Rows of `training` at random: those of the input, and those of the targets."""
        share = _LEAST + (_MOST - _LEAST) * float(torch.rand((), generator=draw))
        order = self.free[torch.randperm(len(self.free), generator=draw)].tolist()
        count = min(max(1, round(share * len(order))), len(order) - 1)
        targets = sorted(order[count:])
        return sorted(set(range(self.operator.m)) - set(targets)), targets


def squares(m: Measurement, image: Tensor) -> Tensor:
    """Squared differences between A x and y, (C, blocks, m), of the measured blocks."""
    operator = m.operator
    assert isinstance(operator, BlockOperator)
    found: Tensor = (operator(image) - m.y).square()
    every = found.flatten(1, 2)
    return every if operator.present is None else every[:, operator.present.flatten() > 0]


@dataclass(frozen=True, eq=False)
class Case:
    """A crop whose reconstruction is judged by rows that training never uses.

    Attributes:
        index: of the measurement.
        training, held: the crop by the rows of training, and by those held out.
        chosen: as in Divided.
    """

    index: int
    training: Measurement
    held: Measurement
    chosen: int

    def errors(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Squared errors without the noise, (blocks, rows), of the rows that choose and judge."""
        found = squares(self.held, image).sum(dim=0).double() - self._noise
        return found[:, : self.chosen], found[:, self.chosen :]

    @property
    def _noise(self) -> float:
        return len(self.held.y) * self.held.noise**2


def cases(divided: Sequence[Divided], pixels: int, most: int, seed: int) -> list[Case]:
    """Crops of all measurements, one after the other, at most `most`, on the CPU."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(divided), generator=draw).tolist()
    places = []
    for one in divided:
        corners = one.corners(pixels, apart=True)
        places.append([corners[i] for i in torch.randperm(len(corners), generator=draw).tolist()])
    found = []
    for turn in range(max(map(len, places))):
        for index in order:
            if turn < len(places[index]):
                one, corner = divided[index], places[index][turn]
                size = one.size(pixels)
                training, held = (crop(m, corner, size) for m in (one.training, one.held))
                found.append(Case(index, training, held, one.chosen))
    return found[:most]
