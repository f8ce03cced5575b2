"""How often each layer is applied, in which order, and what the modulation is conditioned on.

Layer i is applied R_i times. R_tot = Σ R_i counts the iterations of a call, R_cur = 1..R_tot the
present one.

Source: R (Alhejaili et al. 2023), section 3.1.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from csrecon.errors import UsageError

Order = Literal["layers", "looped"]
Count = Annotated[int, Field(ge=1, le=1024)]
"""A number of channels, steps or iterations, bounded because metadata of a file may give it."""


@dataclass(frozen=True)
class Visit:
    """One application of a layer.

    Attributes:
        layer: which block, from 0.
        iteration: this is the layer's own iteration-th, from 1.
        index: this is the index-th iteration of the call, from 1, of `total`.
        r_cur, r_tot: what the modulation is conditioned on; inside the trained counts they equal
            index and total.
    """

    layer: int
    iteration: int
    index: int
    total: int
    r_cur: int
    r_tot: int


@dataclass(frozen=True)
class Schedule:
    """How often each layer is applied, and in which order the layers are visited.

    `layers` visits 0,0,0,1,1,1,… as the paper does; `looped` visits the whole stack repeatedly,
    0,1,0,1,…, so that IPL k is a prefix of IPL k+1.
    """

    counts: tuple[int, ...]
    order: Order = "layers"

    def __post_init__(self) -> None:
        """Raise UsageError for a count below 1."""
        if not self.counts or min(self.counts) < 1:
            raise UsageError(
                f"iterations per layer {self.counts}: expected at least 1 for every layer."
            )

    def with_ipl(self, ipl: int | Sequence[int]) -> "Schedule":
        """The same layers and order with other counts: one IPL for all layers, or one per layer.

        Raises:
            UsageError: a count below 1, or another number of counts than layers.
        """
        layers = len(self.counts)
        counts = (ipl,) * layers if isinstance(ipl, int) else tuple(ipl)
        if len(counts) != layers:
            known = f"{layers} layers" if layers > 1 else "1 layer"
            raise UsageError(
                f"{len(counts)} iteration counts {counts} for a network of {known}: give one "
                f"number{f', or {layers}' if layers > 1 else ''}."
            )
        return Schedule(counts, self.order)

    def path(self) -> Iterator[int]:
        """The layer of every iteration, in order."""
        if self.order == "layers":
            for layer, count in enumerate(self.counts):
                yield from (layer,) * count
        else:
            for loop in range(max(self.counts)):
                yield from (layer for layer, count in enumerate(self.counts) if count > loop)

    def visits(self, trained_ipl: int) -> Iterator[Visit]:
        """Every iteration with what the modulation is conditioned on.

        Counts beyond `trained_ipl` are conditioned on the schedule clamped to it: the j-th
        iteration of a layer takes the values of its min(j, trained_ipl)-th, so that every layer
        stays within the values it was trained with.
        """
        clamped = Schedule(tuple(min(c, trained_ipl) for c in self.counts), self.order)
        trained: dict[tuple[int, int], int] = {}
        visited: Counter[int] = Counter()
        for position, layer in enumerate(clamped.path(), start=1):
            visited[layer] += 1
            trained[layer, visited[layer]] = position
        visited.clear()
        for position, layer in enumerate(self.path(), start=1):
            visited[layer] += 1
            r_cur = trained[layer, min(visited[layer], trained_ipl)]
            yield Visit(
                layer, visited[layer], position, sum(self.counts), r_cur, sum(clamped.counts)
            )

    def __str__(self) -> str:
        """`4` for equal counts, else `4,4,4,6,6`."""
        same = len(set(self.counts)) == 1
        return str(self.counts[0]) if same else ",".join(map(str, self.counts))
