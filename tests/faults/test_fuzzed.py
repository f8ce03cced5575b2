"""Faults that benchmarks/fuzz.py found."""

from pathlib import Path

from tests.test_cli import run


def test_f111(photo):
    """A classical solver where the convolutions' precision is bf16, as on newer processors
    it computes in fp32, and its image is that of --precision fp32"""
    found = []
    for precision in ("bf16", "fp32"):
        run("sample", photo, "--ratio", "0.3", "-o", f"{precision}.npy")
        solver = ("--model", "fista:iterations=20", "--precision", precision)
        run("reconstruct", f"{precision}.npy", *solver)
        found.append(Path(f"{precision}.png").read_bytes())
    assert found[0] == found[1]
