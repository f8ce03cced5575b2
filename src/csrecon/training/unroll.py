"""Unrolling: a recursive network as the beginning of one without recursion.

A network of 5 layers visited 4 times each computes what 20 layers compute that each hold the
weights of the layer they stand for, its gains multiplied in and its kernels turned. Training
starts from there instead of from random weights, and lets the copies part.
"""

import torch

from csrecon.errors import UsageError
from csrecon.orientations import upright
from csrecon.recursion import NoModulation, ProxBlock, RatioGain, Unfolding

_LEVELS = 9


@torch.no_grad()
def unroll(source: Unfolding, target: Unfolding) -> None:
    """Give `target`, of one layer an iteration, the weights of the recursive `source`.

    At the middle of the target's ratios it then computes what `source` does with its own
    schedule, but for halved updates, because a layer of its own goes all of its way. Elsewhere a
    RatioGain gets the slope over the ratio that fits the gains of all iterations best (least
    squares), and NoModulation keeps the middle.

    Raises:
        UsageError: other blocks, another number of iterations, or a target with recursion.
    """
    visits = list(source.schedule.visits(source.limits.trained_ipl))
    gains_of = target.modulation
    if not isinstance(gains_of, RatioGain | NoModulation) or max(target.schedule.counts) > 1:
        raise UsageError("only a network without recursion can begin as another one unrolled.")
    if len(visits) != len(target.blocks):
        raise UsageError(
            f"a network of {len(target.blocks)} layers cannot begin as one of {len(visits)} "
            "iterations unrolled: expected as many."
        )
    levels = torch.linspace(*target.limits.ratios, _LEVELS)
    gains = torch.stack(
        [torch.stack([source.modulation(float(level), v) for level in levels]) for v in visits]
    )  # (visits, levels, sites, features)
    middle = gains[:, _LEVELS // 2]
    for block, visit, gain in zip(target.blocks, visits, middle, strict=True):
        assert isinstance(block, ProxBlock)
        try:
            block.load_state_dict(source.blocks[visit.layer].state_dict())
        except RuntimeError as error:
            raise UsageError(f"the layers of both networks differ: {error}") from error
        for parameter in block.parameters():
            if parameter.ndim == 4:
                parameter.copy_(upright(parameter.clone(), source.orientation(visit)))
        block.fold(gain)
    if isinstance(gains_of, RatioGain):
        away = (levels - levels.mean()).view(-1, 1, 1)
        change = gains - middle[:, None]
        slope = (middle[:, None] * change * away).sum(dim=(0, 1))
        slope /= ((middle[:, None] * away).square()).sum(dim=(0, 1)).clamp(min=1e-12)
        gains_of.linear.weight.copy_(slope.T)
        gains_of.linear.bias.copy_(1 - slope[0] * levels.mean())
