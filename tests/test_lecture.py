"""docs/from_ista_to_rcoast.md runs from top to bottom, and says what its blocks print."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from csrecon.cli.app import app
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "from_ista_to_rcoast.md"
DB = 0.05  # what rounding may change


def run(line):
    """A command as typed, with its output in the file after `>`."""
    words = shlex.split(line)
    end = words.index(">") if ">" in words else len(words)
    result = CliRunner().invoke(app, words[1:end])
    assert result.exit_code == 0, f"{line}\n{result.output}"
    for target in words[end + 1 :]:
        Path(target).write_text(result.stdout, encoding="utf-8")


def same(printed, said):
    """Equal words, and numbers with a decimal point equal up to rounding."""
    number = r"\d+\.\d+"
    assert re.sub(number, "#", printed) == re.sub(number, "#", said)
    found, expected = ([float(n) for n in re.findall(number, text)] for text in (printed, said))
    assert found == pytest.approx(expected, abs=DB)


@pytest.mark.slow
def test_the_page_runs_as_written():
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    names, printed, checked = {}, io.StringIO(), 0
    torch.manual_seed(0)
    for kind, block in blocks:
        if kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(block, names)
        elif kind == "sh":
            for line in block.splitlines():
                run(line)
        else:
            same(printed.getvalue(), block)
            checked += 1
    assert checked == sum(block.count("print(") > 0 for kind, block in blocks if kind == "python")

    results = json.loads(Path("all.json").read_text(encoding="utf-8"))["results"]
    rows = re.findall(r"^\|[\d, ]+\| `(.*?)` \|[\d, ]+\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    assert [row[0] for row in rows] == [result["model"] for result in results]
    for (_, iterations, psnr), result in zip(rows, results, strict=True):
        assert len(result["convergence"]) == int(iterations)
        assert result["psnr"] == pytest.approx(float(psnr), abs=DB)
        assert result["convergence"][-1]["psnr"] == pytest.approx(result["psnr"], abs=1e-3)
    for shown in re.findall(r"\]\((from_ista_to_rcoast/.*?\.png)\)", text):
        assert Path("docs", shown).is_file()
