"""Orthonormalization of Φ = U S Vᵀ, without the components in which noise exceeds information.

Component i of y' = S⁻¹ Uᵀ y measures vᵢᵀx with noise of standard deviation νᵢ = σ / sᵢ: a weak or
nearly dependent row of Φ amplifies the noise, and an error of Φ, by 1 / sᵢ. Such a component is
worth what the stronger ones do not predict. For scenes of second moments a² C, with K = V C Vᵀ and
A the stronger components that were kept,

    a² dᵢ = a² (Kᵢᵢ - Kᵢ_A (K_AA + N_AA)⁻¹ K_Aᵢ),   N = diag(ν²)

is the variance of vᵢᵀx beside its prediction. Its measured counterpart is Pᵢ, the mean square over
the blocks of y'ᵢ minus its prediction, of expectation a² dᵢ + νᵢ². The error of a component, Eᵢ, is
estimated from quiet blocks: the lower quartile of these squares over that of χ², Pᵢ at most.
With eᵢ = a² dᵢ + lᵢ², where lᵢ is what a block of ones leaves, a weak component is discarded if

    νᵢ² > eᵢ and Pᵢ > 2 eᵢ    the noise exceeds what it tells, and the values do not deny that, or
    Eᵢ > κ eᵢ                 no scene explains it: noise that is not known, or an error of Φ

where κ falls from 15 for one block to 1 for many. If there are such errors, the lower quartile of
their Eᵢ sᵢ² replaces a smaller σ², and the components are visited again; the same if half of the
weakest components show errors that are only certain together. Where all blocks look the same, only
what differs between them is evidence: the squares are then those of deviations from the median.
Weak are components whose noise is three times that of the strongest quarter, so a well-conditioned
Φ keeps all, whatever the noise; without noise, weak components agree with the rest and are kept.

C is first-order Markov: correlation 0.95 per pixel along rows and columns, variance 1/20, mean 1/2.
a² is the mean of (Pⱼ - νⱼ²) / dⱼ over A, so the contrast of the scene has no influence.

Source: truncated singular values (Hansen, SIAM 1998, chapter 3), cut where a datum gives less than
half a bit of information (Rodgers, Inverse methods for atmospheric sounding, 2000, chapter 2).
"""

import logging
import math
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

noting: ContextVar[bool] = ContextVar("noting", default=True)
"""Whether notes say what is discarded; not where one Φ is tried in several ways."""

_Array = NDArray[np.float64]
_Mask = NDArray[np.bool_]

_RANK_TOLERANCE = 1e-5  # relative to the largest singular value; below it there is only rounding
_LARGE = 30.0  # times the median norm of a row
_EVEN = 3.0  # times the noise of the strongest quarter
_STEPS = 16  # in which weaker components are visited
_BLOCKS = 2048  # at most, that errors are estimated from
_ALIKE, _SEVERAL = 2.0, 8  # fewer independent blocks than that among several: a periodic scene
_QUARTILE = 0.1015  # lower quartile of χ² with one degree of freedom
_ROUNDING = 1e-10  # variance of the rounding of y', with a margin
_CORRELATION, _VARIANCE, _MEAN = 0.95, 0.05, 0.5


@dataclass(frozen=True)
class Orthonormalized:
    """An equivalent system with orthonormal rows.

    Attributes:
        rows: Vᵀ, (rank, n).
        to_new: (m, rank): y' = y @ to_new.
        noise: root mean square of the standard deviations of the noise on y'.
    """

    rows: _Array
    to_new: _Array
    noise: float


