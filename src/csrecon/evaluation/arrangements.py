"""Finds the arrangement of lab values: the order and the scale in which they give an image.

Every order of the pixels in a block and of the blocks is tried. With a wrong one the blocks do not
continue each other, and a network predicts held-out values worse (`heldout.py`). Gain and sign have
no influence on that: they follow from the level of the image, L in y ≈ L Φ1, which is the same in
every order. The gain is the one of a few (1, 255, 65535 and their negatives) with which the level
is that of a photograph. If there is none, any gain with such a level serves to compare the orders.

An image and its transpose are equally likely, so on a square grid two orders always go together: C
for pixels and blocks, and F for both. The simpler one is ranked first then.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray

from csrecon.errors import InputError
from csrecon.evaluation import heldout
from csrecon.evaluation.heldout import HoldoutOptions, Reconstruct
from csrecon.reconstructors import calibration
from csrecon.sensing import lab
from csrecon.sensing.lab import Arrangement, Order
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi
from csrecon.sensing.parts import crop

GAINS = (1.0, -1.0, 255.0, -255.0, 65535.0, -65535.0)
ORDERS: tuple[tuple[Order, Order], ...] = (("C", "C"), ("F", "C"), ("C", "F"), ("F", "F"))
"""Pixel order and block order."""

_USUAL = 0.4  # level of a photograph
_DARK, _BRIGHT = 0.02, 0.95  # levels of hardly any
_SAME = 0.3  # dB that do not tell two orders apart
_NOTHING = 0.9  # unpredicted share of the power from which on nothing is predicted
_MOST_BLOCKS = 400  # of an image; of a larger one, a square in its middle is tried


@dataclass(frozen=True)
class Candidate:
    """An arrangement, and how well it fits.

    Attributes:
        arrangement: order and gain.
        unpredicted: share of the held-out power that is not predicted.
        behind: by how many dB its held-out error exceeds the least.
    """

    arrangement: Arrangement
    unpredicted: float
    behind: float

    @property
    def possible(self) -> bool:
        """Whether the values cannot tell it from the best one."""
        return self.behind < _SAME

    @property
    def gain(self) -> str:
        """What --gain takes: the one that was given, a usual one, or auto."""
        gain = self.arrangement.gain
        return gain if isinstance(gain, str) else f"{gain:g}"

    @property
    def row(self) -> list[str]:
        """Its line in a table: order of pixels and of blocks, gain, dB behind, not predicted."""
        return [
            self.arrangement.pixel_order,
            self.arrangement.block_order,
            self.gain,
            f"+{self.behind:.2f}",
            f"{100 * self.unpredicted:.0f} %",
        ]


def doubts(ranked: Sequence[Candidate]) -> list[str]:
    """What a ranking leaves open, in sentences."""
    found = []
    if sum(one.possible for one in ranked) > 1:
        found.append(
            "The first orders differ by less than 0.3 dB: the image of one is that of the other, "
            "transposed, and only its content tells which is right."
        )
    if ranked[0].unpredicted > _NOTHING:
        found.append(
            "No order predicts the held-out values: another Φ, another array, or strong noise?"
        )
    return found


def rank(
    values: NDArray[Any],
    phi: Phi,
    shape: tuple[int, int] | None,
    given: Arrangement,
    reconstruct: Reconstruct,
    block: tuple[int, int] | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Candidate]:
    """All orders of the values with the gain that suits them, the best first.

    Args:
        values, phi, shape, block: as in lab.measurement.
        given: what is known: layout, positions, differential, noise. A gain other than 1 is kept,
            and `auto` is estimated in every order. With 1 the gain of a candidate is a usual one,
            or `auto` if none fits.
        reconstruct: a network; the better it knows such images, the surer the result.
        watch: is told how many of how many orders are done.

    Raises:
        InputError: values that do not fit Φ and the shape in any order, or are all zero.
        UsageError: too few rows to hold any out.
    """
    found: list[tuple[Arrangement, torch.Tensor]] = []
    refused: InputError | None = None
    for done, (pixels, blocks) in enumerate(ORDERS):
        watch(done, len(ORDERS))
        order = replace(given, pixel_order=pixels, block_order=blocks)
        try:
            m, _ = lab.measurement(values, phi, shape, order, block, estimator=calibration.estimate)
        except InputError as error:
            refused = error
            continue
        if given.gain == 1.0:
            likely = gain(m)
            order = replace(order, gain=likely if likely in GAINS else "auto")
            m = replace(m, y=m.y / likely, noise=m.noise / abs(likely))
        found.append((order, heldout.unpredicted(_part(m), reconstruct, HoldoutOptions(folds=2))))
    watch(len(ORDERS), len(ORDERS))
    if not found:
        assert refused is not None
        raise refused
    missed = [float(squares[0].sum()) for _, squares in found]
    least = max(min(missed), 1e-20)
    ranked = [
        Candidate(
            order,
            float(squares[0].sum() / squares[1].sum().clamp(min=1e-20)),
            10 * math.log10(max(own, 1e-20) / least),
        )
        for (order, squares), own in zip(found, missed, strict=True)
    ]
    # Stable: of orders that cannot be told apart, the earlier one in ORDERS comes first.
    return sorted(ranked, key=lambda one: 0.0 if one.possible else one.behind)


def gain(m: Measurement) -> float:
    """The gain of GAINS with which the level of the image is the most usual, else any other.

    Raises:
        InputError: the values are zero.
    """
    assert isinstance(m.operator, BlockOperator)
    white = m.operator.rows(torch.ones(m.operator.n)).double()
    values = m.y.double()
    there = m.operator.present
    if there is not None:
        values = values[:, there > 0]
    level = float((values @ white).mean() / white.square().sum().clamp(min=1e-20))
    if not bool(values.any()):
        raise InputError("the values are all zero: no order can be found.")
    if level == 0:
        return 1.0
    fitting = [one for one in GAINS if _DARK < level / one < _BRIGHT]
    if not fitting:
        return level / _USUAL
    return min(fitting, key=lambda one: abs(math.log(level / one / _USUAL)))


def _part(m: Measurement) -> Measurement:
    """The measurement, or the square of blocks in its middle if there are many."""
    operator = m.operator
    assert isinstance(operator, BlockOperator)
    gh, gw = operator.grid
    side = math.isqrt(_MOST_BLOCKS)
    if gh * gw <= _MOST_BLOCKS:
        return m
    size = min(gh, side), min(gw, side)
    return crop(m, ((gh - size[0]) // 2, (gw - size[1]) // 2), size)
