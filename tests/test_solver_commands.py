"""Solvers on the command line: verbose, JSON, figures, warm starts, divergence, tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csrecon import zoo
from csrecon.errors import CheckError
from csrecon.evaluation import convergence
from csrecon.reconstructors.solvers.tv import TotalVariation
from tests.conftest import scene
from tests.test_cli import run

TV = ["--model", "tv:iterations=4"]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene(40, 33)[..., 0]).save("img.png")
    run("sample", "img.png", "--ratio", 0.3, "--block", 16)


def facts(*words):
    (found,) = json.loads(run("reconstruct", "y.npy", "--overwrite", "--json", *words).stdout)
    return found


def test_verbose_prints_every_iteration():
    loud = run("reconstruct", "y.npy", *TV, "-v")
    assert "y.npy: iteration 1 of 4: strength 0.1, residual " in loud.stderr
    assert "iteration 4 of 4" in loud.stderr
    assert "objective" in loud.stderr
    assert "iteration" not in run("reconstruct", "y.npy", *TV, "--overwrite").stderr


def test_json_has_the_iterations_and_the_reason():
    found = facts(*TV)
    assert found["stopped"] == "iterations"
    assert [step["iteration"] for step in found["convergence"]] == [1, 2, 3, 4]
    assert all({"objective", "residual", "strength"} <= set(s) for s in found["convergence"])
    early = facts("--model", "tv:tolerance=0.5,weight=0.1")
    assert early["stopped"] == "relative change below 0.5"
    assert early["iterations"] == len(early["convergence"]) < 100
    said = run("reconstruct", "y.npy", "--model", "tv:tolerance=0.5,weight=0.1", "--overwrite")
    assert "; relative change below 0.5" in said.stdout
    network = facts("--model", "rista", "--ipl", 1)
    assert "convergence" not in network
    assert "stopped" not in network


def test_figures_of_convergence():
    for name in ("tv:iterations=4", "lasso:iterations=20,continuation=0"):
        told = run("reconstruct", "y.npy", "--model", name, "--json", "--overwrite").stdout
        Path(f"{name[:2]}.json").write_text(told, encoding="utf-8")
    drawn = json.loads(run("plot", "tv.json", "la.json", "-o", "figures", "--json").stdout)
    names = {Path(path).name for path in drawn}
    assert {"convergence_objective.png", "convergence_residual.pdf", "convergence_gap.csv"} <= names
    lines = Path("figures/convergence_objective.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "curve,iteration,objective"
    assert len(lines) == 1 + 4 + 20
    assert lines[1].startswith('"tv:iterations=4, y.npy",1,')
    assert "exists" in run("plot", "tv.json", "-o", "figures", code=2).stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not what"),
        ('[{"measurement": "y.npy"}]', "not what"),
        ('[{"measurement": "y.npy", "model": "rcoast"}]', "classical solvers only"),
        ('[{"measurement": "y", "model": "tv", "convergence": [{"iteration": 1}]}]', "no curve"),
    ],
)
def test_what_is_no_convergence(text, message):
    Path("a.json").write_text(text, encoding="utf-8")
    assert message in run("plot", "a.json", code=3).stderr


def test_a_report_of_convergence_is_no_input_of_its_figures():
    Path("f").mkdir()
    told = run("reconstruct", "y.npy", *TV, "--json").stdout
    Path("f/convergence_gap.csv").write_text(told, encoding="utf-8")
    run("plot", "f/convergence_gap.csv", "-o", "f", "--overwrite", code=2)
    assert [Path(p).suffix for p in map(str, convergence.outputs(Path("f"))[:3])] == [
        ".png",
        ".pdf",
        ".csv",
    ]


def test_warm_starts():
    cold = facts(*TV, "--ref", "img.png")
    warm = facts(*TV, "--ref", "img.png", "--init", "img.png")
    model = facts(*TV, "--ref", "img.png", "--init-model", "fista:iterations=50")
    assert warm["psnr"] > cold["psnr"] + 3
    assert model["psnr"] > cold["psnr"] + 1
    assert warm["convergence"][0]["strength"] == pytest.approx(0.0003)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([*TV, "--init", "img.png", "--init-model", "fista"], 2, "give one"),
        ([*TV, "--init", "nosuch.png"], 3, "nosuch.png"),
        ([*TV, "--init", "small.png"], 2, "start of shape"),
        ([*TV, "--init-model", "nosuch"], 4, "no model named"),
        ([*TV, "--init-model", "fista:size=1"], 2, "size='1'"),
        ([*TV, "--init", "img.png", "--check"], 2, "use --init-model"),
        (["--model", "rista", "--init", "img.png"], 2, "classical solvers"),
        (["--model", "rista", "--keep-going"], 2, "classical solvers"),
        ([*TV, "--init", "img.png", "-o", "img.png", "--overwrite"], 2, "img.png"),
        ([*TV, "y.npy", "z.npy", "--init", "img.png"], 2, "use --init-model"),
        (["--model", "omp", "--init", "img.png"], 2, "leave out the warm start"),
    ],
)
def test_warm_starts_that_cannot_be(words, code, message):
    Image.fromarray(scene(9, 9)[..., 0]).save("small.png")
    assert message in run("reconstruct", "y.npy", *words, code=code).stderr
    assert not Path("y.png").exists()


def test_a_start_from_a_model_is_made_again_from_the_rest():
    found = facts(*TV, "--init-model", "fista:iterations=3", "--check")
    assert "estimated_psnr" in found


def test_divergence_writes_nothing_unless_it_is_asked_to(monkeypatch):
    monkeypatch.setattr(TotalVariation, "iterates", diverging)
    refused = run("reconstruct", "y.npy", *TV, code=7)
    assert "diverged in iteration 3: the objective grew from 1 to 99" in refused.stderr
    assert not Path("y.png").exists()
    kept = facts(*TV, "--keep-going", "-o", "kept.npy")
    assert kept["stopped"].startswith("diverged in iteration 3")
    np.testing.assert_array_equal(np.load("kept.npy"), np.full((40, 33), 0.5, np.float32))
    run("sample", "img.png", "--ratio", 0.3, "-o", "z.npy")
    several = run("reconstruct", "y.npy", "z.npy", *TV, "-o", "out", code=6)
    assert several.stderr.count("diverged in iteration 3") == 2
    assert CheckError.exit_code == 7


def diverging(self, m, start):
    from csrecon.reconstructors.solvers.frame import Iterate

    image = m.operator.adjoint(m.y)
    for value, cost in ((0.2, 2.0), (0.5, 1.0), (0.7, 99.0), (0.9, 0.5)):
        yield Iterate(image * 0 + value, {"objective": cost})


def test_automatic_strength_is_said():
    told = run("reconstruct", "y.npy", "--model", "tv:weight=auto,iterations=5", "-v")
    assert "chosen by cross-validation" in told.stderr


def test_several_solvers_in_one_table():
    Path("photos").mkdir()
    Image.fromarray(scene(34, 40)).save("photos/a.png")
    names = "tv:iterations=3,inner=2,omp:sparsity=3,tval3:iterations=3,fista:iterations=2,size=8"
    words = [
        "--dataset",
        "photos",
        "--ratio",
        0.3,
        "--model",
        names,
        "--model",
        "lasso:iterations=4",
    ]
    cells = json.loads(run("bench", *words, "--json").stdout)["cells"]
    assert [cell["model"] for cell in cells] == [
        "tv:iterations=3,inner=2",
        "omp:sparsity=3",
        "tval3:iterations=3",
        "fista:iterations=2,size=8",
        "lasso:iterations=4",
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tv", ["tv"]),
        ("tv,omp", ["tv", "omp"]),
        ("tv:a=1,b=2,omp,lasso:c=3", ["tv:a=1,b=2", "omp", "lasso:c=3"]),
        ("a,b=1.safetensors", ["a,b=1.safetensors"]),
        ("tv,a=1", ["tv", "a=1"]),
        ("tv:a=1,hf:owner/name", ["tv:a=1", "hf:owner/name"]),
    ],
)
def test_names_of_several_models(text, names):
    assert zoo.split_names(text) == names
