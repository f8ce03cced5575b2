"""An unfolding network as a function of tensors alone, for formats that run without Python.

What such formats have no operator for is computed beforehand: the orthonormal rows of Φ (a singular
value decomposition), the matrix of the Markov start (a Cholesky factor), and the gains of every
iteration. The graph then has convolutions, products with matrices, and rearrangements.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from csrecon.errors import UsageError
from csrecon.reconstructors.modulation import Modulation
from csrecon.reconstructors.schedule import Visit
from csrecon.reconstructors.starts import LARGEST_SYSTEM, LinearStart, MarkovStart
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.sensing.measurement import Condition, Measurement
from csrecon.sensing.operators import BlockOperator, Sampling
from csrecon.sensing.operators.sampling import MatrixRows, Rows


@dataclass(frozen=True, eq=False)
class PhiInputs:
    """Φ, and what a graph needs that depends on Φ.

    Attributes:
        phi: Φ, (m, n).
        transform: (m, rank): y' = y @ transform are the values of the orthonormal rows
            transformᵀ Φ.
        start: of the Markov start, (rank, n); None for other starts.
        noise: standard deviation of the noise on y'.
        orthonormal: whether the rows of Φ are orthonormal, so that `transform` is the identity.
    """

    phi: Tensor
    transform: Tensor
    start: Tensor | None
    noise: float
    orthonormal: bool

    @property
    def rows(self) -> Tensor:
        """The orthonormal rows, (rank, n)."""
        return self.phi if self.orthonormal else self.transform.T @ self.phi

    def tensors(self) -> dict[str, Tensor]:
        """The inputs of a graph for any Φ besides y, by name and in order."""
        named = {"phi": self.phi, "transform": self.transform}
        return named if self.start is None else {**named, "start": self.start}


def phi_inputs(network: Unfolding, m: Measurement) -> PhiInputs:
    """What a graph of this network needs of the Φ of a measurement.

    Args:
        network: any; the matrix of its start is computed.
        m: block sampling. Its values and noise have an influence only if Φ has weak components:
            then those are left out in which its noise, or an error of Φ, exceeds what they tell.

    Raises:
        UsageError: another operator, blocks that were not measured, or a Markov start of too many
            measurements.
        InputError: a Φ that is zero, or too small for float32.
    """
    operator = m.operator
    if not isinstance(operator, BlockOperator) or operator.present is not None:
        raise UsageError("a graph is for images that are measured in blocks, all of them.")
    markov = isinstance(network.start, MarkovStart)
    if markov and operator.m > LARGEST_SYSTEM:
        raise UsageError(
            f"{operator.m} measurements per block: the start of this network is one matrix up to "
            f"{LARGEST_SYSTEM}, and iterative above, which a graph is not. Use smaller blocks, or "
            "a network with another start, such as rcoast."
        )
    phi = operator.rows.matrix().cpu()
    transform, noise = torch.eye(operator.m), m.noise
    if not operator.tight:
        found = operator.orthonormalized(m.y, m.noise)
        transform, noise = torch.from_numpy(found.to_new).float(), found.noise
    made = PhiInputs(phi, transform, None, noise, operator.tight)
    if not isinstance(network.start, MarkovStart):
        return made
    rows = BlockOperator(operator.phi, operator.block, operator.block, MatrixRows(made.rows))
    start = network.start.solved(rows)
    return PhiInputs(phi, transform, start, noise, operator.tight)


class _OrthonormalRows(MatrixRows):
    """Rows that are known to be orthonormal, so that nothing is computed to find out."""

    @property
    def orthonormal(self) -> bool:
        return True


class _GraphOperator(BlockOperator):
    """Block sampling without bands, whose number depends on the batch; with a known start."""

    start: Tensor | None = None

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        return self.adjoint(self(x) - y)


class _GivenStart(MarkovStart):
    """The Markov start with the matrix that the operator carries."""

    def weights(self, operator: BlockOperator) -> Tensor:
        assert isinstance(operator, _GraphOperator)
        assert operator.start is not None
        return operator.start


class _Gains(Modulation):
    """The gains of a modulation for one condition, (iterations, sites, features)."""

    gains: Tensor

    def __init__(self, network: Unfolding, condition: Condition) -> None:
        super().__init__()
        visits = network.schedule.visits(network.trained.ipl)
        with torch.no_grad():
            every = [network.modulation(condition, visit) for visit in visits]
        self.register_buffer("gains", torch.stack(every))

    def forward(self, condition: Condition, visit: Visit) -> Tensor:
        return self.gains[visit.index - 1]


class Graph(nn.Module):
    """A network at its present counts, for one image size, one block and one m.

    Args:
        network: copied.
        operator: gives image size and block.
        made: of the Φ that determines m, the rank and the noise.
    """

    def __init__(self, network: Unfolding, operator: BlockOperator, made: PhiInputs) -> None:
        super().__init__()
        self.phi: Sampling = operator.phi
        self.image_shape, self.block = operator.image_shape, operator.block
        self.noise = made.noise
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.network.modulation = _Gains(
            self.network, Condition(made.transform.shape[1] / operator.n, made.noise)
        )
        if isinstance(network.start, MarkovStart):
            self.network.start = _GivenStart()

    def _image(self, y: Tensor, rows: Rows, start: Tensor | None) -> Tensor:
        operator = _GraphOperator(self.phi, self.image_shape, self.block, rows)
        operator.m, operator.start = rows.matrix().shape[0], start
        image: Tensor = self.network(Measurement(operator, y, noise=self.noise))
        return image


class FixedPhi(Graph):
    """The graph y (B, gh, gw, m) -> images (B, 1, H, W) for one Φ."""

    def __init__(self, network: Unfolding, operator: BlockOperator, made: PhiInputs) -> None:
        super().__init__(network, operator, made)
        self.rows = _OrthonormalRows(made.rows)
        self.transform = None if made.orthonormal else made.transform
        self.start = made.start

    def forward(self, y: Tensor) -> Tensor:
        """Images, not clipped."""
        values = y if self.transform is None else y @ self.transform
        return self._image(values, self.rows, self.start)


class AnyPhi(Graph):
    """The graph (y, Φ, transform, start) -> images for every Φ of one shape and full rank.

    Raises:
        UsageError: a network for one Φ, a Φ of lower rank, or noise, whose share in y' depends on
            Φ.
    """

    def __init__(self, network: Unfolding, operator: BlockOperator, made: PhiInputs) -> None:
        super().__init__(network, operator, made)
        if isinstance(network.start, LinearStart):
            raise UsageError("this network works with its own Φ only: leave out --any-phi.")
        if made.noise:
            raise UsageError(
                "noise with --any-phi: how much of it is in each value depends on Φ. Export for a "
                "fixed Φ, or without noise."
            )
        full, rank = made.transform.shape
        if rank < full:
            raise UsageError(
                f"Φ has {rank} usable rows of {full}, and a graph for any Φ takes full rank: "
                "export for a fixed Φ, or leave out the dependent rows."
            )

    def forward(
        self, y: Tensor, phi: Tensor, transform: Tensor, start: Tensor | None = None
    ) -> Tensor:
        """Images, not clipped; the inputs are those of PhiInputs."""
        return self._image(y @ transform, _OrthonormalRows(transform.T @ phi), start)