def orthonormalized(
    phi: _Array, block: tuple[int, int], values: _Array, noise: float
) -> Orthonormalized:
    """Orthonormalize Φ (m, n), without the components of which `values` tell only noise.

    Args:
        phi: a matrix that is not zero.
        block: (bh, bw) in pixels, bh · bw = n.
        values: y of all observed blocks, (blocks, m).
        noise: standard deviation of the noise on y; 0 if unknown.
    """
    rows, to_new, s = _components(phi)
    if len(rows) < len(phi) and noting.get():
        log.info(
            "Φ has rank %d of %d rows (singular values below %.1e of the largest discarded).",
            len(rows),
            len(phi),
            _RANK_TOLERANCE,
        )
    growth = np.linalg.norm(to_new, axis=0)
    weak = _weak(growth)
    kept = ~weak
    if weak.any():
        kept = np.ones(len(rows), bool)
        if len(values):
            some = values[:: -(-len(values) // _BLOCKS)]
            kept = _kept(some @ to_new, _Model.of(rows, block, growth, weak), noise)
    if not kept.all() and noting.get():
        lost = s[~kept] / s[0]
        log.info(
            "%d of %d components of Φ discarded (singular values of %.1e to %.1e of the largest): "
            "there the noise, or an error of Φ, exceeds the information about the image.",
            len(lost),
            len(s),
            lost.min(),
            lost.max(),
        )
    amplified = noise * math.sqrt(float(np.mean(growth[kept] ** 2)))
    return Orthonormalized(rows[kept], to_new[:, kept], amplified)


def well_conditioned(phi: _Array) -> bool:
    """Whether Φ (m, n) has no weak component, so that y has no influence on its normalization."""
    return not (phi.any() and _weak(np.linalg.norm(_components(phi)[1], axis=0)).any())


def _components(phi: _Array) -> tuple[_Array, _Array, _Array]:
    """Vᵀ (rank, n), the map of y to y' (m, rank), and the falling singular values (rank,).

    Huge rows are scaled down first, values and all, so that the others stay above the tolerance.
    """
    norms = np.linalg.norm(phi, axis=1)
    typical = float(np.median(norms[norms > 0]))
    scale = 1 / np.maximum(1.0, norms / (_LARGE * typical))
    u, s, vt = np.linalg.svd(phi * scale[:, None], full_matrices=False)
    rank = int((s > _RANK_TOLERANCE * s[0]).sum())
    return vt[:rank], scale[:, None] * u[:, :rank] / s[:rank], s[:rank]


def _weak(growth: _Array) -> _Mask:
    """Mask of the components whose noise is much larger than that of the strongest quarter."""
    strongest = growth[: max(1, len(growth) // 4)]
    return growth > _EVEN * math.sqrt(float(np.mean(strongest**2)))


@dataclass(frozen=True)
class _Model:
    """What is expected of the components, strongest first.

    Attributes:
        k: second moments K for a = 1, (rank, rank).
        level: V 1, what they measure of a block of ones, (rank,).
        growth: standard deviation of their noise per σ, (rank,).
        weak: mask of those that may be discarded, (rank,).
    """

    k: _Array
    level: _Array
    growth: _Array
    weak: _Mask

    @classmethod
    def of(cls, rows: _Array, block: tuple[int, int], growth: _Array, weak: _Mask) -> "_Model":
        """The model for orthonormal rows Vᵀ of blocks (bh, bw)."""
        down, across = (
            _CORRELATION ** np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
            for side in block
        )
        spread = (down @ rows.reshape(-1, *block) @ across).reshape(rows.shape)
        level = rows.sum(axis=1)
        k = _VARIANCE * spread @ rows.T + np.outer(_MEAN * level, _MEAN * level)
        return cls(k, level, growth, weak)


@dataclass(frozen=True)
class _Visit:
    """What a visit of all components found.

    Attributes:
        kept: mask of the kept components, (rank,).
        error: E, (rank,); 0 for the strongest quarter.
        excess: E / e, (rank,).
        blocks: how many blocks of independent content there are.
    """

    kept: _Mask
    error: _Array
    excess: _Array
    blocks: float


def _kept(y: _Array, model: _Model, noise: float) -> _Mask:
    """Mask of the components to keep, for y' (blocks, rank) and σ."""
    visit = _visited(y, model, noise)
    weak = np.flatnonzero(model.weak)
    weakest = weak[len(weak) // 2 :]
    wrong = weak[visit.excess[weak] > _certain(visit.blocks)]
    if np.median(visit.excess[weakest]) > _certain(visit.blocks * len(weakest)):
        wrong = weak
    if len(wrong):
        found = math.sqrt(float(np.quantile(visit.error[wrong] / model.growth[wrong] ** 2, 0.25)))
        if found > noise:
            visit = _visited(y, model, found)
    return visit.kept


def _visited(y: _Array, model: _Model, noise: float) -> _Visit:
    """Visit the components from the strongest quarter on; block elimination predicts the rest."""
    rank = len(model.k)
    kept, error, excess = np.zeros(rank, bool), np.zeros(rank), np.zeros(rank)
    y, k, level = y.copy(), model.k.copy(), model.level.copy()
    variance = np.square(noise * model.growth) + _ROUNDING
    ratios: list[_Array] = []
    blocks, alike, first = 1.0, False, 0
    while first < rank:
        end = min(rank, first + max(1, rank // (_STEPS if first else 4)))
        here = np.arange(first, end)
        if first:
            scale = float(np.concatenate(ratios).mean())
            explained = scale * np.diagonal(k)[here] + np.square(level[here]) + _ROUNDING
            squares = np.square(y[:, here])
            power = squares.mean(axis=0)
            if alike:
                squares = np.square(y[:, here] - np.median(y[:, here], axis=0))
            error[here] = np.minimum(power, np.quantile(squares, 0.25, axis=0) / _QUARTILE)
            excess[here] = error[here] / explained
            drowned = (variance[here] > explained) & (power > 2 * explained)
            wrong = excess[here] > _certain(blocks)
            here = here[~(model.weak[here] & (drowned | wrong))]
        kept[here] = True
        if len(here):
            lower = np.linalg.cholesky(k[np.ix_(here, here)] + np.diag(variance[here]))
            d = np.square(np.diagonal(lower))
            innovation = np.linalg.solve(lower, y[:, here].T).T
            power = np.square(innovation).mean(axis=0) * d
            unknown = np.maximum(d - variance[here], _ROUNDING)
            ratios.append(np.maximum(power - variance[here], 0) / unknown)
            if not first:
                blocks = _independent(innovation)
                alike = blocks < _ALIKE and len(y) >= _SEVERAL
            rest = np.arange(end, rank)
            half = np.linalg.solve(lower, k[np.ix_(here, rest)])
            k[np.ix_(rest, rest)] -= half.T @ half
            y[:, rest] -= innovation @ half
            level[rest] -= np.linalg.solve(lower, level[here]) @ half
        first = end
    return _Visit(kept, error, excess, blocks)


def _certain(values: float) -> float:
    """κ: how many times the explained power an error must be, as estimated from so many values."""
    return 1 + 14 / math.sqrt(max(1.0, values))


def _independent(innovation: _Array) -> float:
    """How many of the blocks (blocks, components) have independent content; a grating's are equal.

    For B independent blocks the participation ratio of the Gram matrix is 1 / (1/B + 1/components).
    """
    blocks, components = innovation.shape
    gram = innovation.T @ innovation
    energy = float(np.trace(gram)) ** 2
    if energy == 0:
        return 1.0
    shared = float(np.square(gram).sum()) / energy - 1 / components
    return float(min(blocks, 1 / max(shared, 1 / blocks)))
