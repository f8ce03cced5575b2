"""Initialization of a network with the weights of a trained one.

A network of 5 layers with 4 iterations each equals 20 layers with copies of its weights, with the
gains folded into them and the kernels rotated. Training starts from these instead of from random
weights, and the copies diverge. `widen` is for a network with the same layers whose modulation has
more inputs, or whose images may also have an imaginary part.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from csrecon.errors import UsageError
from csrecon.reconstructors.modulation import RFMU, NoModulation, RatioGain
from csrecon.reconstructors.orientations import upright
from csrecon.reconstructors.schedule import Visit
from csrecon.reconstructors.unfolding import ProxBlock, Unfolding
from csrecon.sensing.measurement import Condition

_LEVELS = 9


def _gain(source: Unfolding, level: float, visits: list[Visit]) -> Tensor:
    return torch.stack([source.modulation(Condition(level), visit) for visit in visits]).mean(dim=0)


def _origins(source: Unfolding, target: Unfolding) -> list[list[Visit]]:
    """For every layer of the target, the visits of the source that it replaces."""
    counts, layers = target.schedule.counts, len(source.blocks)
    if max(counts) > 1:
        if len(counts) != layers or target.recursion.rotate != source.recursion.rotate:
            raise UsageError("a recursive network can start only from one with the same recursion.")
        visits = list(source.schedule.visits(source.trained.ipl))
        return [[visit for visit in visits if visit.layer == layer] for layer in range(layers)]
    schedule = source.schedule
    if len(counts) != sum(schedule.counts):
        ipl, rest = divmod(len(counts), layers)
        if rest or not ipl:
            raise UsageError(
                f"a network of {len(counts)} layers cannot start from {layers} layers unrolled: "
                f"expected a multiple of {layers}."
            )
        schedule = schedule.with_ipl(ipl)
    visits = list(schedule.visits(source.trained.ipl))
    return [[visit] for visit in visits]


@torch.no_grad()
def unroll(source: Unfolding, target: Unfolding) -> None:
    """Copy weights from a recursive `source` to a `target` without recursion or without RFMU.

    A target without recursion has one layer per iteration. At the middle of its ratios it then
    computes the same as `source`, except for relaxation, which single layers do not have. A target
    with the same recursion gets the mean of the gains over a layer's iterations. At other ratios a
    RatioGain has the slope that fits the gains of all iterations best (least squares), and
    NoModulation keeps the gains of the middle.

    Raises:
        UsageError: other blocks, another number of iterations, or a target with an RFMU.
    """
    gains_of = target.modulation
    if not isinstance(gains_of, RatioGain | NoModulation):
        raise UsageError("a network with an RFMU cannot start from one whose modulation differs.")
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


def _grown(name: str, parameter: Tensor) -> int | None:
    """The axis of a parameter along which `widen` may add to it."""
    if name.startswith("modulation.") and parameter.ndim == 2:
        return 1
    if name.endswith(".head.weight"):
        return 1
    return 0 if name.endswith((".tail.weight", ".tail.bias")) else None


def _conditioned_on_ratio(network: Unfolding) -> bool:
    return isinstance(network.modulation, RFMU) and network.modulation.level_scale is not None


@torch.no_grad()
def widen(source: Unfolding, target: Unfolding) -> None:
    """Copy the weights of `source` to `target`, where what is new has weight 0.

    New are the last inputs of its modulation, and the first, the ratio; a second channel: the last
    inputs of its heads and outputs of its tails, so that at first gradient steps alone change an
    imaginary part; and a unit with context, which adds nothing at first.

    Raises:
        UsageError: networks that differ in more.
    """
    state = source.state_dict()
    fresh = {name: value for name, value in target.state_dict().items() if ".context." in name}
    state = {**fresh, **state}
    ratio = _conditioned_on_ratio(target) and not _conditioned_on_ratio(source)
    for name, parameter in target.state_dict().items():
        axis = _grown(name, parameter)
        if axis is not None and name in state and state[name].ndim == parameter.ndim:
            more = parameter.shape[axis] - state[name].shape[axis]
            first = int(ratio and name.startswith("modulation.") and more > 0)
            sides = [0, 0] * (parameter.ndim - axis - 1) + [first, max(0, more - first)]
            state[name] = pad(state[name], sides)
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"its weights do not fit this network: {error}") from error
