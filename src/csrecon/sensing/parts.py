"""Parts of a measurement in blocks: some rows of Φ, or some of the blocks."""

from collections.abc import Sequence
from dataclasses import replace

from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator

Corner = tuple[int, int]
"""Block row and block column of the first block of a crop."""


def of_rows(m: Measurement, rows: Sequence[int]) -> Measurement:
    """The measurement by some of the rows of Φ; m is block sampling."""
    assert isinstance(m.operator, BlockOperator)
    operator = m.operator.select(rows).to(m.y.device)
    return Measurement(operator, m.y[..., list(rows)].contiguous(), m.format, m.noise, m.scale)


def crop(m: Measurement, corner: Corner, size: tuple[int, int]) -> Measurement:
    """The measurement of some whole blocks, as of an image of these blocks alone.

    Args:
        m: block sampling.
        corner: of the crop.
        size: in blocks; it may reach the border of the image, and not beyond.
    """
    operator = m.operator
    assert isinstance(operator, BlockOperator)
    rows, columns = (slice(a, a + n) for a, n in zip(corner, size, strict=True))
    height, width = (
        min(n * side, whole - a * side)
        for a, n, side, whole in zip(
            corner, size, operator.block, operator.image_shape, strict=True
        )
    )
    there = None if operator.present is None else operator.present[rows, columns]
    part = BlockOperator(operator.phi, (height, width), operator.block, operator.rows, there)
    return replace(m, operator=part, y=m.y[:, rows, columns].contiguous())
