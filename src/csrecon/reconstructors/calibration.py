"""Estimate of the gain and the offset of a camera from its measurements of an unknown scene.

Block b gives y_b = g Φ x_b + o 1 + noise. Its pixels are modelled as a level l_b plus deviations
with the spectrum of natural images: y_b ~ N(l_b Φ1 + o 1, s_b (K + ν_b I)) with K = Φ C Φᵀ, where
C is diagonal in the DCT and falls as 1/f³ (power). ν_b is the value of maximum likelihood among a
few. Generalised least squares then gives an estimate of o per block and its standard error: rows
that smooth scenes explain have little weight, and dark blocks have much. The offset is the mean of
these estimates, weighted by 1/variance and with Huber's weights against outliers; √(s_b ν_b) of
the median block is the noise on a value.

The gain is a convention, because the scale of x cannot be known: the image reconstructed with it
has its bright end at 0.97. The bright end t satisfies mean(max(0, x - t)²) = (0.001 t)², so that
the power above it is 60 dB lower. The image is reconstructed with a gain, the gain is multiplied
by t / 0.97, and this is repeated until it changes by less than 1 %.

Standard error of the gain: the bright end is computed four more times, each time without every
fourth row of Φ. The error is the root of the sum of squares of: the jackknife spread of these
(√3 times the standard deviation), their bias, the effects of the offset's error, of the noise and
of few rows on the image, and the last step. Half of the error is added to the gain, because too
dark an image costs less than a clipped one.

Sources: Aitken, Proc. R. Soc. Edinburgh 1935 (generalised least squares); Huber, Ann. Math. Stat.
1964; Tukey, Ann. Math. Stat. 1958 (jackknife).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrecon.errors import InputError
from csrecon.reconstructors.solvers.tv import TotalVariation
from csrecon.sensing.lab import Calibration
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi
from csrecon.sensing.operators.orthonormal import noting, orthonormalized

log = logging.getLogger(__name__)

Reconstruct = Callable[[Measurement], Tensor]
"""Maps a measurement at unit scale, with orthonormal rows, to images (B, 1, H, W)."""

_Array = NDArray[np.float64]

BRIGHT = 0.97
"""Target of the bright end of an image: networks fail where an image exceeds [0, 1]."""

LARGEST_ERROR = 0.25
"""Largest relative standard error of a gain that is returned."""

_CLIPPED = 0.001  # root of the power above the bright end, relative to it
_SETTLED, _ROUNDS = 0.01, 8
_FREE = 3  # rounds after which the square root of a step is taken, in case the gain oscillates
_PARTS = 4
# From simulations: the effects of noise and of few rows on the bright end of a rough image.
_UNSMOOTHED, _FEW = 0.75, 0.04
_LEAN = 0.5  # standard errors added to the gain: a dark image costs less than a clipped one
_FITTED = 2048  # blocks that the offset is fitted to
_RECONSTRUCTED = 160  # blocks: those with the largest energy
_SMOOTH = 0.006  # λ without noise; smaller ones overshoot where there are few measurements
_NOISES = (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 100.0)  # ν, relative to the mean variance in K
_FEWEST = 6  # rows of Φ: three quarters of them must determine offset, level and residual
_TELLING = 1e-3  # least relative spread of Φ's row sums that separates offset and level
_BALANCED = 1e-6  # relative row sum that counts as 0
_SIGNIFICANT = 3.0  # standard errors by which the level must differ from 0
_SUREST = 0.1  # quantile of the blocks' variances that is their lower bound
_FAR = 2.0  # Huber's threshold in standard errors
_ROUNDING, _EXACT = 1e-7, 1e-5  # relative: of a float32, and of Φx computed in float32
_TINY = 1e-200
_LARGEST = float(np.finfo(np.float32).max)
_HELP = (
    "Give --offset, a number for --gain, or --calibrate with the values of a white and a black "
    "scene."
)


def rough_image(m: Measurement) -> Tensor:
    """Images (B, 1, H, W) to estimate a gain on: few TV iterations, with λ at least the noise σ."""
    weight = max(_SMOOTH, m.noise)
    return TotalVariation(iterations=40, first=max(0.1, weight), last=weight)(m)


def bright_end(x: _Array, pixels: int) -> float:
    """The t with mean(max(0, x - t)²) = (0.001 t)² over `pixels` pixels; others than x are dark."""
    low, high = 0.0, float(x.max(initial=0.0))
    for _ in range(30):
        t = (low + high) / 2
        above = float(np.square(np.maximum(x - t, 0)).sum()) / pixels
        low, high = (t, high) if above > (_CLIPPED * t) ** 2 else (low, t)
    return high


def estimate(
    y: Tensor,
    operator: BlockOperator,
    offset: float | None,
    reconstruct: Reconstruct = rough_image,
) -> Calibration:
    """Estimate gain and offset of values gain · Φx + offset, for a scene x in [0, 1].

    Args:
        y: float32 (1, gh, gw, m), as the camera gave them; masked blocks and blocks of zeros are
            ignored, except that zeros with an estimated offset near 0 mean an offset of 0.
        operator: the block operator.
        offset: of the camera, if known.
        reconstruct: maps measurements at unit scale, with orthonormal rows, to images.

    Returns:
        Gain and offset; the gain's relative standard error about the gain that puts the bright end
        of the true image at 0.97 (half of it is added to the gain); and the offset's standard error
        in units of the values, 0 for a given offset.

    Raises:
        InputError: values that are zero, a Φ that cannot separate an offset from a level, or a
            gain or offset that is too uncertain.
    """
    token = noting.set(False)  # the reconstruction says what is discarded, and once
    try:
        return _estimated(y, operator, offset, reconstruct)
    finally:
        noting.reset(token)


def _estimated(
    y: Tensor, operator: BlockOperator, offset: float | None, reconstruct: Reconstruct
) -> Calibration:
    values = y[0].flatten(0, 1).double().numpy()
    present = np.ones(len(values), bool)
    if operator.present is not None:
        present = operator.present.flatten().cpu().numpy() > 0
    kept = present & values.any(axis=1)
    empty = bool((present & ~kept).any())
    values = values[kept]
    phi = operator.rows.matrix().double().cpu().numpy()
    _check(values, phi, offset)
    blocks = values[np.linspace(0, len(values) - 1, min(len(values), _FITTED)).round().astype(int)]
    k = _covariance(phi, operator.block)
    fit = _fitted(blocks, phi, k, offset)
    if offset is None and empty and abs(fit.offset) <= _SIGNIFICANT * fit.error:
        offset = 0.0  # the blocks of zeros are dark, and say so exactly
        fit = _fitted(blocks, phi, k, offset)
    level = float(fit.levels.mean())
    if not abs(level) > _SIGNIFICANT * fit.level_error:
        raise InputError(
            f"--gain auto: beside an offset of {fit.offset:.4g} the values have a mean signal of "
            f"{level:.2g} ± {fit.level_error:.2g} times Φ1; expected one clearly above or below "
            f"0. The scene is dark, or lost in noise or in the offset. {_HELP}"
        )
    order = np.argsort(-np.square(values - fit.offset).sum(axis=1), kind="stable")
    brightest = values[order[:_RECONSTRUCTED]]
    imaging = _Imaging(brightest, fit.noise, operator.block, len(values), reconstruct)
    sign = math.copysign(1.0, level)
    gain = sign * max(abs(level), float(np.quantile(sign * fit.levels, 0.99)))
    for index in range(_ROUNDS):
        step = imaging.step(gain, fit.offset, phi)
        gain *= step if index < _FREE else math.sqrt(step)
        if abs(step - 1) < _SETTLED:
            break
    parts = []
    for first in range(_PARTS):
        rows = np.delete(np.arange(len(phi)), slice(first, None, _PARTS))
        part = _fitted(blocks[:, rows], phi[rows], k[np.ix_(rows, rows)], offset)
        parts.append(imaging.step(gain, part.offset, phi, rows))
    normal = orthonormalized(phi, operator.block, values - fit.offset, fit.noise)
    inverse = normal.rows.T @ normal.to_new.T
    pattern = math.sqrt(float(np.mean(inverse.sum(axis=1) ** 2)))  # the image of an offset of 1
    grain = math.sqrt(float(np.square(inverse).sum()) / operator.n)  # the image of noise of 1
    error = math.hypot(
        math.sqrt(_PARTS - 1) * float(np.std(parts)),
        float(np.mean(parts)) - 1,
        fit.error * pattern / gain,
        _UNSMOOTHED * fit.noise * grain / operator.ratio / gain,
        _FEW * math.sqrt(max(0.0, 1 / operator.ratio - 1)),
        max(abs(step - 1), _SETTLED),
    )
    gain *= 1 + _LEAN * error
    if not error <= LARGEST_ERROR:
        raise InputError(
            f"--gain auto: the values give a gain of {gain:.4g} ± {100 * error:.0f} % and an "
            f"offset of {fit.offset:.4g} ± {fit.error:.2g}; expected a gain known within "
            f"{100 * LARGEST_ERROR:.0f} %. {_HELP}"
        )
    log.info("gain %.6g ± %.2g %%, offset %.6g ± %.2g", gain, 100 * error, fit.offset, fit.error)
    return Calibration(gain, fit.offset, error, fit.error)


def _check(values: _Array, phi: _Array, offset: float | None) -> None:
    """Refuse values (blocks, m) and a Φ that cannot determine gain and offset of any scene."""
    sums = phi.sum(axis=1)
    largest = float(np.abs(sums).max())
    if not len(values):
        raise InputError(
            "--gain auto: the values are 0 everywhere; expected a scene with light in it. Is it "
            "the right array (--var)?"
        )
    if float(np.abs(values).max()) > _LARGEST:
        raise InputError(
            f"--gain auto: values up to {np.abs(values).max():.3g}, and float32 holds up to "
            f"{_LARGEST:.1e}. Divide the values by their scale."
        )
    if len(phi) < _FEWEST:
        raise InputError(
            f"--gain auto: Φ has {len(phi)} rows; expected at least {_FEWEST}. {_HELP}"
        )
    if largest <= _BALANCED * float(np.abs(phi).sum(axis=1).max()):
        raise InputError(
            "--gain auto: all rows of Φ sum to 0, so the values do not depend on the mean "
            "brightness of the scene; expected other row sums. Give a number for --gain."
        )
    if offset is None and float(np.std(sums)) < _TELLING * largest:
        raise InputError(
            "--gain auto cannot tell the offset here: all rows of Φ have about the same sum, so "
            f"an offset looks like light; expected different row sums. {_HELP}"
        )


@dataclass(frozen=True)
class _Imaging:
    """The brightest (blocks, m) of all blocks, each reconstructed as a separate image."""

    brightest: _Array
    noise: float
    block: tuple[int, int]
    blocks: int
    reconstruct: Reconstruct

    def step(
        self, gain: float, offset: float, phi: _Array, rows: NDArray[np.int64] | None = None
    ) -> float:
        """The factor on a gain that puts the bright end at 0.97, with some rows of Φ or all."""
        y = self.brightest if rows is None else self.brightest[:, rows]
        matrix = phi if rows is None else phi[rows]
        operator = BlockOperator(
            Phi.given(np.ascontiguousarray(matrix, dtype=np.float32)), self.block, self.block
        )
        m = Measurement.of(operator, torch.from_numpy((y[:, None, None] - offset) / gain).float())
        with torch.inference_mode():
            x = self.reconstruct(replace(m, noise=self.noise / abs(gain)).normalized())
        end = bright_end(x.double().numpy(), self.blocks * operator.n)
        if not end:
            raise InputError(
                f"--gain auto: with an offset of {offset:.4g} the scene is black; expected light. "
                f"{_HELP}"
            )
        return end / BRIGHT


def _covariance(phi: _Array, block: tuple[int, int]) -> _Array:
    """K = Φ C Φᵀ (m, m) of natural images without their level, scaled to a mean variance of 1."""
    down, across = (_cosines(size) for size in block)
    frequency = np.hypot.outer(*(np.arange(size) / size for size in block))
    frequency[0, 0] = np.inf
    coefficients = down @ phi.reshape(-1, *block) @ across.T
    shaped = (coefficients * frequency**-1.5).reshape(len(phi), -1)
    k: _Array = shaped @ shaped.T
    return k * (len(k) / max(float(np.trace(k)), 1e-300))


def _cosines(size: int) -> _Array:
    """The orthonormal DCT-II matrix (size, size)."""
    frequency, point = np.mgrid[:size, :size]
    basis: _Array = np.cos(np.pi * frequency * (point + 0.5) / size) * np.sqrt(2 / size)
    basis[0] /= np.sqrt(2)
    return basis


@dataclass(frozen=True)
class _Fit:
    """Offset and standard error, g times the level of every block, and the noise on a value."""

    offset: float
    error: float
    levels: _Array
    level_error: float
    noise: float


def _fitted(y: _Array, phi: _Array, k: _Array, known: float | None) -> _Fit:
    """Fit the levels of blocks y (blocks, m), and their offset if it is not known."""
    m = len(phi)
    variance, basis = np.linalg.eigh(k)
    flat = phi.sum(axis=1)
    design = flat[:, None] if known is not None else np.stack([flat, np.ones(m)], axis=1)
    design = basis.T @ design
    z = (y - (known or 0.0)) @ basis
    free = m - design.shape[1]
    best = np.full((7, len(y)), -np.inf)
    for nu in _NOISES:
        weight = 1 / (np.maximum(variance, 0) + nu)
        inner = design.T @ (weight[:, None] * design)
        inverse = np.linalg.pinv(inner, hermitian=True)
        found = (z * weight) @ design @ inverse
        s = np.square(z - found @ design.T) @ weight / free
        s = np.maximum(s, np.square(_ROUNDING * z).sum(axis=1) * weight.mean() / m + _TINY)
        likelihood = (np.log(weight).sum() - np.linalg.slogdet(inner)[1] - free * np.log(s)) / 2
        each = np.ones(len(y))
        rows = (
            likelihood,
            found[:, 0],
            s / inner[0, 0],
            found[:, -1],
            s * inverse[-1, -1],
            inner[0, -1] / inner[0, 0] * each,
            s * nu,
        )
        best = np.where(likelihood > best[0], rows, best)
    _, level, level_variance, offset, offset_variance, lean, noise = best
    rms = math.sqrt(float(np.median(noise)))
    if known is not None:
        return _Fit(known, 0.0, level, float(np.sqrt(level_variance.sum())) / len(y), rms)
    mean, error = _weighted_mean(offset, offset_variance)
    error = math.hypot(error, _EXACT * math.sqrt(float(np.mean((y - mean) ** 2))))
    level = level + (offset - mean) * lean  # given the mean offset
    spread = math.hypot(np.sqrt(level_variance.sum()) / len(y), lean.mean() * error)
    return _Fit(mean, error, level, spread, rms)


def _weighted_mean(values: _Array, variance: _Array) -> tuple[float, float]:
    """The robust mean of values with these variances, and its standard error."""
    variance = np.maximum(variance, np.quantile(variance, _SUREST))
    weight = 1 / variance
    for _ in range(20):
        mean = float(weight @ values / weight.sum())
        distance = np.abs(values - mean) / np.sqrt(variance)
        weight = np.minimum(1, _FAR / np.maximum(distance, _FAR)) / variance
    expected = 1 / weight.sum()
    spread = np.square(weight * (values - mean)).sum() * expected**2
    return mean, float(np.sqrt(max(expected, spread)))
