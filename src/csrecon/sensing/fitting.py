"""The Φ of a camera near its nominal one, from measurements of known images.

The known blocks are the rows x of X (N, n), their values the rows y of Y (N, m). With φ_i a row of
the nominal Φ, the models are, each with and without an offset o_i of every row,

    nominal    y_i = φ_i·x
    rows       y_i = g_i φ_i·x + o_i
    entries    y_i = (g_i φ_i + δ_i)·x + o_i

Rows: (g_i, o_i) by least squares. A gain that the blocks hardly determine is drawn to the mean ḡ:
ḡ + τ² / (τ² + s_i²) (g_i - ḡ), with s_i the standard error of g_i and τ² the variance of the gains
by the method of moments. Entries: with r_i what rows leaves of y_i, δ_i minimises
‖r_i - X δ_i‖² + λ‖δ_i‖². From Xᵀ X = V S Vᵀ follows δ_i = V (S + λ)⁻¹ Vᵀ Xᵀ r_i, so one
eigendecomposition, of X Xᵀ where N < n, serves all rows and all λ. Offsets have no penalty: X and
r_i are centred. The trace of S (S + λ)⁻¹ counts how many numbers of a row the blocks determine.

Every model is judged by cross-validation: its residual on blocks that it was not fitted to. Whole
images are held out, or single blocks of fewer than three images. The λ of a fold is the best one of
the other folds, so no fold judges a λ that it has chosen. A residual is √(Σ‖y - ŷ‖² / Σ‖y - o‖²),
with o the offsets of rows; its standard error is that of a ratio of sums over images or blocks. A
model with more parameters is taken only if its residual is smaller by more than two standard errors
of the difference, which is formed image by image, or block by block.

Sources: Hoerl and Kennard, Technometrics 1970 (ridge regression); DerSimonian and Laird, Controlled
Clinical Trials 1986 (τ²); Cochran, Sampling Techniques (ratio of sums).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError
from csrecon.sensing.known import Array, Known

Stage = Literal["nominal", "rows", "entries"]

_FEW_IMAGES = 3  # below, single blocks are held out
_CERTAIN = 2.0  # standard errors of a difference that decides
_ROUNDING = 1e-12  # a difference of squares, relative, that values of float32 do not tell
_LEAST = 1e-150  # of a variance
_TINY = 1e-12  # eigenvalues of XᵀX, relative to the largest, that count as 0
_PENALTIES = np.logspace(-12, 0, 13)  # λ, relative to ‖X‖²


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    Attributes:
        offset: whether the values may have offsets; differences of complements have none.
        folds: of the cross-validation, at least 2.
        seed: of the order in which images or blocks are put into folds.
    """

    offset: bool = True
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Model:
    """One of the models that are compared."""

    stage: Stage
    offset: bool = False

    def __str__(self) -> str:
        """As in tables."""
        return f"{self.stage} + offset" if self.offset else self.stage


@dataclass(frozen=True)
class Held:
    """What a model leaves of the values that were held out, relative; and the standard error."""

    model: Model
    residual: float
    error: float


@dataclass(frozen=True, eq=False)
class Fit:
    """The best fitted Φ.

    Attributes:
        phi: float64 (m, n).
        offset: of every row, (m,); zeros without one.
        gains: g_i, (m,).
        model: of `phi`; never the nominal one.
        better: whether it beats the nominal one by more than two standard errors.
        held: residuals of all models.
        groups: what was held out as a whole: `images` or `blocks`.
        penalty: λ of entries.
        rank: of X.
        determined: how many of the n entries of each row the blocks determine at this λ.
    """

    phi: Array
    offset: Array
    gains: Array
    model: Model
    better: bool
    held: tuple[Held, ...]
    groups: Literal["images", "blocks"]
    penalty: float
    rank: int
    determined: float

    def change(self, phi: NDArray[Any]) -> float:
        """How much `phi` differs from the nominal one, times its best gain; relative."""
        gain = float(np.vdot(phi, self.phi) / np.vdot(phi, phi))
        mean = gain * phi
        return float(np.linalg.norm(self.phi - mean)) / max(float(np.linalg.norm(mean)), _LEAST)


