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
from csrecon import metrics
from csrecon.errors import InputError, ModelError, ResourceError, UsageError
from csrecon.evaluation import bench, report
from csrecon.evaluation.cache import ResultCache
from csrecon.evaluation.rows import summarize
from csrecon.evaluation.table import Table
from csrecon.io import images
from csrecon.runtime import execution
from csrecon.zoo import datasets
from tests.conftest import scene

CPU = execution.Setup(torch.device("cpu"))
CONDITIONS = report.Conditions(bench.Plan("few", [], CPU))


def plan(folder, **changes):
    return bench.Plan("few", datasets.list_images(folder), CPU, **changes)


@pytest.fixture
def folder(tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for index in range(2):
        Image.fromarray(scene(40 + index, 50)).save(few / f"{index}.png")
    return few


@pytest.fixture
def rows(folder):
    return list(bench.run(["rcoast", "tv"], [0.1, 0.3], [1, (1, 1, 1, 2, 2)], plan(folder)))


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
    x = csrecon.reconstruct(csrecon.sample(picture, 0.3), "rcoast", 1, precision="fp32")
    score = metrics.score(torch.from_numpy(x)[None, None], picture.planes)
    assert (row.psnr, row.ssim) == pytest.approx((score.psnr, score.ssim), abs=1e-4)


def test_cells_are_means(rows):
    cells = summarize(rows)
    assert len(cells) == 6
    group = [r for r in rows if (r.model, r.ratio) == ("tv", 0.1)]
    cell = next(c for c in cells if (c.model, c.ratio) == ("tv", 0.1))
    assert cell.images == 2
    assert cell.score.psnr == pytest.approx(np.mean([r.psnr for r in group]))
    assert cell.score.ssim == pytest.approx(np.mean([r.ssim for r in group]))
    assert cell.paper is None


def test_the_paper_stands_beside_ours_only_for_its_own_cells(rows):
    published = [replace(r, dataset="bsd68", ipl="4") for r in rows if r.ipl == "1"]
    cells = summarize(published)
    assert [c.paper.psnr for c in cells] == [26.14, 30.83]
    made = report.table(cells)
    header, lines = made.header, made.lines
    assert [line[2] for line in lines] == ["measured", "paper"]
    assert lines[1][3:5] == ["26.14 / 0.7329", "30.83 / 0.8879"]
    assert summarize(published, "standard")[0].paper is None
    assert lines[1][5] == "28.48 / 0.8104"
    assert header[3:6] == ["0.1", "0.3", "mean"]
    made = report.listing(cells)
    header, lines = made.header, made.lines
    assert [line[2] for line in lines] == ["0.1", "0.3", "mean"]
    assert [line[4] for line in lines] == ["26.14 / 0.7329", "30.83 / 0.8879", "28.48 / 0.8104"]


def test_reports(rows, tmp_path):
    cells = summarize(rows)
    targets = report.targets([tmp_path / "out"], overwrite=False)
    report.write(targets, report.texts(cells, rows, CONDITIONS))
    content = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert len(content["rows"]) == len(rows)
    assert content["conditions"]["seeds"] == [0]
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
    content = json.loads(report.to_json(summarize(perfect), perfect, CONDITIONS))
    assert content["rows"][0]["psnr"] is None


def test_report_suffix(tmp_path):
    with pytest.raises(UsageError, match="report ends in"):
        report.targets([tmp_path / "a.xlsx"], overwrite=False)


def test_sets_are_found_where_they_are_said_to_be(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="CSRECON_DATA"):
        datasets.images("set11")
    monkeypatch.setattr(datasets, "_LISTS", tmp_path)  # no digests are known
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
    rows = list(bench.run(["tv", "tv"], [0.1, 0.1], [1, 1], plan(folder)))
    assert len(rows) == 2


def test_faults_are_found_before_the_work(folder, tmp_path):
    with pytest.raises(UsageError, match=r"1\.\.12"):
        next(bench.run(["rcoast"], [0.1], [13], plan(folder)))
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes()[:60])
    with pytest.raises(InputError, match="truncated"):
        next(bench.run(["rcoast"], [0.1], [1], plan(folder)))
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ResourceError):
        report.targets([tmp_path / "taken" / "a.csv"], overwrite=False)
    once = report.targets([tmp_path / "a.csv", tmp_path / "a.csv"], overwrite=False)
    assert once == [tmp_path / "a.csv"]
    assert not once[0].exists()


def test_a_model_runs_the_iterations_that_it_allows(folder, caplog):
    caplog.set_level("INFO")
    (folder / "1.png").unlink()
    rows = bench.run(["rista-3pct", "frcoast"], [0.3], [1, 7], plan(folder))
    found = {(r.model, r.ipl) for r in rows}
    assert found == {("rista-3pct", "1"), ("frcoast", "1"), ("frcoast", "7")}
    assert "left out: IPL 7, above 6" in caplog.text


def test_bad_ratio(folder):
    with pytest.raises(UsageError, match="ratio"):
        list(bench.run(["rcoast"], [0.0], [1], plan(folder)))


