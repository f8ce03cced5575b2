"""The shape of the house: imports go only to rooms above, files stay small, nothing unpickles."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "src" / "csrecon"
ROOMS = [
    "errors",
    "allocator",
    "files",
    "foreign",
    "arrays",
    "images",
    "fetch",
    "metrics",
    "perceptual",
    "operators",
    "measurement",
    "noise",
    "sidecar",
    "measurement_file",
    "starts",
    "orientations",
    "recursion",
    "tiles",
    "nets",
    "solvers",
    "lab",
    "cards",
    "published",
    "hub",
    "depot",
    "zoo",
    "model_page",
    "execution",
    "datasets",
    "api",
    "deepinverse",
    "selftest",
    "journal",
    "cells",
    "bench",
    "report",
    "presets",
    "plot",
    "figures",
    "training",
    "cli",
]
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "csrecon" and len(parts) > 1 and parts[1] in ROOMS:
                found.add(parts[1])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_to_rooms_above(path):
    own = room(path)
    if own == "__main__":
        assert imported_rooms(path) == {"cli"}
        return
    if own == "__init__":  # the facade gives lazily what api defines
        assert imported_rooms(path) <= {"api"}
        return
    for other in imported_rooms(path) - {own}:
        assert ROOMS.index(other) < ROOMS.index(own), f"{own} imports {other}, a room below it"


def test_every_room_is_known():
    assert {room(path) for path in SOURCES} - {"__init__", "__main__"} == set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small_and_never_unpickle(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 420
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