@dataclass(frozen=True, eq=False)
class _Rows:
    gains: Array  # (m,)
    offset: Array  # (m,)


def _rows(z: Array, y: Array, offset: bool) -> _Rows:
    """The model rows, from z = Φx of the nominal Φ (N, m)."""
    mean_z, mean_y = (v.mean(axis=0) if offset else np.zeros(v.shape[1]) for v in (z, y))
    z0, y0 = z - mean_z, y - mean_y
    power = np.square(z0).sum(axis=0)
    seen = power > _TINY * power.max(initial=0.0)
    if not seen.any():
        raise InputError(
            "the nominal Φ is 0 for all known blocks, or the same. Is it the Φ of this camera?"
        )
    gains = np.einsum("ij,ij->j", z0, y0)[seen] / power[seen]
    left = np.square(y0[:, seen] - gains * z0[:, seen]).sum(axis=0)
    variance = left / max(1, len(z) - 1 - offset) / power[seen]
    full = np.empty(z.shape[1])
    full[seen], full[~seen] = _drawn(gains, variance)
    return _Rows(full, mean_y - full * mean_z)


def _drawn(gains: Array, variance: Array) -> tuple[Array, float]:
    """Gains drawn towards their mean, and the mean."""
    floor = 1e-28 * float(np.square(gains).mean()) + _LEAST
    weight = 1 / np.maximum(variance, floor)
    mean = float(weight @ gains / weight.sum())
    freedom = float(weight.sum() - np.square(weight).sum() / weight.sum())
    if len(gains) < 2 or freedom <= 0:
        return gains, mean
    excess = float(weight @ np.square(gains - mean)) - (len(gains) - 1)
    between = max(0.0, excess / freedom)
    return mean + between / (between + 1 / weight) * (gains - mean), mean


@dataclass(frozen=True, eq=False)
class _Ridge:
    """δ of all rows for every λ: V (S + λ)⁻¹ C."""

    centre: Array  # of the pixels, (n,)
    power: Array  # S, (rank,)
    vectors: Array  # V, (n, rank)
    projected: Array  # C = Vᵀ Xᵀ R, (rank, m)

    @classmethod
    def of(cls, x: Array, left: Array, offset: bool) -> "_Ridge":
        centre = x.mean(axis=0) if offset else np.zeros(x.shape[1])
        x = x - centre
        tall = len(x) >= x.shape[1]
        power, vectors = np.linalg.eigh(x.T @ x if tall else x @ x.T)
        kept = power > _TINY * max(power[-1], 0.0)
        power, vectors = power[kept], vectors[:, kept]
        if not tall:
            vectors = x.T @ (vectors / np.sqrt(power))
        return cls(centre, power, vectors, vectors.T @ (x.T @ left))

    def entries(self, penalty: float) -> Array:
        """δ, (m, n)."""
        return (self.vectors @ (self.projected / (self.power + penalty)[:, None])).T

    def squares(self, x: Array, left: Array, penalties: Array) -> Array:
        """Squared residual of every block for every λ, (len(penalties), blocks)."""
        seen = (x - self.centre) @ self.vectors
        weights = [1 / (self.power + penalty) for penalty in penalties]
        return np.stack([np.square(left - seen * w @ self.projected).sum(axis=1) for w in weights])


def _folds(groups: NDArray[np.int64], options: FitOptions) -> NDArray[np.int64]:
    """The fold of every block; the blocks of a group share one."""
    count = int(groups.max()) + 1
    order = np.random.default_rng(options.seed).permutation(count)
    return np.asarray(order % min(options.folds, count))[groups]


def _ratio(over: Array, under: Array, groups: NDArray[np.int64]) -> tuple[float, float]:
    """Σ over / Σ under, and its standard error from the groups."""
    a, b = (np.bincount(groups, weights=values) for values in (over, under))
    ratio, total, count = float(a.sum() / b.sum()), float(b.sum()), len(a)
    spread = count / (count - 1) * float(np.square(a - ratio * b).sum())
    return ratio, math.sqrt(spread) / total