def test_finished_rows_are_not_computed_again(folder, tmp_path, monkeypatch):
    few = plan(folder)
    path = tmp_path / "rows.jsonl"
    first = list(bench.run(["tv"], [0.1, 0.3], [None], few, ResultCache(path)))
    text = path.read_text()
    path.write_text(text[: text.rindex("{")] + '{"key": "cut o')
    calls = []
    original = bench.evaluate
    monkeypatch.setattr(bench, "evaluate", lambda *a: calls.append(1) or original(*a))
    again = list(bench.run(["tv"], [0.1, 0.3], [None], few, ResultCache(path)))
    assert len(calls) == 2  # the warm-up and the one row that was cut off
    assert [replace(r, seconds=0, peak_memory=0) for r in again] == [
        replace(r, seconds=0, peak_memory=0) for r in first
    ]
    assert list(bench.run(["tv"], [0.1, 0.3], [None], few, ResultCache(path))) == again
    list(bench.run(["tv"], [0.1], [None], plan(folder, noise_sigmas=(0.1,)), ResultCache(path)))
    assert len(calls) == 2 + 3


def test_processes_share_without_duplicates(folder, tmp_path):
    few = plan(folder, seeds=(0, 1))
    path = tmp_path / "rows.jsonl"
    for index in range(3):
        list(bench.run(["tv"], [0.1], [None], few, ResultCache(path), (index, 3)))
    journal = ResultCache(path)
    assert len(path.read_text().splitlines()) == 4
    assert len(list(bench.run(["tv"], [0.1], [None], few, journal))) == 4
    assert len(path.read_text().splitlines()) == 4
    assert list(bench.spread(2, ["tv"], [0.3], [None], few, journal)) == [1, 2]
    assert len(path.read_text().splitlines()) == 8


def test_several_phi_give_a_spread(folder):
    rows = list(bench.run(["tv"], [0.1], [None], plan(folder, seeds=(0, 1, 2))))
    (cell,) = summarize(rows)
    means = [np.mean([r.psnr for r in rows if r.seed == seed]) for seed in range(3)]
    assert (cell.images, cell.seeds) == (2, 3)
    assert cell.spread == pytest.approx(np.std(means, ddof=1))
    assert f"± {cell.spread:.2f}" in report.listing([cell]).lines[0][3]


def test_images_of_one_shape_at_once(folder, monkeypatch):
    Image.fromarray(scene(40, 41)).save(folder / "2.png")
    Image.fromarray(scene(40, 41)[:, ::-1]).save(folder / "3.png")
    single = list(bench.run(["rcoast"], [0.3], [1], plan(folder)))
    sizes = []
    original = bench.evaluate
    monkeypatch.setattr(
        bench, "evaluate", lambda job, p, *rest: sizes.append(len(p)) or original(job, p, *rest)
    )
    batched = list(bench.run(["rcoast"], [0.3], [1], plan(folder, batch=3)))
    assert max(sizes) > 1 and sum(sizes) == len(single) + sizes[0]  # one is a warm-up
    assert [r.image for r in batched] == [r.image for r in single]
    for one, other in zip(single, batched, strict=True):
        assert other.psnr == pytest.approx(one.psnr, abs=1e-3)
        assert other.ssim == pytest.approx(one.ssim, abs=1e-4)
    with pytest.raises(UsageError, match="without noise"):
        list(bench.run(["rcoast"], [0.3], [1], plan(folder, batch=3, noise_sigmas=(0.1,))))


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("options", ["tolerance=0.05,iterations=8", "weight=auto,iterations=3"])
def test_a_batch_changes_no_figure_of_a_solver(folder, options, noise, tmp_path):
    dark = (scene(40, 50) // 4).astype(np.uint8)
    Image.fromarray(dark).save(folder / "2.png")  # its rules end elsewhere
    (folder / "1.png").unlink()
    kept = ResultCache(tmp_path / "rows.jsonl")
    model = [f"tv:{options}"]
    single, batched = (
        [(row.psnr, row.ssim) for row in bench.run(model, [0.5], [None], chosen)]
        for chosen in (
            plan(folder, noise_sigmas=(noise,)),
            plan(folder, noise_sigmas=(noise,), batch=3),
        )
    )
    assert len(single) == 2 and single == batched
    (first,) = bench.run(model, [0.5], [None], plan(folder, batch=3), kept, (0, 2))
    again = next(bench.run(model, [0.5], [None], plan(folder, batch=1), kept))
    assert again == first  # of the cache, seconds included


def test_noise_lowers_the_score(folder):
    clean, noisy = (
        summarize(list(bench.run(["tv"], [0.3], [None], plan(folder, noise_sigmas=(sigma,)))))
        for sigma in (0.0, 0.1)
    )
    assert noisy[0].score.psnr < clean[0].score.psnr - 1


def test_latex(rows):
    text = report.table(summarize(rows)).latex(str(CONDITIONS))
    assert text.startswith("% few; PSNR")
    assert r"\begin{tabular}{ll" in text
    assert Table(["a", "b"], [["5×4 & 3 %", "_"]]).latex("").splitlines()[5] == (
        r"5$\times$4 \& 3 \% & \_ \\"
    )
