"""The error of a reconstruction without the true image, from measurements that are held out.

The rows of Φ (m, n) are orthonormal. Of every block, h rows are held out and x̂_k is reconstructed
from the other k. Let e_k be its error, P_k and P_m the projections onto what k rows and all m do
not see. The rows of a random Φ that were held out are uniform in the range of P_k, so

    E (φ_h e_k)² = ‖P_k e_k‖² / (n - k),   and   φ_h e_k = φ_h x̂_k - y_h, plus noise of variance σ²,

gives ‖P_k e_k‖², of which P_m e_k has the share (n - m) / (n - k). From the k rows to all: for x̂_k
and x̂_m that are conditional means given nested data,

    E ‖P_m e_k‖² = E ‖P_m e_m‖² + E ‖P_m (x̂_k - x̂_m)‖²,

and the last term is known. Networks that minimize a squared error approximate conditional means.
What is left of e_m lies in the rows of Φ. Without noise it is Φ x̂_m - y, and with noise its
expected square is ‖Φ x̂_m - y‖² - m σ² + 2 σ² div, where div is the divergence of Φ x̂_m by y, along
one random direction.

Of a structured Φ (DCT, Hadamard of the lowest frequencies) the rows that were measured are the
important ones: what was not measured is then smaller than estimated. A row that sees the mean of
the block is never held out.

Sources: cross-validation as in Ward, IEEE Trans. Inf. Theory 2009 (compressed sensing with cross
validation); Stein, Ann. Stat. 1981, with the divergence by Ramani et al., IEEE TIP 2008.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from csrecon.errors import UsageError
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator
from csrecon.sensing.parts import of_rows

Reconstruct = Callable[[Measurement], Tensor]
"""Maps a measurement to images (B, 1, H, W) on the CPU."""

_MEAN = 0.25  # share of the squared norm of a row along the mean, above which it stays
_LEAST = 0.05  # of the error with fewer rows: the least that all rows can leave
_STEP = 0.3  # relative standard error of the step from k rows to all
_ORDERED = 1.5  # times the power of a random Φ: the rows are the important ones
_UNPREDICTED = 0.9  # share of the held-out power from which on the values do not fit
_ROUGH = 0.5  # share from which on they may have another order: wrong ones give 0.6 to 1
_CORRELATION = 0.95  # per pixel, of the scenes by which a Φ is judged


@dataclass(frozen=True)
class HoldoutOptions:
    """What is held out.

    Attributes:
        folds: how often; every fold holds out other rows.
        share: of the rows of a fold.
        seed: of the choice of rows.
    """

    folds: int = 8
    share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UsageError for numbers out of range."""
        if self.folds < 1:
            raise UsageError(f"folds {self.folds}: expected at least 1.")
        if not 0 < self.share <= 0.5:
            raise UsageError(f"share {self.share}: expected a number in (0, 0.5].")


@dataclass(frozen=True)
class Check:
    """The estimated error of a reconstruction.

    Attributes:
        psnr: estimated PSNR in dB, of the reconstruction from all rows.
        error: its standard error in dB.
        unpredicted: power of the held-out values that is not predicted, relative to that around
            the mean of their block; 1 for a reconstruction that knows nothing but the means.
        folds, held_out: reconstructions, and rows held out in each.
        mse: estimated mean squared error of every block, (gh, gw); NaN where it was not measured.
        ordered: whether the rows are the important ones: the error is then overestimated.
        image: the reconstruction that was checked, (C, 1, H, W).
        images: those from fewer rows, each (C, 1, H, W).
    """

    psnr: float
    error: float
    unpredicted: float
    folds: int
    held_out: int
    mse: Tensor
    ordered: bool
    image: Tensor = field(repr=False)
    images: list[Tensor] = field(repr=False)

    @property
    def fits(self) -> bool:
        """Whether the reconstruction predicts held-out values better than the mean of a block."""
        return self.unpredicted < _UNPREDICTED

    @property
    def doubtful(self) -> bool:
        """Whether it predicts so little of them as with another order of the values."""
        return self.unpredicted > _ROUGH


