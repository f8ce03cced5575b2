"""The gain and the offset of a camera, estimated from what it measured of an unknown scene.

Block b gives y_b = g Φ x_b + o 1 + noise. Its pixels are taken for a level of their own and
deviations with the spectrum of natural images: y_b ~ N(l_b Φ1 + o 1, s_b (K + ν_b I)) with
K = Φ C Φᵀ, where C is diagonal in the DCT and falls as 1/f³ (power). Of a few ν_b the likeliest
is taken. Generalised least squares then gives an o from every block and its standard error: rows
that smooth scenes explain count little, and a dark block counts much. Their mean, weighted by
1/variance with Huber's bound against outliers, is the offset; √(s_b ν_b) of the median block is
the noise on a value.

The gain is a convention, because no scale of x can be known: reconstructed with it, the image has
its bright end at 0.97. The bright end t is where mean(max(0, x - t)²) = (0.001 t)², so that what
lies above is 60 dB below it. The image is reconstructed at a gain, the gain multiplied by
t / 0.97, and so on until it settles within 1 %.

How sure the gain is: the bright end is found four times more, each time without every fourth row
of Φ. Their spread as in the jackknife (√3 times the standard deviation), their bias, what the
errors of the offset, the noise and the lack of rows do to the image, and the last step add up in
squares. Half of that error is added to the gain, because too dark an image costs less than a
clipped one.

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

log = logging.getLogger(__name__)

Reconstruct = Callable[[Measurement], Tensor]
"""Maps a measurement at unit scale, with orthonormal rows, to images (B, 1, H, W)."""

_Array = NDArray[np.float64]

BRIGHT = 0.97
"""Where the bright end of an image is put: networks fail where an image exceeds [0, 1]."""

LARGEST_ERROR = 0.5
"""Relative standard error of the gain from which on no estimate is given."""

_CLIPPED = 0.001  # root of the power above the bright end, relative to it
_SETTLED, _ROUNDS = 0.01, 8
_FREE = 3  # rounds after which steps are halved, in case they swing
_PARTS = 4
# Found in simulations: what noise, and what few rows, do to the bright end of a rough image.
_UNSMOOTHED, _FEW = 0.75, 0.04
_LEAN = 0.5  # standard errors towards a dark image, which costs less than a clipped one
_FITTED = 2048  # blocks that the offset is taken from
_RECONSTRUCTED = 160  # blocks, those with most energy
_SMOOTH = 0.006  # λ without noise; smaller ones overshoot where there are few measurements
_NOISES = (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 100.0)  # ν, relative to the mean variance in K
_FEWEST = 6  # rows of Φ: three quarters of them tell offset, level and their misfit
_TELLING = 1e-3  # relative spread of the sums of Φ's rows that tells an offset from a level
_BALANCED = 1e-6  # relative sum of a row that is 0 but for rounding
_SIGNIFICANT = 3.0  # standard errors by which the level must differ from 0
_SUREST = 0.1  # share of the blocks that count as much as the surest
_FAR = 2.0  # standard errors from which on a block counts less
_ROUNDING, _EXACT = 1e-7, 1e-5  # relative: of a float32, and of Φx computed in float32
_TINY = 1e-200
_HELP = (
    "Give --offset, a number for --gain, or --calibrate with the values of a white and a black "
    "scene."
)


def rough_image(m: Measurement) -> Tensor:
    """The images (B, 1, H, W) that a gain is estimated on: few steps, smoothed as noise needs."""
    weight = max(_SMOOTH, m.noise)
    return TotalVariation(iterations=40, first=max(0.1, weight), last=weight)(m)


def bright_end(x: _Array, pixels: int) -> float:
    """The t with mean(max(0, x - t)²) = (0.001 t)² over so many pixels, those not in x dark."""
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
    """The gain and the offset of values gain · Φx + offset of a scene x in [0, 1].

    Args:
        y: float32 (1, gh, gw, m), as the camera gave them; blocks not measured are ignored, and
            so are blocks of zeros.
        operator: what measured.
        offset: of the camera, if known.
        reconstruct: makes images of measurements at unit scale, with orthonormal rows.

    Returns:
        Gain and offset; the gain's relative standard error against the one that puts the bright
        end of the true image at 0.97 (the gain given is half of it above); and the offset's
        standard error in units of the values, 0 where it was given.

    Raises:
        InputError: values that are zero, a Φ that cannot tell an offset from a level, or gain and
            offset that the values leave too unsure.
    """
    values = y[0].flatten(0, 1).double().numpy()
    kept = values.any(axis=1)
    if operator.present is not None:
        kept &= operator.present.flatten().cpu().numpy() > 0
    values = values[kept]
    phi = operator.rows.matrix().double().cpu().numpy()
    _check(values, phi, offset)
    blocks = values[np.linspace(0, len(values) - 1, min(len(values), _FITTED)).round().astype(int)]
    k = _covariance(phi, operator.block)
    fit = _fitted(blocks, phi, k, offset)
    level = float(fit.levels.mean())
    if not abs(level) > _SIGNIFICANT * fit.level_error:
        raise InputError(
            f"--gain auto: beside an offset of {fit.offset:.4g} the values hold a mean signal of "
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
    inverse = np.linalg.pinv(phi, rcond=1e-5)
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
            f"offset of {fit.offset:.4g} ± {fit.error:.2g}; expected a gain that is sure within "
            f"{100 * LARGEST_ERROR:.0f} %. {_HELP}"
        )
    log.info("gain %.6g ± %.2g %%, offset %.6g ± %.2g", gain, 100 * error, fit.offset, fit.error)
    return Calibration(gain, fit.offset, error, fit.error)


def _check(values: _Array, phi: _Array, offset: float | None) -> None:
    """Refuse values (blocks, m) and a Φ that tell nothing, whatever the scene."""
    sums = phi.sum(axis=1)
    largest = float(np.abs(sums).max())
    if not len(values):
        raise InputError(
            "--gain auto: the values are 0 everywhere; expected a scene with light in it. Is it "
            "the right array (--var)?"
        )
    if len(phi) < _FEWEST:
        raise InputError(
            f"--gain auto: Φ has {len(phi)} rows; expected at least {_FEWEST}. {_HELP}"
        )
    if largest <= _BALANCED * float(np.abs(phi).sum(axis=1).max()):
        raise InputError(
            "--gain auto: all rows of Φ sum to 0, so that no value tells how bright the scene is; "
            "expected rows of other sums. Give a number for --gain."
        )
    if offset is None and float(np.std(sums)) < _TELLING * largest:
        raise InputError(
            "--gain auto cannot tell the offset here: every row of Φ sums to about the same, so "
            f"that an offset looks like light; expected rows of several sums. {_HELP}"
        )


@dataclass(frozen=True)
class _Imaging:
    """The brightest of so many blocks (blocks, m), as images of their own."""

    brightest: _Array
    noise: float
    block: tuple[int, int]
    blocks: int
    reconstruct: Reconstruct

    def step(
        self, gain: float, offset: float, phi: _Array, rows: NDArray[np.int64] | None = None
    ) -> float:
        """By what to multiply a gain so that the image, of some rows only, ends at 0.97."""
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
    """K = Φ C Φᵀ (m, m) of natural images without their level, with a mean variance of 1."""
    down, across = (_cosines(size) for size in block)
    frequency = np.hypot.outer(*(np.arange(size) / size for size in block))
    frequency[0, 0] = np.inf
    coefficients = down @ phi.reshape(-1, *block) @ across.T
    shaped = (coefficients * frequency**-1.5).reshape(len(phi), -1)
    k: _Array = shaped @ shaped.T
    return k * (len(k) / max(float(np.trace(k)), 1e-300))


def _cosines(size: int) -> _Array:
    """The orthonormal DCT-II of so many points."""
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
    """The offset, if not known, and the levels of blocks y (blocks, m)."""
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
    error = math.hypot(error, _EXACT * math.sqrt(float(np.mean(y**2))))
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
