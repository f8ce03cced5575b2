"""FR-COAST with discrete-continuous (DISCO) convolutions: kernels of physical distance.

A DISCO convolution discretizes an integral, (k * f)(x) = ∫ k(d) f(x + d) dd ≈ Σ_p q k(p) f(x + p),
over the pixels p within a radius R of x. Its kernel is a function on a disc,
k = Σ w_jm φ_jm with φ_jm(d) = hat_j(|d|) · (1, cos mθ or sin mθ): piecewise linear in the distance,
with nodes at 0, R/J, …, harmonic in the angle. The weights w belong to no grid, so that they serve
images of every resolution. Pixels are few within R, so the quadrature weight q of every φ_jm is
the area of a pixel times what makes its leading moment exact, that with |d|^m cos mθ or sin mθ:
the layer then is exact on constants (m = 0), slopes (m = 1) and curvatures (m = 2).

Lengths are in pixels of an image of 256 pixels: the longer side of every image is taken as one
field of view, so that its pixels have the length 256/side.

Source: Ocampo, Price, McEwen, "Scalable and equivariant spherical CNNs by discrete-continuous
(DISCO) convolutions", ICLR 2023; Liu-Schiaffini et al., "Neural operators with localized integral
and differential kernels", ICML 2024.
"""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, relu

from csrecon.reconstructors.nets.coast import UNITS
from csrecon.reconstructors.nets.recurrent import RecurrentBlock
from csrecon.reconstructors.schedule import Count

VIEW = 256.0
"""The field of view, in units of length."""
_UNIT = 2.0  # length of a pixel at which a quadrature weight is 1
_RINGS, _ORDER = 3, 2  # nodes of the distance, and the highest harmonic m
_LEAST = 1e-9  # of a moment: a ring between the pixels has none
_HEAD, _INNER, _TAIL = 4.0, 5.0, 3.0  # radius of the kernels


@lru_cache(maxsize=64)
def basis(radius: float, pixel: float, cell: float, centred: bool) -> NDArray[np.float32]:
    """The functions φ times their quadrature weights, (functions, side, side).

    Args:
        radius: R of the disc.
        pixel: distance of the points that the kernel is sampled at.
        cell: area that each point of a sum stands for.
        centred: whether the point x is a pixel, or the corner of four.
    """
    half = math.floor(radius / pixel) if centred else max(1, math.floor(radius / pixel + 0.5))
    along = pixel * (np.arange(-half, half + 1) if centred else np.arange(-half, half) + 0.5)
    distance, angle = np.hypot(along[:, None], along), np.arctan2(along[:, None], along)
    width = radius / _RINGS
    made = []
    for ring in range(_RINGS):
        hat = np.maximum(0, 1 - np.abs(distance / width - ring))
        for m in range(_ORDER + 1 if ring else 1):
            for wave in (np.cos(m * angle), np.sin(m * angle))[: 1 + (m > 0)]:
                moment = (hat * wave**2 * distance**m).sum() * pixel**2
                around = math.pi if m else 2 * math.pi  # ∫ wave² dθ
                exact = around * width ** (m + 2) * _hat_moment(ring, m + 1)
                made.append(hat * wave * (cell * exact / moment if moment > _LEAST else 0))
    return np.stack(made).astype(np.float32)


def _hat_moment(node: int, power: int) -> float:
    """∫ t^power (1 - |t - node|)₊ dt over t ≥ 0."""

    def twice(t: int) -> float:  # the second antiderivative of t^power
        return t ** (power + 2) / ((power + 1) * (power + 2)) if t > 0 else 0.0

    if node == 0:
        return twice(1)
    return twice(node + 1) - 2 * twice(node) + twice(node - 1)


class DiscoConv(nn.Module):
    """A DISCO convolution with bias.

    Args:
        inputs, outputs: channels.
        radius: of its kernels.
        stride: 1 for values at the pixels of its input, 2 for the centres of every four of them.
    """

    def __init__(self, inputs: int, outputs: int, radius: float, stride: Literal[1, 2] = 1) -> None:
        super().__init__()
        self.radius, self.stride = radius, stride
        known = basis(radius, _UNIT, 1.0, stride == 1)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, len(known)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        bound = (inputs * float(np.square(known).sum())) ** -0.5  # keeps the variance of PyTorch's
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor, pixel: float, gain: Tensor | None = None) -> Tensor:
        """Convolve (B, inputs, H, W).

        Args:
            x: values outside of the image are zero.
            pixel: length of its pixels.
            gain: of the outputs, (outputs,), folded into the kernels.
        """
        area = pixel**2 / _UNIT**2
        known = torch.from_numpy(basis(self.radius, pixel, area, self.stride == 1)).to(x.device)
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if gain is not None:
            weight, bias = gain.view(-1, 1, 1) * weight, gain * bias
        kernel = torch.einsum("oib,bhw->oihw", weight, known)
        margin = known.shape[-1] // 2 - (self.stride == 2)
        return conv2d(x, kernel, bias, stride=self.stride, padding=margin)


class DiscoUnit(nn.Module):
    """f + α ⊙ conv2(ReLU(conv1(f))) with DISCO convolutions."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = DiscoConv(features, features, _INNER)
        self.conv2 = DiscoConv(features, features, _INNER)

    def forward(self, f: Tensor, pixel: float, gain: Tensor) -> Tensor:
        """Features (B, F, H, W), the length of their pixels and gains (F,) -> features."""
        out: Tensor = self.conv2(relu(self.conv1(f, pixel), inplace=True), pixel, gain)
        return f + out


class DiscoBlock(RecurrentBlock):
    """One layer of FR-COAST with DISCO convolutions, for real images."""

    scale = stride = 2
    reach = None  # the size of the whole image determines the length of a pixel

    def __init__(self, features: Count = 32) -> None:
        super().__init__()
        self.features = features
        self.head = DiscoConv(2, features, _HEAD, stride=2)
        self.residual = nn.ModuleList(DiscoUnit(features) for _ in range(UNITS))
        self.tail = DiscoConv(features, 1, _TAIL)

    def lift(self, inputs: Tensor) -> Tensor:
        """Features at half resolution."""
        made: Tensor = self.head(inputs, VIEW / max(inputs.shape[-2:]))
        return made

    def refine(self, f: Tensor, gain: Tensor) -> Tensor:
        """The residual units."""
        for unit in self.residual:
            f = unit(f, VIEW / max(f.shape[-2:]), gain)
        return f

    def project(self, f: Tensor, channels: int) -> Tensor:
        """The change of the image, from interpolated features."""
        fine = interpolate(f, scale_factor=self.scale, mode="bilinear")
        made: Tensor = self.tail(fine, VIEW / max(fine.shape[-2:]))
        return made