def check(
    m: Measurement,
    image: Tensor,
    reconstruct: Reconstruct,
    options: HoldoutOptions = HoldoutOptions(),
    weights: tuple[float, ...] | None = None,
) -> Check:
    """Estimate the error of `image`, the reconstruction of `m`, by further ones from fewer rows.

    Args:
        m: block sampling of at least two rows besides those that see the mean.
        image: (C, 1, H, W), reconstructed from all of m.
        reconstruct: what made it.
        options: what is held out.
        weights: of the planes in the mean squared error; None for equal ones.

    Raises:
        UsageError: another operator, or too few rows.
    """
    whole, operator = _prepared(m)
    held = _folds(operator, options)
    planes = len(whole.y)
    share = torch.tensor(weights or [1 / planes] * planes, dtype=torch.float64)
    there = torch.ones(operator.grid) if operator.present is None else operator.present.cpu()
    seen = there > 0
    images = []
    unseen, moved = (torch.zeros(planes, *operator.grid).double() for _ in range(2))
    missed, power = 0.0, 0.0
    of_row: list[Tensor] = []  # unseen error by every held-out row alone
    for rows in held:
        others = _others(operator, rows)
        fewer = of_rows(whole, others)
        x = reconstruct(fewer)
        residual = (operator(x) - whole.y).double()
        squares = residual[..., rows].square().mean(dim=-1)
        by_row = residual[:, seen][..., rows].square().sum(dim=1)
        of_row.append((operator.n - operator.m) * (share[:, None] * by_row).sum(dim=0))
        unseen += (operator.n - operator.m) * (squares - whole.noise**2) / len(held)
        moved += _unseen(operator, x - image) / len(held)
        missed += float((squares - whole.noise**2)[:, seen].sum())
        power += float((_around(whole, x, rows) - whole.noise**2)[:, seen].sum())
        images.append(x)
    known = (operator(image) - whole.y).double().square().sum(dim=-1)
    if whole.noise:
        known += _overfitted(whole, image, reconstruct, options.seed)
    of_block = unseen - moved + known
    weighted = share[:, None, None] * of_block
    inside = area(operator)
    pixels = float(inside[seen].sum())
    step = float((share[:, None, None] * moved)[:, seen].sum())
    total = float(weighted[:, seen].sum())
    total = max(total, _LEAST * (total + step), 1e-9 * pixels)
    variance = _variance((share[:, None, None] * unseen)[:, seen], torch.cat(of_row))
    variance += (_STEP * step) ** 2
    drowned = whole.noise**2 * float(seen.sum()) * planes * len(held)
    mse = torch.where(seen, weighted.sum(0).clamp(min=0) / inside, torch.nan)
    return Check(
        psnr=-10 * math.log10(total / pixels),
        error=10 / math.log(10) * math.sqrt(variance) / total,
        unpredicted=max(0.0, missed) / power if power > drowned else 0.0,
        folds=len(held),
        held_out=len(held[0]),
        mse=mse.float(),
        ordered=is_ordered(operator),
        image=image,
        images=images,
    )


def unpredicted(
    m: Measurement, reconstruct: Reconstruct, options: HoldoutOptions = HoldoutOptions()
) -> Tensor:
    """Squares of the held-out values that are not predicted, and of their deviation from the mean.

    Returns:
        (2, gh, gw), summed over the folds and planes; what two measurements of the same rows miss
        compares how well their arrangements fit the scenes that `reconstruct` expects.

    Raises:
        UsageError: another operator than block sampling, or too few rows.
    """
    whole, operator = _prepared(m)
    found = torch.zeros(2, *operator.grid).double()
    for rows in _folds(operator, options):
        fewer = of_rows(whole, _others(operator, rows))
        x = reconstruct(fewer)
        missed = (operator(x) - whole.y).double()[..., rows].square().mean(dim=-1)
        found += torch.stack([missed.sum(dim=0), _around(whole, x, rows).sum(dim=0)])
    return found


def _prepared(m: Measurement) -> tuple[Measurement, BlockOperator]:
    """The measurement with orthonormal rows, and its operator."""
    whole = m.normalized()
    if not isinstance(whole.operator, BlockOperator):
        raise UsageError(
            f"{type(whole.operator).__name__}: rows are held out of block sampling only; leave out "
            "the check."
        )
    return whole, whole.operator


def _others(operator: BlockOperator, rows: list[int]) -> list[int]:
    return sorted(set(range(operator.m)) - set(rows))


