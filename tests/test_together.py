"""Neighbours that are alike are worked on at once, and nobody pays for another's fault."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from csrecon import api
from csrecon.cli.app import app
from csrecon.errors import InputError, ResourceError, UsageError
from csrecon.io import images
from csrecon.runtime.together import Together
from csrecon.sensing import native
from csrecon.sensing.measurement import Measurement
from tests.conftest import scene


def taken(items, work, most=4, load=lambda item: item):
    """What becomes of every item: its result, or the error's text."""
    found = {}
    with Together(items, load, work, lambda one: one[0], lambda _: most) as pairs:
        for item in items:
            try:
                found[item] = pairs.take(item)[1]
            except (InputError, ResourceError) as error:
                found[item] = str(error)
    return found


def all_but_a2(item):
    if item == "a2":
        raise InputError("unreadable")
    return item


def test_runs_of_alike_neighbours():
    groups = []

    def work(group):
        groups.append(list(group))
        return [one.upper() for one in group]

    items = ["a1", "a2", "a3", "a4", "a5", "b1", "a6"]
    assert taken(items, work) == {item: item.upper() for item in items}
    assert groups == [["a1", "a2", "a3", "a4"], ["a5"], ["b1"], ["a6"]]


def test_one_at_a_time_where_nothing_is_alike():
    groups = []

    def work(group):
        groups.append(list(group))
        return group

    with Together(["a", "a2"], str, work, lambda _: None, lambda _: 4) as pairs:
        assert [pairs.take(item)[1] for item in ("a", "a2")] == ["a", "a2"]
    assert groups == [["a"], ["a2"]]
    groups.clear()
    assert taken(["a1", "a2"], work, most=0) == {"a1": "a1", "a2": "a2"}
    assert groups == [["a1"], ["a2"]]


def test_faults_stay_with_their_items():
    def work(group):
        if "a4" in group:
            raise ResourceError("too large")
        return group

    found = taken(["a1", "a2", "a3", "a4", "a5"], work, load=all_but_a2)
    assert found == {"a1": "a1", "a2": "unreadable", "a3": "a3", "a4": "too large", "a5": "a5"}


def test_nothing_is_kept_of_what_failed():
    def work(group):
        raise ResourceError("too large")

    items = ["a1", "a2", "a3", "a4"]
    with Together(items, all_but_a2, work, lambda one: one[0], lambda _: 4) as pairs:
        for item in items:
            with pytest.raises((InputError, ResourceError)):
                pairs.take(item)
        assert not (pairs._loading or pairs._done or pairs._alone)


def test_the_next_are_read_while_some_are_worked_on():
    read, seen = [], []

    def load(item):
        read.append(item)
        return item

    def work(group):
        deadline = time.monotonic() + 30
        while len(read) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append(sorted(read))
        return group

    items = ["a1", "a2", "b1", "b2"]
    with Together(items, load, work, lambda one: one[0], lambda _: 2) as pairs:
        pairs.take("a1")
    assert seen == [items]


def test_bugs_are_not_swallowed():
    def work(group):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        taken(["a1", "a2"], work)


@pytest.fixture
def folder(tmp_path):
    """Four measurements of one kind, one of another size, one with noise."""
    made = tmp_path / "in"
    made.mkdir()
    for index in range(4):
        image = scene(40, 50)[..., index % 3]
        native.save(api.sample(np.roll(image, index, 0), 0.2), made / f"{index}.npy")
    native.save(api.sample(scene(50, 40), 0.2), made / "4.npy")
    noisy = api.sample(scene(40, 50)[..., 0], 0.2, noise_sigma=0.01)
    native.save(noisy, made / "5.npy")
    return made


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["reconstruct", *map(str, arguments), "--ipl", "1"])
    assert result.exit_code == code, result.output
    return result


def test_a_folder_gives_what_its_files_give(folder, monkeypatch):
    sizes = []
    original = api.reconstruct_steps

    def spy(m, *rest):
        sizes.append(len(m.y))
        return original(m, *rest)

    monkeypatch.setattr(api, "reconstruct_steps", spy)
    results = json.loads(run(folder, "-o", "out", "--precision", "fp32", "--json").stdout)
    assert sizes == [4, 3, 1]
    assert [Path(r["output"]).stem for r in results] == list("012345")
    for index in range(6):
        run(folder / f"{index}.npy", "-o", f"{index}.png", "--precision", "fp32")
        with Image.open(f"{index}.png") as one, Image.open(f"out/{index}.png") as other:
            assert np.abs(np.asarray(one, float) - np.asarray(other, float)).max() <= 1


def test_each_is_scored_against_its_own_original(tmp_path):
    folder, originals = tmp_path / "in", tmp_path / "originals"
    folder.mkdir()
    originals.mkdir()
    for index, color in enumerate(["gray", "ycbcr", "gray", "ycbcr"]):
        image = np.roll(scene(40, 50), 3 * index, 0)
        Image.fromarray(image).save(originals / f"{index}.png")
        picture = images.read(originals / f"{index}.png", color)
        native.save(api.sample(picture, 0.3), folder / f"{index}.npy")
    options = ("--precision", "fp32", "--json")
    grouped = json.loads(run(folder, "-o", "out", "--ref", originals, *options).stdout)
    for index, record in enumerate(grouped):
        one = (folder / f"{index}.npy", "-o", f"{index}.png", "--ref", originals / f"{index}.png")
        single = json.loads(run(*one, *options).stdout)[0]
        assert record["color"] == single["color"]
        assert record["psnr"] == pytest.approx(single["psnr"], abs=1e-3)


def test_only_what_is_of_one_kind_is_stacked():
    image = scene(40, 50)[..., 0]
    plain = api.sample(image, 0.2)
    assert Measurement.stacked([plain]) is plain
    assert Measurement.stacked([plain, plain]).y.shape[0] == 2
    for other in (
        api.sample(image, 0.2, seed=1),
        api.sample(image, 0.3),
        api.sample(image[:39], 0.2),
        api.sample(image, 0.2, noise_sigma=0.01),
    ):
        with pytest.raises(UsageError, match="one operator"):
            Measurement.stacked([plain, other])
        assert other.noise or Measurement.stacked([other, other])


def test_a_bad_scale_is_the_fault_of_one_file(folder):
    path = folder / "2.npy"
    good = native.load(path)
    native.save(replace(good, y=good.y * 300), path, overwrite=True)
    result = run(folder, "-o", "out", code=6)
    assert "1 of 6 files failed (2.npy)" in result.stderr
    assert len(list(Path("out").iterdir())) == 5
