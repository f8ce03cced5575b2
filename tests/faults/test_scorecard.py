"""The fault scorecard: numbered faults, what csrecon answers, and that nothing is lost.

`python -m tests.faults.test_scorecard` prints docs/faults.md from the docstrings of the tests in
this folder: the first line says the fault, the second the answer.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path

from tests.conftest import ROOT


def faults() -> dict[int, list[str]]:
    """Number -> fault and answer, from every test of this folder named test_fN."""
    found: dict[int, list[str]] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.faults.{path.stem}")
        for name, test in vars(module).items():
            if match := re.fullmatch(r"test_f(\d+)", name):
                assert int(match[1]) not in found, f"{name} is there twice"
                found[int(match[1])] = inspect.cleandoc(test.__doc__).splitlines()
    return dict(sorted(found.items()))


def scorecard() -> str:
    """docs/faults.md."""
    lines = [
        f"| F{number:02} | {fault} | {answer} |" for number, (fault, answer) in faults().items()
    ]
    return (
        "# Faults\n\nWhat can go wrong, and what csrecon does. Each line has a test of its number "
        "in `tests/faults`, which also writes this table (`python -m tests.faults.test_scorecard`)."
        " Every refusal is one line on stderr without a traceback, and no file is changed, lost or "
        "left incomplete.\n\n| | fault | answer |\n|---|---|---|\n" + "\n".join(lines) + "\n"
    )


def test_the_scorecard_is_the_published_one():
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    assert text == scorecard()
    assert list(faults()) == list(range(1, len(faults()) + 1))


if __name__ == "__main__":
    sys.stdout.write(scorecard())