def fit(known: Known, phi: NDArray[Any], options: FitOptions | None = None) -> Fit:
    """Fit Φ near a nominal one.

    Args:
        known: blocks and values.
        phi: the nominal Φ, (m, n).
        options: None for the defaults.

    Raises:
        InputError: a Φ of another shape, or one that sees nothing of the known blocks.
    """
    options = options or FitOptions()
    x, y = known.pixels, known.values
    nominal = np.asarray(phi, np.float64)
    if nominal.shape != (y.shape[1], x.shape[1]):
        raise InputError(
            f"Φ of shape {nominal.shape}, {y.shape[1]} values and {x.shape[1]} pixels per block: "
            f"expected a Φ of shape ({y.shape[1]}, {x.shape[1]})."
        )
    whole = known.images >= _FEW_IMAGES
    groups = np.unique(known.image, return_inverse=True)[1] if whole else np.arange(len(x))
    z = x @ nominal.T
    penalties = _PENALTIES * float(np.square(x).sum())
    variants = (False, True) if options.offset else (False,)
    squares, chosen = _held_out(x, y, z, _folds(groups, options), penalties, variants)
    under = np.square(y - _rows(z, y, options.offset).offset).sum(axis=1)
    if not under.any():
        raise InputError("all values are 0 or the same, so they determine no Φ.")
    model = _best(squares, under, groups)
    held = []
    for name, over in squares.items():
        ratio, error = _ratio(over, under, groups)
        residual = math.sqrt(ratio)
        held.append(Held(name, residual, error / (2 * residual) if residual else 0.0))
    rows = _rows(z, y, model.offset)
    ridge = _Ridge.of(x, y - rows.gains * z - rows.offset, model.offset)
    penalty = float(penalties[chosen[model.offset]])
    fitted, offset = rows.gains[:, None] * nominal, rows.offset
    if model.stage == "entries":
        entries = ridge.entries(penalty)
        fitted, offset = fitted + entries, offset - entries @ ridge.centre
    return Fit(
        fitted,
        offset,
        rows.gains,
        model,
        _beats(squares[model], squares[Model("nominal")], under, groups),
        tuple(held),
        "images" if whole else "blocks",
        penalty,
        len(ridge.power),
        float((ridge.power / (ridge.power + penalty)).sum()),
    )


def _held_out(
    x: Array,
    y: Array,
    z: Array,
    fold: NDArray[np.int64],
    penalties: Array,
    variants: tuple[bool, ...],
) -> tuple[dict[Model, Array], dict[bool, int]]:
    """Squared residuals of all blocks, held out, the smallest model first; and the best λ."""
    squares = {Model("nominal"): np.square(y - z).sum(axis=1)}
    squares |= {Model("rows", offset): np.empty(len(x)) for offset in variants}
    chosen = {}
    for offset in variants:
        each = np.empty((len(penalties), len(x)))
        for k in range(fold.max() + 1):
            out, into = fold == k, fold != k
            rows = _rows(z[into], y[into], offset)
            left = y - rows.gains * z - rows.offset
            squares[Model("rows", offset)][out] = np.square(left[out]).sum(axis=1)
            ridge = _Ridge.of(x[into], left[into], offset)
            each[:, out] = ridge.squares(x[out], left[out], penalties)
        best = [each[:, fold != k].sum(axis=1).argmin() for k in range(fold.max() + 1)]
        squares[Model("entries", offset)] = each[np.array(best)[fold], np.arange(len(x))]
        chosen[offset] = int(each.sum(axis=1).argmin())
    order = [Model("nominal"), *(Model(s, o) for s in ("rows", "entries") for o in variants)]
    return {model: squares[model] for model in order}, chosen


def _beats(new: Array, old: Array, under: Array, groups: NDArray[np.int64]) -> bool:
    """Whether a model leaves less than another by more than its standard error allows."""
    less, error = _ratio(old - new, under, groups)
    return less > max(_CERTAIN * error, _ROUNDING)


def _best(squares: Mapping[Model, Array], under: Array, groups: NDArray[np.int64]) -> Model:
    """The model that no later one beats, apart from the nominal one."""
    best, *later = (model for model in squares if model.stage != "nominal")
    for model in later:
        if _beats(squares[model], squares[best], under, groups):
            best = model
    return best
