"""The fuzzer and the kill test: short runs of both, and that they find planted faults."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FAULT = """
from csrecon.io import arrays

def planted(path, *_):
    if b"7" in path.read_bytes():
        raise IndexError("planted")
    return {}

arrays.READERS[".csv"] = planted
"""
LOSS = """
import time
from csrecon.io import files

def planted(temporary, target, overwrite):
    content = temporary.read_bytes()
    with target.open("wb") as stream:
        for index in range(0, len(content), 1 + len(content) // 50):
            stream.write(content[index : index + 1 + len(content) // 50])
            stream.flush()
            time.sleep(0.002)
    temporary.unlink()

files.publish = planted
"""


def script(name, *options, code):
    """The JSON that a script of benchmarks/ prints."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{name}.py", *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, limits and signals")


def test_a_short_run_of_the_fuzzer_finds_nothing():
    modes = "readers,options,damage,disk"  # the others depend on the machine's speed
    found = script("fuzz", "--cases", 60, "--seed", 5, "--modes", modes, code=0)
    assert found["cases"] > 60
    assert len(found["by mode"]) > 3


def test_a_planted_fault_is_found_and_minimised(tmp_path):
    (tmp_path / "planted.py").write_text(FAULT)
    options = ("--setup", tmp_path / "planted.py", "--modes", "readers", "--minimise", 99)
    found = script("fuzz", "--cases", 8, *options, "--keep", tmp_path / "kept", code=1)
    ((symptom, fault),) = found["faults"].items()
    assert symptom.startswith("call: exit 1: IndexError in io/arrays.py")
    (kept,) = (tmp_path / "kept").glob("*/files/*.csv")
    assert kept.read_bytes() == b"7"
    assert fault["command"].endswith(kept.name)
    again = script(
        "fuzz", "--setup", tmp_path / "planted.py", "--replay", tmp_path / "kept", code=1
    )
    assert next(iter(again.values()))["now"] == [symptom]
    script("fuzz", "--replay", tmp_path / "kept", code=0)


def test_a_short_kill_test_loses_nothing():
    found = script("kill", "--commands", "sample,import,download", "--times", 6, code=0)
    assert {name: facts["kills"] for name, facts in found["commands"].items()} == {
        "sample": 6,
        "import": 6,
        "download": 6,
    }


def test_a_planted_loss_is_found(tmp_path):
    (tmp_path / "planted.py").write_text(LOSS)
    options = ("--setup", tmp_path / "planted.py", "--keep", tmp_path / "kept")
    found = script("kill", "--commands", "import", "--times", 6, *options, code=1)
    assert any("import" in text for text in found["commands"]["import"]["losses"])
    assert list((tmp_path / "kept").iterdir())
