"""What the page offers: kinds of Φ, and the models that are on this machine."""

from dataclasses import dataclass

from csrecon import _default
from csrecon.evaluation.compare import Entry
from csrecon.reconstructors.solvers import SOLVERS
from csrecon.sensing.operators import KINDS
from csrecon.zoo import cards, store

KINDS_OF_PHI = (*KINDS, "fourier")
"""What the page measures with: block sampling by any kind of Φ, and Fourier sampling."""

_ABOUT = {
    "damp": "D-AMP: denoises, and takes the measured values into account, in turn",
    "fista": "sparse in a cosine transform, accelerated",
    "ista": "sparse in a cosine transform",
    "lasso": "sparse in a cosine transform, to a duality gap",
    "omp": "few cosines a block, chosen one after the other",
    "pnp": "plug-and-play with a denoiser as the prior",
    "tv": "small total variation",
    "tval3": "small total variation, by an augmented Lagrangian",
}


@dataclass(frozen=True)
class Offer:
    """A model that the page offers.

    Attributes:
        name: as commands and functions take it.
        about: a line about it.
        ipl: its usual iterations per layer; None for a classical solver.
        most: the most that it allows.
        layers: its number of layers.
    """

    name: str
    about: str
    ipl: int | None = None
    most: int = 1
    layers: int = 1

    def entry(self, ipl: int | None) -> Entry:
        """The model with iterations per layer, as far as it has and allows any."""
        if self.ipl is None:
            return Entry(self.name)
        return Entry(self.name, min(max(1, ipl or self.ipl), self.most))


def models() -> dict[str, Offer]:
    """The models that need no download, by name: the default, other networks, and solvers.

    Networks that work with their own Φ only, and denoisers, are left out.
    """
    found = {}
    for name, card in cards.cards().items():
        if card.per_ratio or card.task == "denoising" or not _present(name):
            continue
        counts = card.recursion.schedule
        found[name] = Offer(name, card.summary, max(counts), card.trained.max_ipl, len(counts))
    solvers = {name: Offer(name, _ABOUT[name]) for name in SOLVERS if name in _ABOUT}
    return {_default.MODEL: found[_default.MODEL], **found, **solvers}


def _present(name: str) -> bool:
    """Whether all weights of a model are on this machine and intact."""
    weights = list(store.all_weights(name))
    return bool(weights) and not any(store.problem(name, each) for _, each in weights)
