"""Block compressive sensing with another random orthonormal Φ in every step.

A Haar-random orthogonal matrix with random row subset, column order and column signs has the
distribution of a new random Φ, so that one costs an indexing instead of a factorization. Φ of
other kinds are generated from a random seed; rows that are not orthonormal are orthonormalized.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from csrecon import metrics
from csrecon.errors import nearest
from csrecon.io import images
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing import sample as sampling
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi, SamplingOptions, count_measurements
from csrecon.sensing.operators.kinds import KINDS
from csrecon.sensing.operators.matrices import MATRICES
from csrecon.sensing.operators.sampling import Sampling
from csrecon.training.tasks.base import (
    Camera,
    Scores,
    TaskOptions,
    drawn_noise,
    validated_ipls,
)

Choice = TypeVar("Choice")

BLOCK = 33
_LARGEST_DENSE = 33  # side of the blocks of a dense Φ, which is factorized
_VALIDATION_RATIOS = (0.1, 0.5)
_VALIDATION_SEED = 2**31


class BlocksOptions(TaskOptions):
    """The task `blocks`.

    Attributes:
        ratios: one is drawn per step.
        noise: largest standard deviation σ of Gaussian noise on y; a step draws σ = noise · u²,
            u uniform.
        noiseless: share of the steps without noise, in training with noise.
        phi_bases: number of Haar-random n×n matrices in use; every step takes Φ from one of them by
            random rows, column order and signs.
        phi_refresh: steps until one of them is replaced; 0 never replaces them.
        fixed_phis: instead, this many fixed Φ per ratio, as in the paper; 0 for none.
        kinds: kinds of Φ; one is drawn per step.
        blocks: sides of square blocks; one that fits the kind is drawn per step: a power of two for
            Hadamard kinds, at most 33 pixels for a dense Φ.
    """

    name: Literal["blocks"] = "blocks"
    ratios: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.1, 0.2, 0.3, 0.4, 0.5), min_length=1, max_length=1000
    )
    noise: float = Field(default=0.0, ge=0, le=1000)
    noiseless: float = Field(default=0.25, ge=0, le=1)
    phi_bases: int = Field(default=8, ge=1, le=1000)
    phi_refresh: int = Field(default=50, ge=0, le=10**9)
    fixed_phis: int = Field(default=0, ge=0, le=1000)
    kinds: tuple[str, ...] = Field(default=("gaussian",), min_length=1, max_length=1000)
    blocks: tuple[Annotated[int, Field(ge=2, le=128)], ...] = Field(
        default=(BLOCK,), min_length=1, max_length=1000
    )

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"kinds: {kind!r}: {nearest(kind, KINDS)}")
            if not self.sides(kind):
                raise ValueError(
                    f"blocks {self.blocks}: none fits {kind!r}; expected a power of two for a "
                    f"Hadamard kind, and at most {_LARGEST_DENSE} for a dense Φ"
                )
        if self.fixed_phis and (self.kinds, self.blocks) != (("gaussian",), (BLOCK,)):
            raise ValueError(f"fixed_phis are Gaussian, of blocks of {BLOCK} pixels")
        return self

    def sides(self, kind: str) -> tuple[int, ...]:
        """The blocks that fit a kind of Φ."""
        if kind.startswith("hadamard"):
            return tuple(side for side in self.blocks if side & (side - 1) == 0)
        if kind in MATRICES:
            return tuple(side for side in self.blocks if side <= _LARGEST_DENSE)
        return self.blocks

    def begin(self, seed: int) -> "Blocks":
        """The task with the matrices of a seed."""
        return Blocks(self, seed)


@dataclass(frozen=True)
class BlockCamera:
    """m rows of a random Φ of a kind and a block side, and noise."""

    task: "Blocks"
    ratio: float
    kind: str
    side: int

    def images(self, x: Tensor) -> Tensor:
        """The patches themselves."""
        return x

    def __call__(self, x: Tensor, draw: torch.Generator) -> Measurement:
        """Measure (B, 1, H, W)."""
        sigma = self.task.draw_noise(draw)
        m = count_measurements(self.side**2, self.ratio)
        phi = self.task.draw_phi(self.kind, m, self.side, draw)
        operator = BlockOperator(phi, (x.shape[-2], x.shape[-1]), (self.side, self.side))
        operator = operator.to(x.device)
        y = operator(x)
        if sigma:
            y = y + sigma * torch.randn(y.shape, generator=draw).to(y.device)
        return Measurement(operator, y, noise=sigma)


class Blocks:
    """The task: its options, and the base matrices in use."""

    def __init__(self, options: BlocksOptions, seed: int) -> None:
        self.options = options
        self._seed = seed
        self._alive = list(range(options.phi_bases))
        self._matrices: dict[tuple[int, int, int], NDArray[np.float32]] = {}

    @property
    def state(self) -> list[int]:
        """Numbers of the base matrices in use; with the seed, this is the whole state."""
        return list(self._alive)

    @state.setter
    def state(self, kept: list[int]) -> None:
        if len(kept) != len(self._alive) or not all(isinstance(base, int) for base in kept):
            raise ValueError(f"base matrices {kept!r}")
        self._alive = list(kept)
        self._matrices.clear()

    def draw(self, step: int, draw: torch.Generator) -> Camera:
        """The camera of a step; every `phi_refresh` steps the oldest base matrix is replaced."""
        every = self.options.phi_refresh
        if every and step % every == every - 1:
            gone = self._alive.pop(0)
            self._matrices = {key: kept for key, kept in self._matrices.items() if key[2] != gone}
            self._alive.append(max([gone, *self._alive]) + 1)
        ratios = self.options.ratios
        ratio = ratios[int(torch.randint(len(ratios), (), generator=draw))]
        kind = _one_of(self.options.kinds, draw)
        return BlockCamera(self, ratio, kind, _one_of(self.options.sides(kind), draw))

    def draw_noise(self, draw: torch.Generator) -> float:
        """The standard deviation of the noise of a step."""
        return drawn_noise(self.options.noise, self.options.noiseless, draw)

    def draw_phi(self, kind: str, m: int, side: int, draw: torch.Generator) -> Sampling:
        """Φ of m orthonormal rows for blocks of side×side pixels."""
        n = side**2
        if self.options.fixed_phis:
            which = int(torch.randint(self.options.fixed_phis, (), generator=draw))
            return Phi(self._matrix(m, n, which))
        if kind != "gaussian":
            seed = int(torch.randint(2**31, (), generator=draw))
            return _orthonormal(KINDS[kind](m, (side, side), seed))
        base = self._alive[int(torch.randint(len(self._alive), (), generator=draw))]
        rows = torch.randperm(n, generator=draw)[:m].numpy()
        columns = torch.randperm(n, generator=draw).numpy()
        signs = (2 * torch.randint(2, (n,), generator=draw) - 1).numpy().astype(np.float32)
        return Phi(self._matrix(n, n, base)[np.ix_(rows, columns)] * signs)

    def _matrix(self, rows: int, n: int, number: int) -> NDArray[np.float32]:
        key = (rows, n, number)
        if key not in self._matrices:
            self._matrices[key] = Phi.make(rows, n, self._seed + number).matrix
        return self._matrices[key]

    def validate(self, network: Unfolding, paths: Sequence[Path], setup: execution.Setup) -> Scores:
        """Mean PSNR in dB per ratio and IPL, with a Φ that is not used in training."""
        allowed = validated_ipls(network)
        table: Scores = {}
        for ratio in _VALIDATION_RATIOS:
            options = SamplingOptions(ratio=ratio, seed=_VALIDATION_SEED)
            total = dict.fromkeys(allowed, 0.0)
            for path in paths:
                picture = images.read(path)
                m = sampling.sample(picture, options)
                for ipl in allowed:
                    image = execution.image(network.at(ipl), m, setup)
                    total[ipl] += metrics.score(image, picture.planes).psnr / len(paths)
            table[f"{ratio:g}"] = {str(ipl): round(psnr, 3) for ipl, psnr in total.items()}
        return table


def _one_of(choices: Sequence[Choice], draw: torch.Generator) -> Choice:
    """One of some choices; a single one takes nothing from the generator."""
    if len(choices) == 1:
        return choices[0]
    return choices[int(torch.randint(len(choices), (), generator=draw))]


def _orthonormal(phi: Sampling) -> Sampling:
    """Φ itself if its rows are orthonormal, else a Φ with an orthonormal basis of their span."""
    rows = phi.rows()
    if rows.orthonormal:
        return phi
    basis = torch.linalg.qr(rows.matrix().double().T).Q.T
    return Phi(np.ascontiguousarray(basis.numpy(), dtype=np.float32))
