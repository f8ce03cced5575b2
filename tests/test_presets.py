"""The paper's tables: three kinds of figures, kept apart."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from csrecon import zoo
from csrecon.cli.app import app
from csrecon.errors import ModelError, UsageError
from csrecon.evaluation import bench, figures, presets, report
from csrecon.evaluation.rows import Row, summarize
from csrecon.metrics import Score
from csrecon.reconstructors.solvers import SOLVERS
from csrecon.runtime import execution
from csrecon.zoo import cards, datasets
from tests.conftest import scene

CONDITIONS = report.Conditions(bench.Plan("bsd68", [], execution.Setup(torch.device("cpu"))))


def row(model, ratio, psnr, ipl=4):
    return Row(model, "bsd68", "a.png", ratio, 109, str(ipl), 0, psnr, 0.5, 0.25, None)


def runner(name, ratios, ipls):
    if name == "coast-paper":
        raise ModelError("the server answers 404")
    for ratio in ratios:
        for ipl in ipls:
            yield row(name, ratio, 30 + 10 * ratio, ipl)


def test_table_1_is_the_paper_s():
    table = presets.preset("table1")
    made = presets.quality(table, [])
    header, lines = made.header, made.lines
    assert header[2:] == ["10 %", "20 %", "30 %", "40 %", "50 %", "mean"]
    printed = {line[0]: line[2:] for line in lines}
    assert printed["R-COAST 5×4"][0] == "26.14 / 0.7329"
    assert printed["R-COAST 5×4"][-1] == "30.58 / 0.8645"
    assert printed["ISTA-Net+ 9×1, 3 %"][-1] == "28.76 / 0.8232"
    assert len(lines) == 8


def test_three_kinds_of_figures(caplog):
    table = presets.preset("table1")
    results = list(presets.run(table, runner))
    lines = presets.quality(table, results).lines
    text = ["|".join(line) for line in lines]
    start = next(i for i, line in enumerate(text) if line.startswith("COAST 20×1|"))
    assert text[start] == (
        "COAST 20×1|paper|26.24 / 0.7378|28.93 / 0.8378|30.99 / 0.8918|32.82 / 0.9255|"
        "34.58 / 0.9484|30.71 / 0.8683"
    )
    assert text[start + 1].startswith("|authors' weights, here|weights unavailable here|")
    assert "the server answers 404" in caplog.text
    start = next(i for i, line in enumerate(text) if line.startswith("R-COAST 5×4|"))
    assert text[start + 2] == (
        "|csrecon|31.00 / 0.5000|32.00 / 0.5000|33.00 / 0.5000|34.00 / 0.5000|35.00 / 0.5000|"
        "33.00 / 0.5000"
    )
    assert text[start + 3] == "|csrecon − paper (dB)|+4.86|+3.21|+2.17|+1.32|+0.54|+2.42"
    original = next(r for r in results if r.line.authors == "istanet-plus-original")
    assert list(original.cells) == [0.1]
    assert "no weights were released" in text[[t.startswith("RISTA") for t in text].index(True) + 1]


def test_models_of_the_tables_are_known():
    for table in presets.presets().values():
        assert table.dataset in datasets.DATASETS
        for line in table.lines:
            for name in (line.ours, line.authors):
                if name is not None and zoo.is_solver(name):
                    _, options = zoo.split_name(name)
                    prior, _ = zoo.loading.split_ipl(options.get("with", "tv"))
                    if prior in cards.cards():
                        assert cards.card(prior).task == "denoising"
                    else:
                        zoo.load(name)
                elif name is not None and line.curve is None:
                    assert max(cards.card(name).recursion.schedule) == line.ipl
                elif name is not None:
                    assert line.ipl <= cards.card(name).trained.max_ipl


def test_table_2_has_times():
    table = presets.preset("table2")
    results = list(presets.run(table, runner))
    assert {result.kind for result in results} == {"csrecon"}
    made = presets.table_of(table, results)
    header, lines = made.header, made.lines
    assert header[-1] == "here: images/s"
    assert lines[-1][2:] == ["10.50", "12.20", "0.250", "4.00"]


def test_reports_of_a_table():
    table = presets.preset("ablation")
    texts = presets.texts(table, list(presets.run(table, runner)), CONDITIONS)
    assert json.loads(texts[".json"]())["results"][0]["paper"] == {"0.1": [28.5, None]}
    assert texts[".csv"]().startswith("network,figures,10 %\nR-COAST 5×4,paper,28.50\n")
    assert "| R-COAST 5×4 | paper | 28.50 |\n" in texts[".md"]()
    assert r"R-COAST 5$\times$4 & paper" in texts[".tex"]()


def test_a_line_of_several_ipls_is_several_lines():
    table = presets.preset("fig8")
    lines = {line.label: line for line in table.lines}
    assert lines["R-COAST, IPL 4"].psnr == 28.5
    assert lines["R-COAST, IPL 6"].psnr is None
    shown = presets.quality(table, list(presets.run(table, runner))).lines
    first = {line[0]: line[1:] for line in shown if line[0]}
    assert first["R-COAST, IPL 4"] == ["paper", "28.50"]
    assert first["R-COAST, IPL 6"] == ["authors' weights, here", "31.00 / 0.5000"]
    assert first["RISTA-Net+, IPL 3"][0] == "authors' weights, here"  # printed for another set


def test_the_figure_of_an_ablation(tmp_path):
    table = presets.preset("fig6")
    png, pdf, points = figures.draw_preset(table, list(presets.run(table, runner)), tmp_path)
    with Image.open(png) as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert pdf.stat().st_size > 1000
    assert points.read_text().splitlines()[1:] == [
        '"five layers without recursion, csrecon",5.0,31.0',
        '"five layers without recursion, paper",5.0,26.6',
        *(f'"R-COAST, authors\' weights",{5.0 * ipl},31.0' for ipl in (1, 2, 3, 4)),
        *(f'"R-COAST, csrecon",{5.0 * ipl},31.0' for ipl in (1, 2, 3, 4)),
        '"R-COAST, paper",20.0,28.5',
        '"COAST 20×1, csrecon",20.0,31.0',
    ]
    with pytest.raises(UsageError, match="exists"):
        figures.draw_preset(table, list(presets.run(table, runner)), tmp_path)
    table = presets.preset("table1")
    assert figures.draw_preset(table, list(presets.run(table, runner)), tmp_path) == []


@pytest.mark.parametrize("option", [["--jobs", "2"], ["--resume"], ["--batch", "2"]])
def test_seconds_are_measured_anew_and_alone(option):
    result = CliRunner().invoke(app, ["bench", "--preset", "table2", *option])
    assert result.exit_code == 2, result.output
    assert "without the result cache" in result.stderr


def test_a_figure_of_the_paper_for_an_ipl_that_is_not_run():
    line = {"label": "ours", "ipls": [1, 4], "ours": "rcoast", "psnr": {3: 28.5}}
    with pytest.raises(ValueError, match="which is not run"):
        presets.Preset(title="tiny", dataset="set11", ratios=(0.1,), lines=(line,))


def test_score_is_a_mean():
    (cell,) = summarize([row("a", 0.1, 20.0), row("a", 0.1, 30.0)])
    assert cell.score == Score(25.0, 0.5)


def test_command(tmp_path, monkeypatch):
    folder = tmp_path / "sets" / "set11"
    folder.mkdir(parents=True)
    for index in range(11):
        Image.fromarray(scene(34, 34)).save(folder / f"{index:02}.png")
    line = {"label": "ours", "ipls": [1, 4], "ours": "rcoast", "psnr": {4: 28.5}}
    tiny = presets.Preset(title="tiny", dataset="set11", ratios=(0.1,), lines=(line,))
    monkeypatch.setattr(presets, "presets", lambda: {"tiny": tiny})
    command = ["bench", "--preset", "tiny", "--data-dir", "sets", "--limit", "2", "-o", "report"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "csrecon − paper (dB)" in result.stdout
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == [
        "psnr_iterations.csv", "psnr_iterations.pdf", "psnr_iterations.png",
        "tiny.csv", "tiny.json", "tiny.md", "tiny.tex",
    ]  # fmt: skip
    assert CliRunner().invoke(app, command).exit_code == 2
    computed = []
    monkeypatch.setattr(bench, "evaluate", lambda *a: computed.append(a))
    result = CliRunner().invoke(app, [*command, "--overwrite", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["title"] == "tiny"
    assert computed == []
    assert CliRunner().invoke(app, ["bench"]).exit_code == 2
    assert CliRunner().invoke(app, [*command, "--ratio", "0.1"]).exit_code == 2


def test_denoising_has_a_column_a_noise_level():
    table = presets.preset("denoise")

    def noisy(name, ratios, ipls):
        assert ratios == [1.0]
        for sigma in table.columns:
            found = row(name, 1.0, 30 - 50 * sigma, "")
            yield replace(found, dataset="bsd68-gray", kind="identity", noise_sigma=sigma)

    results = list(presets.run(table, noisy))
    made = presets.quality(table, results)
    assert made.header[2:] == ["σ 15/255", "σ 25/255", "σ 50/255", "mean"]
    text = {line[0]: line[1:] for line in made.lines}
    assert text["BM3D"] == ["published", "31.07", "28.57", "25.62", "28.42"]
    psnrs = ["27.06 / 0.5000", "25.10 / 0.5000", "20.20 / 0.5000", "24.12 / 0.5000"]
    assert text["rdenoise"] == text["non-local means"] == ["csrecon", *psnrs]


def test_the_command_adds_the_noise(tmp_path, monkeypatch):
    (tmp_path / "sets" / "bsd68-gray").mkdir(parents=True)
    for index in range(68):
        Image.fromarray(scene(20, 20)[..., 0]).save(tmp_path / f"sets/bsd68-gray/{index:02}.png")
    line = {"label": "total variation", "ours": "denoise:with=tv"}
    tiny = presets.Preset(title="tiny", dataset="bsd68-gray", noise=(25, 50), lines=(line,))
    monkeypatch.setattr(presets, "presets", lambda: {"tiny": tiny})
    command = ["bench", "--preset", "tiny", "--data-dir", "sets", "--limit", "1", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    cells = json.loads(result.stdout)["results"][0]["cells"]
    assert [cell["noise_sigma"] for cell in cells] == [25 / 255, 50 / 255]
    assert {cell["kind"] for cell in cells} == {"identity"}
    assert 20 < cells[1]["score"]["psnr"] < cells[0]["score"]["psnr"]


def test_solvers_have_seconds_and_no_authors():
    table = presets.preset("solvers")

    def solved(name, ratios, ipls):
        if "rdenoise" in name:
            raise ModelError("model 'rdenoise' has no released weights yet")
        for ratio in ratios:
            found = row(name, ratio, 30 + 10 * ratio, ipls[0])
            yield replace(found, dataset="set11", ipl="" if zoo.is_solver(name) else found.ipl)

    results = list(presets.run(table, solved))
    assert {result.kind for result in results} == {"csrecon"}
    assert {name.partition(":")[0] for name in (r.line.ours for r in results)} >= {
        *SOLVERS.keys() - {"adjoint", "denoise"},
        "rcoast",
        "frcoast",
    }
    made = presets.table_of(table, results)
    assert made.header[-2:] == ["mean", "s/image"]
    assert all(len(line) == len(made.header) for line in made.lines)
    text = {line[0]: line[1:] for line in made.lines}
    assert text["TVAL3"] == [
        "published", "24.27", "27.48", "29.81", "31.89", "33.97", "29.48", "",
    ]  # fmt: skip
    assert text["plug-and-play, rdenoise"] == ["csrecon", "weights unavailable here", *[""] * 6]
    assert text["total variation"][-2:] == ["33.00 / 0.5000", "0.25"]
    assert text["FR-COAST 1×20"][-1] == "0.25"


def test_a_published_row_may_have_gaps():
    line = {"label": "ours", "ours": "tv"}
    table = presets.Preset(
        title="tiny", dataset="set11", ratios=(0.1, 0.2), published={"a": (None, 20)}, lines=(line,)
    )
    assert presets.quality(table, []).lines == [["a", "published", "", "20.00", ""]]


def test_unknown_preset():
    with pytest.raises(UsageError, match="did you mean 'table1'"):
        presets.preset("tabel1")
