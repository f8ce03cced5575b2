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
_UNEXPLAINED = 10.0  # κ for many blocks
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


def well_conditioned(s: _Array) -> bool:
    """Whether no singular value (falling) is weak, so that all components are kept."""
    return bool(s[-1] * _EVEN >= s[len(s) // 4])


def _second_moments(vt: _Array, block: tuple[int, int]) -> _Array:
    """K = V C Vᵀ, (rank, rank)."""
    down, across = (
        _CORRELATION ** np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
        for side in block
    )
    spread = (down @ vt.reshape(-1, *block) @ across).reshape(vt.shape)
    means = _MEAN * vt.sum(axis=1)
    return np.asarray(_VARIANCE * spread @ vt.T + np.outer(means, means))


def _kept(values: _Array, k: _Array, nu: _Array) -> NDArray[np.bool_]:
    """Mask of the components to keep.

    Args:
        values: y' of the observed blocks, (blocks, rank), strongest component first.
        k: their second moments for a = 1.
        nu: standard deviation of the known noise.
    """
    rank = len(k)
    kappa = _UNEXPLAINED * (1 + 3 / math.sqrt(max(1, len(values))))
    kept = np.zeros(rank, bool)
    ratios: list[_Array] = []
    values, k = values.copy(), k.copy()
    first = 0
    while first < rank:
        end = min(rank, first + max(1, rank // (_STEPS if first else 4)))
        here = np.arange(first, end)
        d, power, noise = np.diagonal(k)[here], np.square(values[:, here]).mean(axis=0), nu[here]**2
        d = np.maximum(d, 1e-12)
        if first:
            scale = max(float(np.concatenate(ratios).mean()), 1e-30)
            drowned = (noise > scale * d) & (power > 2 * scale * d)
            here = here[~(drowned | (power > kappa * scale * d))]
        kept[here] = True
        if len(here):
            inner = k[np.ix_(here, here)] + np.diag(nu[here]**2)
            lower = np.linalg.cholesky(inner + 1e-12 * np.eye(len(here)))
            innovation = np.linalg.solve(lower, values[:, here].T).T
            d = np.diagonal(lower) ** 2
            signal = np.maximum(d - nu[here]**2, 1e-12)
            power = np.square(innovation).mean(axis=0) * d
            ratios.append(np.maximum(power - nu[here]**2, 0) / signal)
            rest = np.arange(end, rank)
            half = np.linalg.solve(lower, k[np.ix_(here, rest)])
            k[np.ix_(rest, rest)] -= half.T @ half
            values[:, rest] -= innovation @ half
        first = end
    return kept


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
    nu = noise * np.linalg.norm(to_new, axis=0)
    keep = np.ones(rank, bool)
    if len(y) and not well_conditioned(found.s):
        keep = _kept(y @ to_new, _second_moments(found.vt, block), nu)
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
        found.vt[keep], to_new[:, keep], float(np.sqrt(np.mean(nu[keep] ** 2)))
    )
