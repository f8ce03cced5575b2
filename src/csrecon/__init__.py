"""csrecon: image reconstruction from compressive measurements y = Φx.

`sample` measures an image, `reconstruct` turns measurements into an image, `load` returns a
network of the zoo. They are imported on first use, so that `import csrecon` stays fast.
"""

from typing import TYPE_CHECKING, Any

from csrecon import _moved
from csrecon._version import __version__

if TYPE_CHECKING:
    from csrecon.api import load, reconstruct, sample

_moved.install()

__all__ = ["__version__", "load", "reconstruct", "sample"]


def __getattr__(name: str) -> Any:
    if name in ("load", "reconstruct", "sample"):
        from csrecon import api  # noqa: PLC0415 - imports torch on first use only

        return getattr(api, name)
    raise AttributeError(f"module 'csrecon' has no attribute {name!r}")
