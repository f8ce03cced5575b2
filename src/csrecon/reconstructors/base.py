"""The interface of reconstructors: a generator of iterates x¹, x², … from a measurement.

The last iterate is the result. Training also uses the penalties; plots and progress bars use all
iterates.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from csrecon.sensing.measurement import Measurement


@dataclass(frozen=True)
class State:
    """What a recursion carries from one iteration to the next.

    Attributes:
        image: (B, C, H, W).
        features: (B, F, H/s, W/s) of a block that computes at 1/s of the resolution; None for
            blocks without features.
    """

    image: Tensor
    features: Tensor | None = None

    def map(self, f: Callable[[Tensor], Tensor]) -> "State":
        """The state with f applied to the image and to the features."""
        return State(f(self.image), None if self.features is None else f(self.features))

    def relaxed(self, proposed: "State") -> "State":
        """Relaxation: the mean of this state and a proposed one."""
        if self.features is None or proposed.features is None:
            return State((self.image + proposed.image) / 2, proposed.features)
        return State((self.image + proposed.image) / 2, (self.features + proposed.features) / 2)


@dataclass(frozen=True)
class Step:
    """One iterate.

    Attributes:
        image: (B, C, H, W), not clipped.
        penalty: scalar that training may add to its loss.
        index, total: this is the index-th iterate, from 1, of `total`.
        parts: images that add up to this one, by name, if a method separates them.
        facts: numbers about this iterate by name, such as its objective, if a method knows them.
        stopped: of the last iterate: why the method stopped, if it has a stopping rule.
    """

    image: Tensor
    penalty: Tensor
    index: int
    total: int
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    stopped: str = ""

    def record(self) -> dict[str, float]:
        """`iteration`, and the facts to six digits."""
        facts = {name: float(f"{value:.6g}") for name, value in self.facts.items()}
        return {"iteration": self.index, **facts}


class Reconstructor(Protocol):
    """Maps a measurement to an image: an unfolding network or a classical solver."""

    def steps(self, m: Measurement) -> Iterator[Step]:
        """Every iterate, in order; the last is the result."""

    def __call__(self, m: Measurement) -> Tensor:
        """The reconstruction (B, C, H, W), not clipped."""


def last(iterates: Iterator[Step]) -> Step:
    """The final iterate; earlier ones are freed."""
    return deque(iterates, maxlen=1).pop()
