"""Denoisers, one file each: alone (`denoise`) or as the prior of plug-and-play (`pnp`, `damp`)."""

from collections.abc import Callable

from csrecon.reconstructors.denoisers.base import Denoiser
from csrecon.reconstructors.denoisers.nlm import NonLocalMeans
from csrecon.reconstructors.denoisers.tv import TvDenoiser
from csrecon.reconstructors.denoisers.wavelet import Wavelet

DENOISERS: dict[str, Callable[..., Denoiser]] = {
    "nlm": NonLocalMeans,
    "tv": TvDenoiser,
    "wavelet": Wavelet,
}
"""Name -> denoiser, a dataclass whose fields are its options."""

__all__ = ["DENOISERS", "Denoiser"]
