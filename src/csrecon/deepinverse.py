"""Bridges to DeepInverse (the package `deepinv`), both ways.

A DeepInverse model is called as model(y, physics), a reconstructor of csrecon as
reconstructor(measurement). `Physics` and `Model` carry csrecon's operators and networks there;
`measurement` and `Solver` bring DeepInverse's physics and models here. Images are (B, C, H, W),
and every channel is measured separately: y is (B, C, …).

A network that expects orthonormal rows works with any linear physics: with the pseudo-inverse A⁺,
the projector P = A⁺A and z = A⁺y define the same problem as A and y.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from deepinv.models import Reconstructor as DeepInverseModel
from deepinv.physics import GaussianNoise, LinearPhysics, ZeroNoise
from torch import Tensor

from csrecon import api
from csrecon.errors import InputError, UsageError
from csrecon.reconstructors.base import Reconstructor, Step, last
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import LinearOperator

_PROBES = 8


class Physics(LinearPhysics):
    """An operator of csrecon as a physics of DeepInverse.

    Args:
        operator: A for images (B, 1, H, W), applied to every channel.
        noise: standard deviation of the Gaussian noise that calling the physics adds to y.
    """

    def __init__(self, operator: LinearOperator, noise: float = 0.0) -> None:
        model = GaussianNoise(noise) if noise else ZeroNoise()
        super().__init__(noise_model=model, img_size=(1, *operator.image_shape))
        self.operator = operator

    def A(self, x: Tensor, **_: Any) -> Tensor:  # noqa: N802 - the base class's name
        """Measure (B, C, H, W) -> (B, C, *operator.y_shape)."""
        y: Tensor = self.operator(x.flatten(0, 1)[:, None])
        return y.view(*x.shape[:2], *y.shape[1:])

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:  # noqa: N802
        """Apply Aᵀ: (B, C, *operator.y_shape) -> (B, C, H, W)."""
        return self.operator.adjoint(y.flatten(0, 1)).view(*y.shape[:2], *self.operator.image_shape)


class PhysicsOperator(LinearOperator):
    """A linear physics of DeepInverse as an operator of csrecon, for images of one channel.

    Its `normalized` gives the projector onto the row space of the physics, as exact as the physics'
    own pseudo-inverse, which has a closed form or is iterative.

    Args:
        physics: measures images (B, 1, H, W).
        image_shape: (H, W).
        device: of the physics.

    Raises:
        InputError: a physics that does not measure images (B, 1, H, W).
    """

    def __init__(
        self, physics: LinearPhysics, image_shape: tuple[int, int], device: torch.device
    ) -> None:
        super().__init__((1, *image_shape))
        self.physics = physics
        try:
            y = physics.A(torch.zeros(1, 1, *image_shape, device=device))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{type(physics).__name__} cannot measure an image of shape (1, 1, "
                f"{image_shape[0]}, {image_shape[1]}), one channel, on {device}: {error}"
            ) from error
        if not isinstance(y, Tensor) or y.is_complex():
            raise InputError(f"{type(physics).__name__} does not give one real tensor.")
        self._y_shape = tuple(y.shape[1:])

    @property
    def ratio(self) -> float:
        """The number of values over the number of pixels, at most 1."""
        height, width = self.image_shape
        return min(1.0, torch.Size(self._y_shape).numel() / (height * width))

    @property
    def y_shape(self) -> tuple[int, ...]:
        """The shape of the physics' data for one image."""
        return self._y_shape

    def forward(self, x: Tensor) -> Tensor:
        """Measure (B, 1, H, W), without the physics' noise."""
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.physics.A(x)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply Aᵀ."""
        with torch.autocast(y.device.type, enabled=False):
            x: Tensor = self.physics.A_adjoint(y)
        return x

    @property
    def tight(self) -> bool:
        """False: not known to be tight."""
        return False

    def normalized(self, y: Tensor, noise: float) -> tuple[LinearOperator, Tensor, float]:
        """The projector P = A⁺A, z = A⁺y, and the noise amplified by A⁺."""
        draw = torch.Generator().manual_seed(0)
        probes = torch.randn((_PROBES, *self.y_shape), generator=draw).to(y.device)
        growth = float(self.physics.A_dagger(probes).square().mean().sqrt())
        projector = Projector(self.physics, self.image_shape, y.device)
        return projector, self.physics.A_dagger(y), growth * noise


class Projector(PhysicsOperator):
    """P = A⁺A, the orthogonal projector onto the row space of a physics; self-adjoint."""

    def __init__(
        self, physics: LinearPhysics, image_shape: tuple[int, int], device: torch.device
    ) -> None:
        super().__init__(physics, image_shape, device)
        self._y_shape = (1, *image_shape)
        draw = torch.Generator().manual_seed(0)
        signs = (torch.randint(2, (_PROBES, 1, *image_shape), generator=draw) * 2.0 - 1).to(device)
        # Hutchinson's estimate of the trace: rank over n.
        self._ratio = min(1.0, max(1e-6, float((signs * self(signs)).mean())))

    @property
    def ratio(self) -> float:
        """The rank of A over n, estimated."""
        return self._ratio

    def forward(self, x: Tensor) -> Tensor:
        """Apply P to (B, 1, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            seen: Tensor = self.physics.A_dagger(self.physics.A(x))
        return seen

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply Pᵀ = P."""
        seen: Tensor = self(y)
        return seen

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """P x - y, for a y in the range of P."""
        seen: Tensor = self(x)
        return seen - y

    @property
    def tight(self) -> bool:
        """True: P is a projector and y is in its range, so the adjoint solves P x = y."""
        return True

    def normalized(self, y: Tensor, noise: float) -> tuple[LinearOperator, Tensor, float]:
        """Unchanged: ‖P‖ = 1."""
        return self, y, noise


def measurement(y: Tensor, physics: LinearPhysics) -> Measurement:
    """A measurement of csrecon from the data of a physics, for images of one channel.

    Args:
        y: (B, …), as the physics gives it; (B, C, …) of a `Physics`.
        physics: linear; the σ of its Gaussian noise is kept.

    Raises:
        UsageError: a physics that is not linear.
        InputError: a physics that does not measure images of one channel, or a y that it cannot
            have measured.
    """
    if not isinstance(physics, LinearPhysics):
        raise UsageError(f"{type(physics).__name__}: expected a linear physics of DeepInverse.")
    if isinstance(physics, Physics):
        ready = Measurement.of(physics.operator, y.flatten(0, 1))
    else:
        height, width = physics.A_adjoint(y).shape[-2:]
        ready = Measurement.of(PhysicsOperator(physics, (height, width), y.device), y)
    noise = physics.noise_model
    sigma = float(noise.sigma.mean()) if isinstance(noise, GaussianNoise) else 0.0
    return replace(ready, noise=sigma)


class Model(DeepInverseModel):
    """A reconstructor of csrecon as a model of DeepInverse: model(y, physics) -> (B, C, H, W).

    Runs without gradients. The options are those of `csrecon.reconstruct`.
    """

    def __init__(
        self,
        model: str | Path | Reconstructor | None = None,
        ipl: int | Sequence[int] | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
    ) -> None:
        super().__init__()
        self.model, self.ipl = model, ipl
        self.setup = execution.choose(device, precision)

    def forward(self, y: Tensor, physics: LinearPhysics, **_: Any) -> Tensor:
        """Reconstruct.

        Raises:
            CsreconError: as `csrecon.reconstruct`, and as `measurement`.
        """
        m = measurement(y, physics)
        steps = api.reconstruct_steps(m, self.model, self.ipl, self.setup)
        image = execution.final(steps).image.to(y.device)
        return image.view(len(y), -1, *image.shape[-2:])


class Solver:
    """A model of DeepInverse as a reconstructor of csrecon.

    Args:
        model: called as model(y, physics), returns images (B, 1, H, W); it runs on the
            measurement's device, always in fp32.
    """

    def __init__(self, model: DeepInverseModel) -> None:
        self.model = model

    def steps(self, m: Measurement) -> Iterator[Step]:
        """The only iterate."""
        device = m.y.device
        physics = Physics(m.operator, m.noise).to(device)
        with torch.autocast(device.type, enabled=False):
            image = self.model.to(device)(m.y[:, None], physics)
        yield Step(image, image.new_zeros(()), 1, 1)

    def __call__(self, m: Measurement) -> Tensor:
        """The image (B, 1, H, W), not clipped."""
        return last(self.steps(m)).image
