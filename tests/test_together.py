"""Neighbours that are alike are worked on at once, and nobody pays for another's fault."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from csrecon import api, measurement_file
from csrecon.cli.app import app
from csrecon.cli.together import Together
from csrecon.errors import InputError, ResourceError
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
    def load(item):
        if item == "a2":
            raise InputError("unreadable")
        return item

    def work(group):
        if "a4" in group:
            raise ResourceError("too large")
        return group

    found = taken(["a1", "a2", "a3", "a4", "a5"], work, load=load)
    assert found == {"a1": "a1", "a2": "unreadable", "a3": "a3", "a4": "too large", "a5": "a5"}


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
        measurement_file.save(api.sample(np.roll(image, index, 0), 0.2), made / f"{index}.npy")
    measurement_file.save(api.sample(scene(50, 40), 0.2), made / "4.npy")
    noisy = api.sample(scene(40, 50)[..., 0], 0.2, noise_sigma=0.01)
    measurement_file.save(noisy, made / "5.npy")
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


def test_a_bad_scale_is_the_fault_of_one_file(folder):
    path = folder / "2.npy"
    good = measurement_file.load(path)
    measurement_file.save(replace(good, y=good.y * 300), path, overwrite=True)
    result = run(folder, "-o", "out", code=6)
    assert "1 of 6 files failed (2.npy)" in result.stderr
    assert len(list(Path("out").iterdir())) == 5
