"""Orthonormalization of Φ = U S Vᵀ, without the components in which the noise exceeds the signal.

Component i of y' = S⁻¹ Uᵀ y measures vᵢᵀx with noise of standard deviation νᵢ = σ / sᵢ: a weak or
nearly dependent row of Φ multiplies the noise, or an error of the calibration, by 1 / sᵢ. What such
a component can tell is what the stronger ones do not predict. For a scene of second moments a² C
that is, with K = V C Vᵀ and A the components accepted so far,

    a² dᵢ = a² (Kᵢᵢ - Kᵢ_A (K_AA + N_AA)⁻¹ K_Aᵢ),   N = diag(ν²)

and its measured counterpart Pᵢ is the mean square over all blocks of y'ᵢ minus its prediction,
of expectation a² dᵢ + νᵢ². Components are visited from the strongest to the weakest. One is
discarded if

    νᵢ² > a² dᵢ  and  Pᵢ > 2 a² dᵢ     the known σ drowns it, and the data do not deny it, or
    Pᵢ > κ a² dᵢ                       no scene explains it: noise that is not known, or a wrong Φ

so that a Φ without weak components loses none, and weak ones that agree with the rest are kept.
C is first-order Markov: correlation 0.95 per pixel along rows and columns, variance 1/20, mean 1/2.
The scale a² is the mean of (Pⱼ - νⱼ²) / dⱼ over A, so that the brightness has no influence.

Source: truncated singular value decomposition (Hansen, SIAM 1998, chapter 3), with the cut where
the gain of information by a datum (Rodgers, 2000, chapter 2) falls below half a bit.
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

_Array = NDArray[np.float64]

RANK_TOLERANCE = 1e-5
"""Smallest singular value relative to the largest; below it there is only rounding."""

_SPREAD = 30.0  # the norm of a row may differ from the median by this factor
_EVEN = 3.0  # Φ is well-conditioned if s is within this factor of its upper quartile
_QUARTILE = 0.1015  # lower quartile of the square of a normal deviate
_STEPS = 16  # in which the components are visited
_CORRELATION, _VARIANCE, _MEAN = 0.95, 0.05, 0.5


@dataclass(frozen=True)
class Orthonormalized:
    """An equivalent orthonormal system, Vᵀ x = T y.

    Attributes:
        rows: Vᵀ, (rank, n).
        to_new: T, (m, rank): y' = y @ to_new.
        noise: standard deviation of the noise on y', root mean square.
    """

    rows: _Array
    to_new: _Array
    noise: float


@dataclass(frozen=True)
class _Components:
    """The singular vectors and values of Φ with its rows scaled by `scale`, up to its rank."""

    scale: _Array
    u: _Array
    s: _Array
    vt: _Array


def _components(phi: _Array) -> _Components:
    """Components of Φ (m, n); the units of single rows are changed if they differ too much."""
    norms = np.linalg.norm(phi, axis=1)
    typical = float(np.median(norms[norms > 0]))
    with np.errstate(divide="ignore"):
        wanted = np.clip(norms, typical / _SPREAD, typical * _SPREAD) / norms
    scale = np.where(norms > 0, wanted, 1.0)
    u, s, vt = np.linalg.svd(phi * scale[:, None], full_matrices=False)
    rank = int((s > RANK_TOLERANCE * s[0]).sum())
    return _Components(scale, u[:, :rank], s[:rank], vt[:rank])


def _weak(growth: _Array) -> NDArray[np.bool_]:
    """Mask of the components whose noise grows much more than that of the strongest quarter."""
    strongest = growth[: max(1, len(growth) // 4)]
    return growth > _EVEN * math.sqrt(float(np.mean(strongest**2)))


def _second_moments(vt: _Array, block: tuple[int, int]) -> _Array:
    """K = V C Vᵀ, (rank, rank)."""
    down, across = (
        _CORRELATION ** np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
        for side in block
    )
    spread = (down @ vt.reshape(-1, *block) @ across).reshape(vt.shape)
    means = _MEAN * vt.sum(axis=1)
    return np.asarray(_VARIANCE * spread @ vt.T + np.outer(means, means))


@dataclass(frozen=True)
class _Visit:
    """What a visit of all components found.

    Attributes:
        kept: mask of the components that are kept, (rank,).
        excess: the error of each component, estimated from the blocks, over a² d, (rank,); 0 for
            the strong ones.
        error: that estimate itself, a variance.
    """

    kept: NDArray[np.bool_]
    excess: _Array
    error: _Array


def _certain(values: int) -> float:
    """How many times a² d an error must be, estimated from so many values, to be believed."""
    return 3 + 13 / math.sqrt(values)


def _visited(values: _Array, k: _Array, nu: _Array, weak: NDArray[np.bool_]) -> _Visit:
    """Visit the components.

    Args:
        values: y' of the observed blocks, (blocks, rank), strongest component first.
        k: their second moments for a = 1.
        nu: standard deviation of their known noise.
        weak: mask of those that may be discarded.
    """
    rank = len(k)
    kept, excess, error = np.zeros(rank, bool), np.zeros(rank), np.zeros(rank)
    ratios: list[_Array] = []
    values, k = values.copy(), k.copy()
    first = 0
    while first < rank:
        end = min(rank, first + max(1, rank // _STEPS)) if first else max(1, rank // 4)
        here = np.arange(first, end)
        if first:
            explained = max(float(np.concatenate(ratios).mean()), 1e-30) * np.maximum(np.diagonal(k)[here], 1e-12)
            squares = np.square(values[:, here])
            power = squares.mean(axis=0)
            error[here] = np.minimum(power, np.quantile(squares, 0.25, axis=0) / _QUARTILE)
            excess[here] = error[here] / explained
            drowned = (nu[here] ** 2 > explained) & (power > 2 * explained)
            wrong = excess[here] > _certain(len(values))
            here = here[~(weak[here] & (drowned | wrong))]
        kept[here] = True
        if len(here):
            noise = nu[here] ** 2
            lower = np.linalg.cholesky(k[np.ix_(here, here)] + np.diag(noise + 1e-12))
            innovation = np.linalg.solve(lower, values[:, here].T).T
            d = np.square(np.diagonal(lower))
            power = np.square(innovation).mean(axis=0) * d
            ratios.append(np.maximum(power - noise, 0) / np.maximum(d - noise, 1e-12))
            rest = np.arange(end, rank)
            half = np.linalg.solve(lower, k[np.ix_(here, rest)])
            k[np.ix_(rest, rest)] -= half.T @ half
            values[:, rest] -= innovation @ half
        first = end
    return _Visit(kept, excess, error)


def _kept(values: _Array, k: _Array, growth: _Array, noise: float, weak: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of the components to keep."""
    visit = _visited(values, k, growth * noise, weak)
    there = np.flatnonzero(weak)
    weakest = there[len(there) // 2 :]
    if np.median(visit.excess[weakest]) > _certain(len(values) * len(weakest)):
        found = math.sqrt(float(np.quantile(visit.error[there] / growth[there] ** 2, 0.25)))
        log.debug("σ %.3g", found)
        visit = _visited(values, k, growth * max(noise, found), weak)
    return visit.kept


def orthonormalized(
    phi: _Array, block: tuple[int, int], y: _Array, noise: float
) -> Orthonormalized:
    """Orthonormalize Φ (m, n), without the components of which y (blocks, m) tells only noise.

    Args:
        phi: not zero.
        block: (bh, bw), of bh · bw = n pixels.
        y: the values of all observed blocks.
        noise: standard deviation of the noise on y; 0 if unknown.
    """
    found = _components(phi)
    to_new = found.scale[:, None] * found.u / found.s
    rank = len(found.s)
    if rank < len(phi):
        log.info(
            "Φ has rank %d of %d rows (singular values below %.1e of the largest discarded).",
            rank,
            len(phi),
            RANK_TOLERANCE,
        )
    growth = np.linalg.norm(to_new, axis=0)
    keep = np.ones(rank, bool)
    weak = _weak(growth)
    if len(y) and weak.any():
        keep = _kept(y @ to_new, _second_moments(found.vt, block), growth, noise, weak)
    if not keep.all():
        weak = found.s[~keep] / found.s[0]
        log.info(
            "%d of %d components of Φ discarded: they are weak (%.1e to %.1e of the largest "
            "singular value), and the noise or an error of Φ exceeds what they tell.",
            int((~keep).sum()),
            rank,
            weak.min(),
            weak.max(),
        )
    return Orthonormalized(
        found.vt[keep], to_new[:, keep], noise * float(np.sqrt(np.mean(growth[keep] ** 2)))
    )
