"""The kinds of Φ that are generated from a name and a seed."""

from collections.abc import Callable
from functools import lru_cache, partial

from csrecon.errors import UsageError, nearest
from csrecon.sensing.operators import transforms
from csrecon.sensing.operators.matrices import MATRICES, Phi
from csrecon.sensing.operators.sampling import Sampling

DEFAULT_SIDE = 33
_HADAMARD_SIDE = 32


def _dense(kind: str, m: int, block: tuple[int, int], seed: int) -> Sampling:
    return Phi.make(m, block[0] * block[1], seed, kind)


KINDS: dict[str, Callable[[int, tuple[int, int], int], Sampling]] = {
    **{kind: partial(_dense, kind) for kind in MATRICES},
    "hadamard": partial(transforms.scrambled, "hadamard", "hadamard"),
    "hadamard-cake": transforms.cake_cutting,
    "dct": partial(transforms.scrambled, "dct", "dct"),
    "pixels": transforms.pixels,
}
"""Kind of Φ -> function of (m, block, seed)."""


@lru_cache(maxsize=4)
def make(kind: str, m: int, block: tuple[int, int], seed: int) -> Sampling:
    """Generate Φ of a kind: m rows for blocks of (bh, bw) pixels.

    Raises:
        UsageError: an unknown kind of Φ, or a size or seed that it does not allow.
    """
    if kind not in KINDS:
        raise UsageError(f"kind of Φ {kind!r}: {nearest(kind, KINDS)}")
    return KINDS[kind](m, block, seed)


def default_block(kind: str) -> tuple[int, int]:
    """The default block of a kind of Φ: 33×33 as in the papers, 32×32 for the Hadamard kinds."""
    side = _HADAMARD_SIDE if kind.startswith("hadamard") else DEFAULT_SIDE
    return side, side
