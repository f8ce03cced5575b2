"""The shape of the house: imports go only downwards, files stay small, nothing unpickles."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csrecon import _moved
from tests.conftest import ROOT

PACKAGE = ROOT / "src" / "csrecon"
ROOMS = [
    ("errors", "metrics", "_version", "_default", "_moved"),
    ("io",),
    ("sensing",),
    ("reconstructors",),
    ("runtime",),
    ("zoo",),
    ("evaluation",),
    ("training",),
    ("api", "deepinverse"),
    ("demo",),
    ("cli",),
]
"""The rooms of csrecon, the lowest first."""
FLOOR = {name: floor for floor, names in enumerate(ROOMS) for name in names}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    """The name of a module below csrecon; the facade is ``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in SOURCES}


def imported(path: Path) -> set[str]:
    """The modules of csrecon that a file imports, wherever in it; `` where it asks the facade."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package != "csrecon":
                continue
            while rest and rest not in MODULES:
                rest = rest.rpartition(".")[0]
            found.add(rest)
    return found


def floor(name: str) -> int:
    """How high a module lies; the facade gives what api defines."""
    return FLOOR[name.partition(".")[0] or "api"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    own = module(path)
    if own == "__main__":
        assert imported(path) == {"cli"}
        return
    for other in imported(path):
        assert floor(other) <= floor(own), f"{own} imports {other}, a room above it"


def test_nothing_imports_the_package_for_a_part_of_it():
    """`import csrecon` below the facade would point upwards."""
    for name, path in MODULES.items():
        if name not in ("", "__main__") and floor(name) <= floor("api"):
            assert "" not in imported(path), name


def test_no_circle():
    """Modules can be put in an order in which each imports earlier ones only."""
    left = {name: imported(path) - {name} for name, path in MODULES.items() if name}
    for name, others in left.items():  # a package's own parts are what it is made of
        left[name] = {other for other in others if other and not name.startswith(f"{other}.")}
    while left:
        free = [name for name, others in left.items() if not others & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_the_listing_shows_the_rooms():
    rooms = {name.partition(".")[0] for name in MODULES} - {"", "__main__"}
    assert rooms == set(FLOOR)


def test_names_of_the_first_release_are_found():
    from csrecon.allocator import keep_freed_memory
    from csrecon.lab import Arrangement
    from csrecon.recursion import RFMU, ProxBlock, Schedule, Unfolding

    from csrecon.sensing import lab

    assert Arrangement is lab.Arrangement
    assert keep_freed_memory.__module__ == "csrecon.runtime.allocator"
    assert issubclass(ProxBlock, torch.nn.Module)
    assert Schedule((2, 2)).with_ipl(3).counts == (3, 3)
    assert {RFMU.__module__, Unfolding.__module__} == {
        "csrecon.reconstructors.modulation",
        "csrecon.reconstructors.unfolding",
    }
    with pytest.raises(ImportError):
        from csrecon.lab import nothing_of_that_name  # noqa: F401
    for old, homes in _moved.MOVED.items():
        assert old not in MODULES
        assert all(home in MODULES for home in homes)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small_and_never_unpickle(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert not re.search(r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|pickle\.loads?\(", text)


def test_help_does_not_import_torch():
    code = (
        "import sys\n"
        "from csrecon.cli import main\n"
        "sys.argv = ['csrecon', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'matplotlib', 'pydantic_core', 'PIL'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "reconstruct" in done.stdout
