"""The error of a reconstruction from held-out rows: by its formula, and for what is not a fit."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import csrecon
from csrecon.errors import UsageError
from csrecon.evaluation import heldout, uncertainty
from csrecon.evaluation.heldout import HoldoutOptions
from csrecon.io import images
from csrecon.reconstructors.starts import MarkovStart
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator


def scene(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    """A smooth scene with texture, (H, W) in [0, 1]."""
    draw = np.random.default_rng(seed)
    rough = draw.standard_normal((height, width))
    for axis in (0, 1):
        rough = sum(np.roll(rough, shift, axis) for shift in range(5))
    down, across = np.mgrid[:height, :width] / height
    image = 0.5 + 0.3 * np.sin(5 * down + 3 * across) + 0.006 * rough
    return np.clip(image, 0, 1).astype(np.float32)


def linear(m: Measurement) -> Tensor:
    """The best linear estimate."""
    image, _ = MarkovStart().eval()(m)
    return image


def checked(m: Measurement, folds: int = 8) -> heldout.Check:
    return heldout.check(m, linear(m), linear, HoldoutOptions(folds))


@pytest.mark.parametrize("kind", ["gaussian", "bernoulli", "hadamard", "binary"])
@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_the_estimate_is_the_error(kind: str, ratio: float) -> None:
    image = scene(128, 160)
    m = csrecon.sample(image, ratio, kind=kind, seed=4, block=16).normalized()
    made = linear(m)
    true = -10 * math.log10(float((made[0, 0] - torch.from_numpy(image)).square().mean()))
    found = checked(m)
    assert abs(found.psnr - true) < max(0.5, 3 * found.error)
    assert 0 < found.error < 1
    assert found.folds == 8
    assert len(found.images) == 8
    assert found.mse.shape == m.operator.grid  # type: ignore[attr-defined]


def test_the_map_finds_the_bad_block() -> None:
    image = np.full((96, 96), 0.5, np.float32)
    image[32:64, 64:] = np.random.default_rng(1).random((32, 32))
    m = csrecon.sample(image, 0.2, block=32).normalized()
    found = checked(m)
    assert int(found.mse.argmax()) == 5
    assert float(found.mse[1, 2]) > 100 * float(found.mse[0, 0])


def test_noise_is_subtracted() -> None:
    image = scene()
    m = csrecon.sample(image, 0.3, noise_sigma=0.1, seed=2, block=16).normalized()
    made = linear(m)
    true = -10 * math.log10(float((made[0, 0] - torch.from_numpy(image)).square().mean()))
    told = checked(m)
    assert abs(told.psnr - true) < max(0.5, 3 * told.error)
    untold = checked(replace(m, noise=0.0))
    assert untold.psnr < told.psnr + 0.5


def test_values_that_do_not_fit() -> None:
    m = csrecon.sample(scene(), 0.3, block=16).normalized()
    assert checked(m).fits
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(m.y.shape[-1], generator=draw)
    wrong = replace(m, y=m.y[..., order])
    assert not checked(wrong).fits


def test_rows_that_see_the_mean_are_kept() -> None:
    m = csrecon.sample(scene(), 0.1, kind="hadamard-cake").normalized()
    operator = m.operator
    assert isinstance(operator, BlockOperator)
    ones = operator.rows(torch.ones(operator.n)) / math.sqrt(operator.n)
    held = {row for fold in heldout._folds(operator, HoldoutOptions(folds=10)) for row in fold}
    assert float(ones.square().max()) > 0.9
    assert int(ones.square().argmax()) not in held
    assert len(held) >= operator.m - 12


def test_ordered_rows_are_said() -> None:
    ordered, random = (
        csrecon.sample(scene(), 0.1, kind=kind).normalized() for kind in ("dct", "gaussian")
    )
    assert not checked(random).ordered
    dct = checked(ordered)
    assert dct.ordered == (heldout._captured(ordered.operator) > 1.5)  # type: ignore[arg-type]
    assert heldout._captured(random.operator) == pytest.approx(1, abs=0.2)  # type: ignore[arg-type]


def test_too_few_rows_and_other_operators() -> None:
    few = csrecon.sample(scene(), m=1).normalized()
    with pytest.raises(UsageError, match="too few to hold any out"):
        checked(few)
    two = csrecon.sample(scene(), m=2).normalized()
    assert checked(two).folds == 2
    k = csrecon.sample(scene(), 0.3, kind="fourier").normalized()
    with pytest.raises(UsageError, match="block sampling"):
        heldout.check(k, torch.zeros(1, 1, 96, 96), linear)
    with pytest.raises(UsageError, match="folds 0"):
        HoldoutOptions(folds=0)
    with pytest.raises(UsageError, match=r"share 0\.9"):
        HoldoutOptions(share=0.9)


def test_a_constant_image() -> None:
    m = csrecon.sample(np.full((66, 66), 0.5, np.float32), 0.2).normalized()
    found = checked(m)
    assert found.fits
    assert found.psnr > 60
    assert math.isfinite(found.error)


def test_missing_blocks_do_not_count() -> None:
    image = scene(66, 99)
    m = csrecon.sample(image, 0.3).normalized()
    present = torch.ones(2, 3)
    present[0, 1] = 0
    operator = m.operator
    assert isinstance(operator, BlockOperator)
    masked = BlockOperator(operator.phi, (66, 99), None, None, present)
    some = Measurement(masked, m.y * present[..., None])
    found = checked(some)
    assert torch.isnan(found.mse).tolist() == [[False, True, False], [False, False, False]]
    there = masked.observed()
    assert there is not None
    true = (linear(some)[0, 0] - torch.from_numpy(image)).square()[there].mean()
    assert found.psnr == pytest.approx(-10 * math.log10(float(true)), abs=3 * found.error + 0.3)
    sigma = uncertainty.deviation(found, masked)
    assert torch.equal(torch.isnan(sigma[0, 0]), ~there)


def test_deviation_has_the_size_of_the_error() -> None:
    """Its mean square is the estimated error, and it is large where the error is."""
    image = scene(128, 128)
    image[:64] = 0.5
    m = csrecon.sample(image, 0.3, block=16).normalized()
    made = linear(m)
    found = heldout.check(m, made, linear, HoldoutOptions(folds=6))
    assert isinstance(m.operator, BlockOperator)
    sigma = uncertainty.deviation(found, m.operator)
    assert float(sigma.square().mean()) == pytest.approx(10 ** (-found.psnr / 10), rel=0.05)
    assert float(sigma[..., 64:, :].mean()) > 5 * float(sigma[..., :64, :].mean())
    with pytest.raises(UsageError, match="two samples"):
        uncertainty.deviation(checked(m, 1), m.operator)


def test_colours_have_the_weights_of_the_picture() -> None:
    """The estimate for YCbCr planes is that of the RGB picture."""
    planes = [scene(96, 96, seed) for seed in (1, 2, 3)]
    rgb = np.stack(planes, axis=-1)
    m = csrecon.sample(rgb, 0.3, color="ycbcr", block=16).normalized()
    made = linear(m)
    shown = images.to_array(made, "ycbcr")
    true = -10 * math.log10(float(np.square(shown - rgb).mean()))
    weights = images.error_weights("ycbcr")
    found = heldout.check(m, made, linear, HoldoutOptions(8), weights)
    assert found.psnr == pytest.approx(true, abs=max(0.6, 3 * found.error))
