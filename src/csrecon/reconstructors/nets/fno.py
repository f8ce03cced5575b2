"""A Fourier neural operator as proximal map, with FR-COAST's recursion.

lift and project are pointwise; refine is three units f ← f + α ⊙ v(ReLU(K f + w f)), with v and w
pointwise and K a spectral convolution: (K f)^(k) = R_k f^(k) for the lowest frequencies, zero for
the others. Nothing belongs to a grid, so that the weights serve images of every resolution: the
frequencies are cycles per field of view, which is that of the trained images.

Source: Li et al., "Fourier neural operator for parametric partial differential equations", ICLR
2021.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from csrecon.reconstructors.nets.coast import UNITS
from csrecon.reconstructors.nets.recurrent import RecurrentBlock
from csrecon.reconstructors.schedule import Count


class SpectralConv(nn.Module):
    """A convolution by its lowest frequencies.

    Args:
        features: inputs and outputs.
        modes: k: frequencies -(k - 1)..k - 1 along rows and 0..k - 1 along columns, in cycles per
            side; of a smaller image, those that it has.
    """

    def __init__(self, features: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.empty(features, features, 2 * modes - 1, 2 * modes))
        nn.init.uniform_(self.weight, -1 / features, 1 / features)

    def forward(self, f: Tensor) -> Tensor:
        """Convolve (B, F, H, W), periodically, in fp32."""
        with torch.autocast(f.device.type, enabled=False):
            height, width = f.shape[-2:]
            known = torch.fft.rfft2(f.float(), norm="forward")
            down = min(self.modes, (height + 1) // 2)
            across = min(self.modes, (width + 1) // 2)
            rows = torch.arange(1 - down, down, device=f.device)
            pairs = self.weight.contiguous().view(*self.weight.shape[:3], self.modes, 2)
            weight = torch.view_as_complex(pairs)[:, :, rows + self.modes - 1, :across]
            rows = rows % height
            low = torch.einsum("oihw,bihw->bohw", weight, known[:, :, rows, :across])
            made = known.new_zeros(known.shape)
            made[:, :, rows, :across] = low
            out: Tensor = torch.fft.irfft2(made, s=(height, width), norm="forward")
            return out


class FnoUnit(nn.Module):
    """f + α ⊙ v(ReLU(K f + w f))."""

    def __init__(self, features: int, modes: int) -> None:
        super().__init__()
        self.spectral = SpectralConv(features, modes)
        self.inner = nn.Conv2d(features, features, 1)
        self.outer = nn.Conv2d(features, features, 1)

    def forward(self, f: Tensor, gain: Tensor) -> Tensor:
        """Features (B, F, H, W) and gains (F,) -> features."""
        out: Tensor = self.outer(relu(self.spectral(f) + self.inner(f)))
        return f + gain.to(out.dtype).view(-1, 1, 1) * out


class FnoBlock(RecurrentBlock):
    """One Fourier neural operator layer, for real images.

    Args:
        features: of the state, at full resolution.
        modes: of its spectral convolutions.
    """

    reach = None  # every pixel depends on all others

    def __init__(self, features: Count = 24, modes: Count = 6) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Conv2d(2, features, 1)
        self.residual = nn.ModuleList(FnoUnit(features, modes) for _ in range(UNITS))
        self.tail = nn.Conv2d(features, 1, 1)

    def lift(self, inputs: Tensor) -> Tensor:
        """Features at full resolution."""
        made: Tensor = self.head(inputs)
        return made

    def refine(self, f: Tensor, gain: Tensor) -> Tensor:
        """The residual units."""
        for unit in self.residual:
            f = unit(f, gain)
        return f

    def project(self, f: Tensor, channels: int) -> Tensor:
        """The change of the image."""
        made: Tensor = self.tail(f)
        return made
