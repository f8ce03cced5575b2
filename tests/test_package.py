"""What is shipped: the sdist, the wheel that is built from it, and what they say of themselves."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import csrecon
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist and the wheel, built without the network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def test_the_wheel_has_the_package_its_weights_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        packed = wheel.read("csrecon/zoo/models.yaml")
    assert packed == (ROOT / "models.yaml").read_bytes()
    cards = yaml.safe_load(packed)["models"].values()
    weights = {card["weights"]["file"] for card in cards if "file" in (card["weights"] or {})}
    assert weights
    assert {f"csrecon/zoo/bundled/{name}" for name in weights} <= names
    source = ROOT / "src"
    own = {
        path.relative_to(source).as_posix()
        for path in (source / "csrecon").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == own | {"csrecon/zoo/models.yaml"}
    assert {"csrecon/py.typed", "csrecon/evaluation/presets.yaml"} <= names


def test_the_sdist_has_what_builds_and_tests_it(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    )
    needed = ["pyproject.toml", "models.yaml", "constraints.txt", "tests/golden.npz", "README.md"]
    expected = set(tracked.stdout.splitlines()) or set(needed)
    missing = {name for name in expected if (ROOT / name).exists()} - names
    assert not missing
    assert not [name for name in names if name.startswith((".git/", ".venv", "dist/", "runs/"))]


def test_the_index_shows_what_is_true(built):
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        text = wheel.read(name).decode()
    facts = Parser().parsestr(text)
    assert facts["Version"] == csrecon.__version__
    assert facts["License-Expression"] == "Apache-2.0"
    assert facts["Requires-Python"] == ">=3.11"
    assert "Paper, https://arxiv.org/abs/2305.05505" in facts.get_all("Project-URL")
    assert facts.get_payload().startswith("# csrecon")
    for extra in ("deepinv", "export", "lpips", "solvers"):
        assert extra in facts.get_all("Provides-Extra")


def test_one_version_everywhere():
    version = csrecon.__version__
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == version
    assert cited["preferred-citation"]["url"].endswith("2305.05505")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", changes, flags=re.MULTILINE)
    assert headings[:2] == ["Unreleased", version]


def test_constraints_pin_what_the_project_names():
    """Every package that pyproject.toml names, extras included, has one exact version."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = set(re.findall(r'^\s*"([\w-]+)>=', project, flags=re.MULTILINE))
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    plain = [name.lower().replace("_", "-") for name in pinned]
    assert len(plain) == len(set(plain))
    assert {"torch", "onnxruntime"} <= named
    assert {name.lower() for name in named} <= set(plain)


def test_the_container_installs_the_wheel():
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert "ARG BASE=docker.io/library/python:3.11-slim\nFROM ${BASE}\n" in text
    (copied,) = re.findall(r"^COPY (.*)$", text, flags=re.MULTILINE)
    assert copied.split() == ["constraints.txt", "dist/csrecon-*.whl", "/tmp/csrecon/"]
    assert Path(ROOT / "constraints.txt").is_file()
    (command,) = re.findall(r"^RUN ((?:.*\\\n)*.*)$", text, flags=re.MULTILINE)
    steps = [step.split() for step in command.replace("\\\n", " ").split("&&")]
    assert steps[0] == ["python3", "-m", "venv", "/opt/csrecon"]  # as .ci/run installs the wheel
    assert steps[1][:2] == ["/opt/csrecon/bin/pip", "install"]
    assert steps[1][-3:] == ["-c", "/tmp/csrecon/constraints.txt", "/tmp/csrecon/csrecon-*.whl"]