def _around(m: Measurement, image: Tensor, rows: list[int]) -> Tensor:
    """Mean square of some values around those of the block's mean in an image, (C, gh, gw)."""
    assert isinstance(m.operator, BlockOperator)
    level: Tensor = m.operator(_means(m.operator, image))
    return (m.y - level).double()[..., rows].square().mean(dim=-1)


def _variance(of_block: Tensor, of_row: Tensor) -> float:
    """Variance of the sum of the unseen errors of blocks.

    Every block has as many squares of normal values as there are rows in `of_row`, χ². If errors
    of different blocks lie along the same direction, sums over the blocks differ more from row to
    row than this says.
    """
    drawn = len(of_row)
    independent = float(of_block.square().sum()) * 2 / drawn / (1 + 2 / drawn)
    common = float(of_row.var()) / drawn if drawn > 1 else 0.0
    return max(independent, common)


def free_rows(operator: BlockOperator) -> Tensor:
    """The rows of an orthonormal Φ that may be held out, (K,): those that do not see the mean."""
    ones = operator.rows(torch.ones(operator.n)) / math.sqrt(operator.n)
    return torch.nonzero(ones.square() < _MEAN).flatten()


def is_ordered(operator: BlockOperator) -> bool:
    """Whether the rows are the important ones, so that held-out rows overestimate an error."""
    return _captured(operator) > _ORDERED


def _folds(operator: BlockOperator, options: HoldoutOptions) -> list[list[int]]:
    """The rows that each fold holds out."""
    free = free_rows(operator)
    if len(free) < 2:
        raise UsageError(
            f"{operator.m} rows per block, {operator.m - len(free)} of which see the mean: too few "
            "to hold any out. A check needs at least two more."
        )
    draw = torch.Generator().manual_seed(options.seed)
    order = free[torch.randperm(len(free), generator=draw)].tolist()
    count = max(1, round(options.share * len(order)))
    folds = min(options.folds, len(order) // count)
    return [sorted(order[i * count : (i + 1) * count]) for i in range(folds)]


def _unseen(operator: BlockOperator, image: Tensor) -> Tensor:
    """Squared norm of what no row sees of every block, (C, gh, gw)."""
    whole: Tensor = operator.blocks(image.double()).square().sum(dim=-1)
    seen: Tensor = operator(image).double().square().sum(dim=-1)
    return whole - seen


def area(operator: BlockOperator) -> Tensor:
    """Pixels of every block that lie inside the image, (gh, gw)."""
    return operator.blocks(torch.ones(1, 1, *operator.image_shape)).sum(dim=-1)[0].double()


def _means(operator: BlockOperator, image: Tensor) -> Tensor:
    """The image with every block replaced by its mean."""
    inside = area(operator)[..., None].to(image)
    means: Tensor = operator.blocks(image).sum(dim=-1, keepdim=True) / inside
    return operator.assemble(means.expand(-1, -1, -1, operator.n))


def _overfitted(m: Measurement, image: Tensor, reconstruct: Reconstruct, seed: int) -> Tensor:
    """2 σ² div - k σ² for every block, (C, gh, gw): what fitting the noise adds to the residual."""
    draw = torch.Generator().manual_seed(seed)
    along = torch.randn(m.y.shape, generator=draw).to(m.y)
    moved = Measurement(m.operator, m.y + m.noise * along, m.format, m.noise, m.scale)
    change = m.operator(reconstruct(moved) - image)
    divergence: Tensor = (along * change).double().sum(dim=-1) / m.noise
    return m.noise**2 * (2 * divergence - m.y.shape[-1])


def _captured(operator: BlockOperator) -> float:
    """Power of smooth scenes that the rows measure, relative to as many random ones."""
    down, across = (
        _CORRELATION ** torch.arange(side).sub(torch.arange(side)[:, None]).abs().double()
        for side in operator.block
    )
    rows = operator.rows.matrix().cpu().double()
    rows = rows - rows.mean(dim=1, keepdim=True)
    seen = rows.view(-1, *operator.block)
    power = float((down @ seen @ across * seen).sum())
    average = float((down.trace() * across.trace()) - down.mean() * across.mean() * operator.n)
    return power / (average * operator.ratio)
