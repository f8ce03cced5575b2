"""The result cache: equal keys mean equal results, and whatever changes results changes the key."""

import itertools
from dataclasses import replace

import pytest
import torch
from PIL import Image

import csrecon
from csrecon import zoo
from csrecon.errors import ModelError
from csrecon.evaluation import bench, cache
from csrecon.evaluation.cache import ResultCache
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.reconstructors.solvers.tv import TotalVariation
from csrecon.runtime import execution
from csrecon.zoo import cards, datasets, weights_file
from tests.conftest import scene

CPU = execution.Setup(torch.device("cpu"))


@pytest.fixture
def folder(tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    Image.fromarray(scene(40, 50)).save(few / "a.png")
    return few


def rows(folder, models, results=None, ratios=(0.3,), ipls=(None,), **changes):
    plan = bench.Plan("few", datasets.list_images(folder), CPU, **changes)
    return list(bench.run(models, ratios, ipls, plan, results))


def saved(path, max_steps):
    """A network whose weights are the same whatever its R_max."""
    fields = cards.card("rcoast").blueprint().model_dump()
    fields["modulation"]["max_steps"] = max_steps
    blueprint = Blueprint.model_validate(fields)
    network = blueprint.build()
    network.load_state_dict(csrecon.load("rcoast").state_dict())
    weights_file.save(network, blueprint, path)
    return str(path)


def test_equal_weights_with_another_r_max_have_rows_of_their_own(folder, tmp_path):
    results = ResultCache(tmp_path / "rows.jsonl")
    names = [saved(tmp_path / f"{steps}.safetensors", steps) for steps in (30, 15)]
    first, second = (rows(folder, [name], results, ipls=(1,))[0] for name in names)
    assert first.psnr != second.psnr
    again = [rows(folder, [name], results, ipls=(1,))[0].psnr for name in names]
    assert again == [first.psnr, second.psnr]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2


def test_options_of_a_solver_are_part_of_the_key(folder, tmp_path):
    results = ResultCache(tmp_path / "rows.jsonl")
    few, default = (rows(folder, [name], results)[0] for name in ("tv:iterations=5", "tv"))
    assert few.psnr != default.psnr
    same = rows(folder, ["tv:iterations=100"], results)[0]
    assert same.psnr == default.psnr
    assert same.model == "tv:iterations=100"
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2


def test_what_figures_depend_on_changes_the_key(folder):
    def keys(models=("rcoast",), ipls=(1,), ratios=(0.3,), setup=CPU, image="0" * 64, **changes):
        plan = bench.Plan("few", datasets.list_images(folder), setup, **changes)
        return [
            bench.row_key(job, image, (1, 40, 50), plan)
            for job in bench._jobs(models, ratios, ipls, plan)
        ]

    variants = [
        {},
        {"models": ("rcoast-first",)},
        {"models": ("tv",)},
        {"models": ("tv:inner=6",)},
        {"models": ("fista",)},
        {"ipls": (2,)},
        {"ipls": ((1, 1, 1, 1, 2),)},
        {"ratios": (0.2,)},
        {"seeds": (1,)},
        {"kinds": ("dct",)},
        {"kinds": ("fourier",)},
        {"blocks": (16,)},
        {"noise_sigmas": (0.1,)},
        {"protocol": "standard"},
        {"batch": 2},
        {"setup": replace(CPU, precision="bf16")},
        {"image": "1" * 64},
    ]
    found = [key for variant in variants for key in keys(**variant)]
    assert len(set(found)) == len(variants)
    assert [key for variant in variants for key in keys(**variant)] == found
    assert keys(blocks=(33,)) == keys()  # what a gaussian Φ has by default


def test_a_change_of_the_numerics_forgets_all_rows(folder, tmp_path, monkeypatch):
    results = ResultCache(tmp_path / "rows.jsonl")
    rows(folder, ["tv"], results)
    monkeypatch.setattr(cache, "NUMERICS", cache.NUMERICS + 1)
    rows(folder, ["tv"], results)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2


def test_a_view_at_another_ipl_keeps_its_identity():
    network = csrecon.load("rcoast")
    assert zoo.identity(network.at(2)) == zoo.identity(network)
    assert zoo.identity(TotalVariation(5)) != zoo.identity(TotalVariation())
    network.blueprint = None
    with pytest.raises(ModelError, match="no name in the zoo"):
        zoo.identity(network)


def test_several_conditions_in_one_run(folder):
    found = rows(folder, ["tv"], kinds=("gaussian", "dct"), noise_sigmas=(0.0, 0.05))
    assert [(r.kind, r.noise_sigma) for r in found] == list(
        itertools.product(("gaussian", "dct"), (0.0, 0.05))
    )
    assert found[0].psnr > found[1].psnr + 1
    assert found[2].psnr > found[3].psnr + 1
    (row,) = rows(folder, ["fista:iterations=20"], kinds=("fourier",))
    assert row.m == 2 * round(0.3 * 40 * 50)
