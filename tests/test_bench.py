"""Bench: rows are what they say, cells are their means, and reports hold them."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import csrecon
from csrecon import bench, datasets, execution, images, metrics, report
from csrecon.errors import InputError, ModelError, ResourceError, UsageError
from tests.conftest import scene

CONDITIONS = report.Conditions("few", "paper", 0, "cpu", "fp32")
CPU = execution.Setup(torch.device("cpu"))


@pytest.fixture
def folder(tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for index in range(2):
        Image.fromarray(scene(40 + index, 50)).save(few / f"{index}.png")
    return few


@pytest.fixture
def rows(folder):
    paths = datasets.list_images(folder)
    return list(bench.run(["rcoast", "tv"], "few", paths, [0.1, 0.3], [1, (1, 1, 1, 2, 2)], CPU))


def test_rows_cover_everything_once(rows):
    keys = [(r.model, r.ratio, r.ipl, r.image) for r in rows]
    assert len(set(keys)) == len(keys) == 2 * 2 * 2 + 2 * 2
    assert {r.ipl for r in rows if r.model == "rcoast"} == {"1", "1,1,1,2,2"}
    assert {r.m for r in rows if r.ratio == 0.3} == {327}
    assert all(r.seconds > 0 and (r.peak_memory is None or r.peak_memory > 2**20) for r in rows)


def test_a_row_is_sample_reconstruct_score(rows, folder):
    row = next(
        r for r in rows if (r.model, r.ratio, r.ipl, r.image) == ("rcoast", 0.3, "1", "1.png")
    )
    picture = images.read(folder / "1.png")
    x = csrecon.reconstruct(csrecon.sample(picture, 0.3), "rcoast", 1)
    score = metrics.score(torch.from_numpy(x)[None, None], picture.planes)
    assert (row.psnr, row.ssim) == pytest.approx((score.psnr, score.ssim), abs=1e-4)


def test_cells_are_means(rows):
    cells = bench.summarize(rows)
    assert len(cells) == 6
    group = [r for r in rows if (r.model, r.ratio) == ("tv", 0.1)]
    cell = next(c for c in cells if (c.model, c.ratio) == ("tv", 0.1))
    assert cell.images == 2
    assert cell.score.psnr == pytest.approx(np.mean([r.psnr for r in group]))
    assert cell.score.ssim == pytest.approx(np.mean([r.ssim for r in group]))
    assert cell.paper is None


def test_the_paper_stands_beside_ours_only_for_its_own_cells(rows):
    published = [replace(r, dataset="bsd68", ipl="4") for r in rows if r.ipl == "1"]
    cells = bench.summarize(published)
    assert [c.paper.psnr for c in cells] == [26.14, 30.83]
    header, lines = report.table(cells)
    assert [line[2] for line in lines] == ["measured", "paper"]
    assert lines[1][3:5] == ["26.14 / 0.7329", "30.83 / 0.8879"]
    assert bench.summarize(published, "standard")[0].paper is None
    assert lines[1][5] == "28.48 / 0.8104"
    assert header[3:6] == ["0.1", "0.3", "mean"]
    header, lines = report.listing(cells)
    assert [line[2] for line in lines] == ["0.1", "0.3", "mean"]
    assert [line[4] for line in lines] == ["26.14 / 0.7329", "30.83 / 0.8879", "28.48 / 0.8104"]


def test_reports(rows, tmp_path):
    cells = bench.summarize(rows)
    targets = report.targets([tmp_path / "out"], overwrite=False)
    report.write(targets, cells, rows, CONDITIONS)
    content = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert len(content["rows"]) == len(rows)
    assert content["conditions"]["seed"] == 0
    with (tmp_path / "out" / "bench.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [float(line["psnr"]) for line in lines] == [c.score.psnr for c in cells]
    text = (tmp_path / "out" / "bench.md").read_text()
    assert "not rounded" in text
    assert text.count("\n| rcoast") == 2
    with pytest.raises(UsageError, match="exists"):
        report.targets([tmp_path / "out"], overwrite=False)


def test_infinite_figures_stay_valid_json(rows):
    perfect = [replace(rows[0], psnr=math.inf, ssim=math.nan)]
    content = json.loads(report.to_json(bench.summarize(perfect), perfect, CONDITIONS))
    assert content["rows"][0]["psnr"] is None


def test_report_suffix(tmp_path):
    with pytest.raises(UsageError, match="report ends in"):
        report.targets([tmp_path / "a.xlsx"], overwrite=False)


def test_sets_are_found_where_they_are_said_to_be(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="CSRECON_DATA"):
        datasets.images("set11")
    for place, name in ((tmp_path / "given", "set11"), (tmp_path / "cache" / "data", "set12")):
        (place / name).mkdir(parents=True)
        for index in range(datasets.DATASETS[name].count):
            Image.fromarray(scene(9, 9)).save(place / name / f"{index:02}.png")
    assert datasets.images("set12")[0].parts[-4:-2] == ("cache", "data")
    assert datasets.images("set11", tmp_path / "given")[0].parts[-3] == "given"
    monkeypatch.setenv("CSRECON_DATA", str(tmp_path / "given"))
    assert datasets.images("set11")[0].parts[-3] == "given"
    (tmp_path / "given" / "set11" / "00.png").unlink()
    with pytest.raises(ModelError, match="10 images, and set11 has 11"):
        datasets.images("set11")


def test_unknown_sets_and_empty_folders(tmp_path):
    with pytest.raises(ModelError, match="did you mean 'bsd68'"):
        datasets.images("bsd86")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no image"):
        datasets.images(str(tmp_path / "none"))


def test_what_is_named_twice_runs_once(folder):
    paths = datasets.list_images(folder)
    rows = list(bench.run(["tv", "tv"], "few", paths, [0.1, 0.1], [1, 1], CPU))
    assert len(rows) == 2


def test_faults_are_found_before_the_work(folder, tmp_path):
    paths = datasets.list_images(folder)
    with pytest.raises(UsageError, match=r"1\.\.12"):
        next(bench.run(["rcoast"], "few", paths, [0.1], [1, 13], CPU))
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes()[:60])
    with pytest.raises(InputError, match="truncated"):
        next(bench.run(["rcoast"], "few", datasets.list_images(folder), [0.1], [1], CPU))
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ResourceError):
        report.targets([tmp_path / "taken" / "a.csv"], overwrite=False)
    once = report.targets([tmp_path / "a.csv", tmp_path / "a.csv"], overwrite=False)
    assert once == [tmp_path / "a.csv"]
    assert not once[0].exists()


def test_bad_ratio(folder):
    with pytest.raises(UsageError, match="ratio"):
        list(bench.run(["rcoast"], "few", datasets.list_images(folder), [0.0], [1], CPU))
