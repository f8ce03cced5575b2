"""Standard deviation of every pixel of a reconstruction, from rows that are held out.

The reconstructions from fewer rows (`heldout.py`) differ where an image is uncertain. Their mean
squared difference v from the reconstruction of all rows, smoothed, has the shape of the error but
not its size. The size is that of the error on the held-out rows: with V the sum of v over a block
and E its estimated squared error,

    σ² = v · (E + c V / κ) / (V + V / κ),   c = ΣE / ΣV over all blocks,

so that a block with few held-out values takes the ratio of the whole image: κ is their number
relative to a prior of some values. No training and no validation images are needed, and the mean of
σ² is the estimated mean squared error.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from csrecon.errors import UsageError
from csrecon.evaluation.heldout import Check, area
from csrecon.sensing.operators import BlockOperator

_BLUR = 1.0  # standard deviation in pixels of the smoothing of v
_PRIOR = 20.0  # held-out values of a block that weigh as much as the ratio of the whole image
_FLOOR = 0.02  # of the mean of v: least v of a pixel


def deviation(checked: Check, operator: BlockOperator) -> Tensor:
    """Standard deviation σ of every pixel, (C, 1, H, W); NaN in blocks that were not measured.

    Args:
        checked: the check of the image, of at least two folds.
        operator: that measured it.

    Raises:
        UsageError: a single fold.
    """
    if checked.folds < 2:
        raise UsageError("the uncertainty of a pixel needs at least two samples.")
    image = checked.image
    moved = torch.stack([(x - image).square() for x in checked.images]).mean(dim=0)
    v = _smoothed(moved)
    v = v + _FLOOR * v.mean()
    blocks = operator.blocks(v.sum(dim=0, keepdim=True)).double().sum(dim=-1)[0]
    seen = ~checked.mse.isnan()
    error = torch.where(seen, checked.mse.double() * area(operator), 0.0) * len(image)
    ratio = float(error[seen].sum() / blocks[seen].sum())
    prior = _PRIOR / (checked.folds * checked.held_out)
    factor = (error + prior * ratio * blocks) / ((1 + prior) * blocks)
    factor = factor * float(error[seen].sum() / (factor * blocks)[seen].sum())
    every = factor[None, ..., None].expand(len(image), -1, -1, operator.n).float()
    sigma = (v * operator.assemble(every)).sqrt()
    observed = operator.observed()
    return sigma if observed is None else torch.where(observed, sigma, torch.nan)


def _smoothed(planes: Tensor) -> Tensor:
    """Planes (C, 1, H, W) after a Gaussian of a pixel's standard deviation."""
    reach = round(3 * _BLUR)
    weights = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * _BLUR**2))
    weights = (weights / weights.sum()).to(planes)
    mode = "reflect" if min(planes.shape[-2:]) > reach else "replicate"
    padded = pad(planes, (reach,) * 4, mode)
    return conv2d(conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
