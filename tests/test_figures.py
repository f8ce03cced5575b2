"""Figures of a benchmark and comparisons of models."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from csrecon.cli.app import app
from csrecon.errors import InputError, UsageError
from csrecon.evaluation import figures, plot


def cell(model="rcoast", ratio=0.1, ipl="4", psnr=30.0, seconds=1.0):
    return {"model": model, "ratio": ratio, "ipl": ipl, "psnr": psnr, "seconds": seconds}


CELLS = [
    cell(model, ratio, ipl, 25 + 10 * ratio + int(ipl) / 10, int(ipl) / 4)
    for model, ipls in (("rcoast", "124"), ("coast", "1"))
    for ratio in (0.1, 0.5)
    for ipl in ipls
]


NOISY = [{**cell(psnr=30 - 50 * sigma), "noise_sigma": sigma} for sigma in (0.02, 0.1)]


def test_every_figure_has_its_data(tmp_path):
    written = figures.draw([*CELLS, *NOISY], tmp_path)
    assert sorted(p.name for p in written) == sorted(
        f"psnr_{kind}{suffix}" for kind in figures.KINDS for suffix in (".png", ".pdf", ".csv")
    )
    with (tmp_path / "psnr_ipl.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["curve", "iterations per layer", "PSNR (dB)"]
    assert rows[1] == ["rcoast, 10 %", "1.0", "26.1"]
    assert len(rows) == 1 + 2 * 3
    with (tmp_path / "psnr_noise.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["curve", "standard deviation of the noise on y", "PSNR (dB)"]
    assert rows[1:] == [
        ["rcoast, IPL 4, 10 %", "0.0", "26.4"],
        ["rcoast, IPL 4, 10 %", "0.02", "29.0"],
        ["rcoast, IPL 4, 10 %", "0.1", "25.0"],
    ]
    with (tmp_path / "psnr_parameters.csv").open() as stream:
        rows = list(csv.reader(stream))[1:]
    assert {float(row[1]) for row in rows} == {281_674, 1_122_024}
    with (tmp_path / "psnr_seconds.csv").open() as stream:
        rows = list(csv.reader(stream))[1:]
    assert [row[0] for row in rows].count("coast, 10 %") == 1  # a plain network is one point
    with Image.open(tmp_path / "psnr_ratio.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
    with pytest.raises(UsageError, match="exists"):
        figures.draw(CELLS, tmp_path)


def test_one_cell_makes_no_curve(tmp_path):
    with pytest.raises(InputError, match="no curve"):
        figures.draw([cell()], tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"cells": [{"model": "a"}]}', "nonsense", "null"])
def test_what_is_no_report(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="not a report"):
        figures.read_cells(tmp_path / "a.json")


@pytest.mark.parametrize(
    "change",
    [{"model": {}}, {"noise_sigma": "a"}, {"ratio": 10**400}, {"kind": [1]}, {"psnr": "x"},
     {"ipl": 4}, {"block": 0.5}, {"seconds": None}],
    ids=str,
)  # fmt: skip
def test_a_report_with_a_value_of_another_type(tmp_path, change):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"cells": [cell(), cell() | change]}))
    with pytest.raises(InputError, match="not a report"):
        figures.read_cells(path)


def test_an_infinite_psnr_is_left_out(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"cells": [cell(), cell() | {"psnr": None}]}))
    assert len(figures.read_cells(path)) == 1


def test_the_busiest_square():
    image = np.zeros((60, 80), np.float32)
    image[30:40, 50:60] = np.indices((10, 10)).sum(0) % 2
    zoom = plot.busiest(image, 16)
    assert zoom.top <= 30 and zoom.top + 16 >= 40
    assert zoom.left <= 50 and zoom.left + 16 >= 60
    assert plot.busiest(image[:5, :7], 48).side == 5


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def test_compare(photo, tmp_path):
    result = run("compare", photo, "--model", "rcoast@1", "--model", "tv", "--json")
    facts = json.loads(result.stdout)
    assert [r["model"] for r in facts["results"]] == ["rcoast, IPL 1", "tv"]
    with Image.open("compare.png") as image:
        assert image.width > 900
    run("compare", photo, code=2)
    run("compare", photo, "--model", "rcoast@1", "--film", "-o", "film.png")
    assert (tmp_path / "film.png").exists()
    run("compare", photo, "--film", "-o", "other.png", code=2)
    for square in ("1,2", "40,0,20", "0,0,0"):
        assert "row,column,side" in run(
            "compare", photo, "--model", "tv", "--zoom", square, "-o", "b.png", code=2
        ).stderr  # fmt: skip


def test_plot_a_comparison(photo):
    """Every model against iterations and seconds; objectives of solvers only."""
    words = ["compare", photo, "--model", "rcoast@1", "--model", "fista:iterations=3", "--json"]
    told = run(*words, "--precision", "fp32").stdout
    Path("both.json").write_text(told, encoding="utf-8")
    network, solver = json.loads(told)["results"]
    assert [at["iteration"] for at in network["convergence"]] == [1, 2, 3, 4, 5]
    for result in (network, solver):
        spent = [at["seconds"] for at in result["convergence"]]
        assert spent == sorted(spent) and spent[-1] <= result["seconds"] + 1e-3
        assert result["convergence"][-1]["psnr"] == pytest.approx(result["psnr"], abs=1e-3)
    assert "objective" in solver["convergence"][0]
    assert "objective" not in network["convergence"][0]

    names = {Path(name).name for name in json.loads(run("plot", "both.json", "--json").stdout)}
    for name in ("psnr", "psnr_seconds", "objective", "objective_seconds"):
        assert f"convergence_{name}.png" in names
    for name, labels in (("psnr_seconds", {"rcoast, IPL 1", "fista:iterations=3"}),
                         ("objective", {"fista:iterations=3"})):  # fmt: skip
        with Path(f"figures/convergence_{name}.csv").open(encoding="utf-8") as stream:
            assert {row[0] for row in csv.reader(stream)} == {"curve", *labels}
    run("plot", "both.json", code=2)
    Path("both.json").write_text('{"figure": "a", "results": [{"model": 1}]}', encoding="utf-8")
    assert "compare --json" in run("plot", "both.json", "-o", "b", code=3).stderr


def test_plot_a_report(photo, tmp_path):
    (tmp_path / "few").mkdir()
    photo.rename(tmp_path / "few" / "img.png")
    run("bench", "--dataset", "few", "--model", "tv", "--ratio", "0.1,0.3", "-o", "r.json")
    names = run("plot", "r.json", "-o", "figures").stdout
    assert "psnr_ratio.pdf" in names
    run("plot", "r.json", "-o", "figures", code=2)
    run("plot", "missing.json", code=3)
