"""Old module names of the first release, so that programs written for it still import.

`from csrecon.lab import Arrangement` finds csrecon.sensing.lab. csrecon itself does not use this.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "allocator": ("runtime.allocator",),
    "arrays": ("io.arrays",),
    "datasets": ("zoo.datasets",),
    "execution": ("runtime.execution",),
    "files": ("io.files",),
    "images": ("io.images",),
    "lab": ("sensing.lab",),
    "measurement": ("sensing.measurement",),
    "measurement_file": ("sensing.native",),
    "noise": ("sensing.noise",),
    "operators": ("sensing.operators",),
    "plot": ("evaluation.plot",),
    "recursion": (
        "reconstructors.unfolding",
        "reconstructors.modulation",
        "reconstructors.schedule",
        "reconstructors.base",
    ),
    "solvers": ("reconstructors.solvers",),
    "tiles": ("runtime.tiles",),
}
"""Old module name -> the modules below `csrecon` that hold its contents now."""


class _Old(Loader):
    def __init__(self, homes: Sequence[str]) -> None:
        self.homes = homes

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name, f"Moved to {', '.join(self.homes)}.")

    def exec_module(self, module: ModuleType) -> None:
        homes = self.homes

        def find(name: str) -> Any:
            for home in homes:
                found = importlib.import_module(f"csrecon.{home}")
                if hasattr(found, name):
                    return getattr(found, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = find


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        package, _, old = name.rpartition(".")
        known = package == "csrecon" and old in MOVED
        return ModuleSpec(name, _Old(MOVED[old])) if known else None


def install() -> None:
    """Make the old module names importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
