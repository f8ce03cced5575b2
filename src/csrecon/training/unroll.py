"""A trained network as the beginning of another one.

A network of 5 layers visited 4 times each computes what 20 layers compute that each hold the
weights of the layer they stand for, its gains multiplied in and its kernels turned. Training
starts from there instead of from random weights, and lets the copies part. `widen` is for a
network of the same layers that hears more.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from csrecon.errors import UsageError
from csrecon.reconstructors.modulation import NoModulation, RatioGain
from csrecon.reconstructors.orientations import upright
from csrecon.reconstructors.schedule import Visit
from csrecon.reconstructors.unfolding import ProxBlock, Unfolding
from csrecon.sensing.measurement import Condition

_LEVELS = 9


def _gain(source: Unfolding, level: float, visits: list[Visit]) -> Tensor:
    return torch.stack([source.modulation(Condition(level), visit) for visit in visits]).mean(dim=0)


def _origins(source: Unfolding, target: Unfolding) -> list[list[Visit]]:
    """For every layer of the target, the visits of the source that it stands for."""
    counts, layers = target.schedule.counts, len(source.blocks)
    if max(counts) > 1:
        if len(counts) != layers or target.recursion.rotate != source.recursion.rotate:
            raise UsageError("a recursive network can begin only as one with the same recursion.")
        visits = list(source.schedule.visits(source.trained.ipl))
        return [[visit for visit in visits if visit.layer == layer] for layer in range(layers)]
    schedule = source.schedule
    if len(counts) != sum(schedule.counts):
        ipl, rest = divmod(len(counts), layers)
        if rest or not ipl:
            raise UsageError(
                f"a network of {len(counts)} layers cannot begin as {layers} layers unrolled: "
                f"expected a multiple of {layers}."
            )
        schedule = schedule.with_ipl(ipl)
    visits = list(schedule.visits(source.trained.ipl))
    return [[visit] for visit in visits]


@torch.no_grad()
def unroll(source: Unfolding, target: Unfolding) -> None:
    """Give `target`, which hears less than the recursive `source` or nothing, its weights.

    A target without recursion has a layer an iteration. At the middle of its ratios it then
    computes what `source` does, but for halved updates, because a layer of its own goes all of
    its way. A target with the same recursion gets the mean of the gains of a layer's iterations.
    Elsewhere a RatioGain gets the slope over the ratio that fits the gains of all iterations best
    (least squares), and NoModulation keeps the middle.

    Raises:
        UsageError: other blocks, another number of iterations, or a target with an RFMU.
    """
    gains_of = target.modulation
    if not isinstance(gains_of, RatioGain | NoModulation):
        raise UsageError("a network with an RFMU cannot begin as another one without its weights.")
    origins = _origins(source, target)
    levels = torch.linspace(*target.trained.ratios, _LEVELS)
    gains = torch.stack(
        [
            torch.stack([_gain(source, float(level), visits) for level in levels])
            for visits in origins
        ]
    )  # (layers, levels, sites, features)
    middle = gains[:, _LEVELS // 2]
    for block, visits, gain in zip(target.blocks, origins, middle, strict=True):
        assert isinstance(block, ProxBlock)
        try:
            block.load_state_dict(source.blocks[visits[0].layer].state_dict())
        except RuntimeError as error:
            raise UsageError(f"the layers of both networks differ: {error}") from error
        for parameter in block.parameters():
            if parameter.ndim == 4 and not target.recursion.rotate:
                parameter.copy_(upright(parameter.clone(), source.orientation(visits[0])))
        block.fold(gain)
    if isinstance(gains_of, RatioGain):
        away = (levels - levels.mean()).view(-1, 1, 1)
        change = gains - middle[:, None]
        slope = (middle[:, None] * change * away).sum(dim=(0, 1))
        slope /= ((middle[:, None] * away).square()).sum(dim=(0, 1)).clamp(min=1e-12)
        gains_of.linear.weight.copy_(slope.T)
        gains_of.linear.bias.copy_(1 - slope[0] * levels.mean())


@torch.no_grad()
def widen(source: Unfolding, target: Unfolding) -> None:
    """Give `target` the weights of `source`; what it hears besides begins without effect.

    Raises:
        UsageError: networks that differ in more than what the modulation hears last.
    """
    state = source.state_dict()
    for name, parameter in target.state_dict().items():
        if name.startswith("modulation.") and name in state and parameter.ndim == 2:
            more = parameter.shape[1] - state[name].shape[1]
            state[name] = pad(state[name], (0, max(0, more)))
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"its weights do not fit this network: {error}") from error
