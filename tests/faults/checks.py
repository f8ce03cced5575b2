"""What the fault tests share."""

from pathlib import Path

from csrecon.sensing import native as saved
from tests.test_cli import run


def refused(code, *words, message):
    """The command fails with this code and these words, and no file changes or appears."""
    before = contents()
    result = run(*words, code=code)
    assert message in result.stderr, result.stderr
    assert "Traceback" not in result.output
    assert contents() == before


def contents():
    """Every file below this folder, the cache aside."""
    found = (path for path in Path().rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found if path.parts[0] != "cache"}


def sampled(image):
    """Sampling that image works, and gives the planes of what it shows."""
    run("sample", image, "--ratio", 1, "--block", 8, "-o", "whole.npz")
    m = saved.load(Path("whole.npz"))
    return m.operator.adjoint(m.y)[0, 0].numpy()
