"""The loss of predicting measured values: a substitute for the squared error of the image.

Nobody knows the image x, only y = Φx + noise of variance σ². The rows of Φ are split at random into
input rows and target rows t. The network reconstructs x̂ from the input rows, and is trained to
predict the others:

    E ‖Φ_t x̂ - y_t‖² = E ‖Φ_t (x̂ - x)‖² + |t| σ².

The noise of the targets is independent of x̂, which never saw them, and the rows of a random Φ that
were left out are random directions of what the input rows do not see. So up to a constant and a
factor this is the squared error of the image that the input rows leave. It is minimized as

    log10(max(‖Φ_t x̂ - y_t‖² / |t| - σ², what the noise hides) + 1e-5),

so that every image counts, or plainly without the logarithm.

With a weight for equivariance, images of the kind are assumed to stay images of the kind if they
are turned or mirrored by T: T x̂, measured by the input rows with noise and reconstructed, should be
T x̂ again. This teaches what no row of a fixed Φ sees.

Sources: Yaman et al., MRM 2020 (SSDU: splits of the measured values); Chen et al., Equivariant
Imaging, ICCV 2021.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from csrecon.reconstructors.base import last
from csrecon.reconstructors.orientations import COUNT, oriented
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing import parts
from csrecon.sensing.measurement import Measurement
from csrecon.training import measured

_FLOOR = 1e-5  # added to a mean squared error inside the logarithm
_OWN = 0.5  # share of the steps with the network's own iteration counts


class PredictionOptions(BaseModel):
    """What is minimized.

    Attributes:
        loss: mean over the images of the `log` of the squared error, or of the `plain` error.
        equivariance: weight of the loss on turned reconstructions; 0 for none.
        crop: side of a crop in pixels, rounded to whole blocks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    loss: Literal["log", "plain"] = "log"
    equivariance: float = Field(default=0.0, ge=0)
    crop: int = Field(default=99, ge=1)


class Prediction:
    """The loss on some measurements.

    Args:
        divided: the measurements.
        options: what is minimized.
        setup: device and precision.
    """

    def __init__(
        self,
        divided: Sequence[measured.Divided],
        options: PredictionOptions,
        setup: execution.Setup,
    ) -> None:
        self.options, self.setup = options, setup
        self._divided = [one.to(setup.device) for one in divided]
        self._corners = [one.corners(options.crop) for one in divided]

    def loss(self, network: Unfolding, draw: torch.Generator) -> Tensor:
        """The loss of a random crop, split and iteration count."""
        index = int(torch.randint(len(self._divided), (), generator=draw))
        one, corners = self._divided[index], self._corners[index]
        corner = corners[int(torch.randint(len(corners), (), generator=draw))]
        whole = parts.crop(one.training, corner, one.size(self.options.crop))
        rows, targets = one.split(draw)
        m = parts.of_rows(whole, rows)
        network = network.at(_counts(network, draw))
        x = self._reconstruct(network, m)
        loss = self.error(x, whole, targets, (index, corner))
        if self.options.equivariance and m.operator.observed() is None:
            turned = _turned(x, draw)
            y = m.operator(turned)
            y = y + m.noise * torch.randn(y.shape, generator=draw).to(y)
            again = self._reconstruct(network, replace(m, y=y))
            loss = loss + self.options.equivariance * self.form((again - turned).square(), 0.0)
        return loss

    def error(
        self, x: Tensor, m: Measurement, targets: Sequence[int], place: tuple[int, parts.Corner]
    ) -> Tensor:
        """The loss of the image of a crop.

        Args:
            x: the image, (C, 1, H, W).
            m: the crop, measured by all rows of training.
            targets: those of its rows that were not the network's input.
            place: index of the measurement, and where the crop begins.
        """
        return self.form(measured.squares(m, x)[..., targets], m.noise)

    def _reconstruct(self, network: Unfolding, m: Measurement) -> Tensor:
        with self.setup.autocast():
            return last(network.steps(m)).image.float()

    def form(self, squares: Tensor, noise: float) -> Tensor:
        """The loss of squared errors (C, …) with noise: the mean over the planes."""
        per_plane = squares.flatten(1)
        error = per_plane.mean(dim=1) - noise**2
        if self.options.loss == "plain":
            return error.mean()
        hidden = noise**2 * math.sqrt(2 / per_plane.shape[1])  # what the noise hides
        return torch.log10(error.clamp(min=hidden) + _FLOOR).mean()


def _counts(network: Unfolding, draw: torch.Generator) -> tuple[int, ...]:
    """The network's own iteration counts, or a smaller IPL."""
    own = network.schedule.counts
    if float(torch.rand((), generator=draw)) < _OWN:
        return own
    most = int(torch.randint(1, max(own) + 1, (), generator=draw))
    return tuple(min(count, most) for count in own)


def _turned(x: Tensor, draw: torch.Generator) -> Tensor:
    """Images in another orientation of the same size."""
    step = 1 if x.shape[-1] == x.shape[-2] else 2  # odd ones exchange height and width
    which = int(torch.randint(1, COUNT // step, (), generator=draw))
    return oriented(x, step * which)
