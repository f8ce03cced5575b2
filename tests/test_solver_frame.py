"""What all solvers share: facts, stopping, divergence, warm starts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

import csrecon
from csrecon import api, zoo
from csrecon.errors import CheckError, InputError, UsageError
from csrecon.reconstructors.base import last
from csrecon.reconstructors.solvers import SOLVERS
from csrecon.reconstructors.solvers.frame import (
    GAP,
    OBJECTIVE,
    RESIDUAL,
    STRENGTH,
    Iterate,
    Solver,
    started,
)
from csrecon.reconstructors.solvers.tv import differences, total_variation
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from tests.conftest import scene

IMAGE = scene(40, 33)[..., 0].astype(np.float32) / 255
SETUP = execution.choose("cpu", "fp32")


@pytest.fixture(scope="module")
def m() -> Measurement:
    return csrecon.sample(IMAGE, 0.3, block=16)


@dataclass(frozen=True)
class Told(Solver):
    """Yields images of one value each, with the objectives and residuals that it was told."""

    values: tuple[float, ...]
    objectives: tuple[float | None, ...] = ()
    residuals: tuple[float, ...] = ()
    settled: bool = True
    tolerance: float = 0.0

    def most(self, m: Measurement) -> int:
        return len(self.values)

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        for index, value in enumerate(self.values):
            facts = {}
            if index < len(self.objectives):
                facts[OBJECTIVE] = self.objectives[index]
            if index < len(self.residuals):
                facts[RESIDUAL] = self.residuals[index]
            yield Iterate(torch.full((1, 1, 40, 33), value), facts, self.settled)


def values(steps):
    return [float(step.image.mean()) for step in steps]


# --- Stopping ---


def test_the_last_iterate_says_why(m):
    steps = list(Told((1.0, 2.0, 3.0)).steps(m))
    assert [(s.index, s.total, s.stopped) for s in steps] == [
        (1, 3, ""),
        (2, 3, ""),
        (3, 3, "iterations"),
    ]


def test_it_stops_where_the_relative_change_is_small(m):
    told = Told((1.0, 2.0, 2.001, 9.0), tolerance=1e-3)
    steps = list(told.steps(m))
    assert values(steps) == pytest.approx([1, 2, 2.001])
    assert steps[-1].stopped == "relative change below 0.001"
    assert steps[-1].total == 3
    assert len(list(replace(told, tolerance=1e-4).steps(m))) == 4
    assert len(list(replace(told, tolerance=0.0).steps(m))) == 4


def test_a_problem_that_still_changes_is_not_converged(m):
    steps = list(Told((2.0, 2.0, 2.0), settled=False, tolerance=0.1).steps(m))
    assert steps[-1].stopped == "iterations"
    assert len(steps) == 3


def test_every_plane_has_to_be_still():
    rgb = csrecon.sample(scene(16, 16), 0.5, block=16, color="rgb")

    @dataclass(frozen=True)
    class OneMoves(Told):
        def iterates(self, m, start):
            for value in self.values:
                image = torch.ones(3, 1, 16, 16)
                image[2] = value
                yield Iterate(image)

    assert len(list(OneMoves((1.0, 2.0, 3.0), tolerance=0.4).steps(rgb))) == 3
    assert len(list(OneMoves((1.0, 2.0, 3.0), tolerance=0.6).steps(rgb))) == 2


@pytest.mark.parametrize("name", ["tv", "fista", "ista", "tval3"])
def test_a_tolerance_ends_a_solver_near_its_limit(name, m):
    m = m.normalized()
    still = csrecon.load(f"{name}:weight=0.02,iterations=400,tolerance=5e-4")
    if hasattr(still, "spin"):
        still = replace(still, spin=False)
    steps = list(still.steps(m))
    assert steps[-1].stopped == "relative change below 0.0005"
    assert 200 < len(steps) < 400  # λ falls over the first half
    far = last(replace(still, tolerance=0.0).steps(m)).facts[OBJECTIVE]
    assert steps[-1].facts[OBJECTIVE] == pytest.approx(far, rel=0.01)


# --- Facts ---


@pytest.mark.parametrize("name", ["tv", "tval3"])
def test_facts_are_those_of_the_iterate(name, m):
    m = m.normalized()
    for step in csrecon.load(f"{name}:iterations=12").steps(m):
        misfit = float((m.operator(step.image) - m.y).double().norm())
        assert step.facts[RESIDUAL] == pytest.approx(misfit, rel=1e-3)
        lengths = differences(step.image).double().square().sum(dim=1).sqrt().sum()
        assert total_variation(step.image) == pytest.approx(float(lengths), rel=1e-6)
        cost = misfit**2 / 2 + step.facts[STRENGTH] * float(lengths)
        assert step.facts[OBJECTIVE] == pytest.approx(cost, rel=1e-3)


def test_strengths_fall_and_then_stay(m):
    def found(options, start=None):
        solver = csrecon.load(f"tv:iterations=6,{options}")
        return [step.facts[STRENGTH] for step in solver.steps(m, start)]

    assert found("weight=0.01,continuation=0") == [0.01] * 6
    fall = [0.1, 0.1**1.5, 0.01]
    assert found("weight=0.01,continuation=3") == pytest.approx([*fall, 0.01, 0.01, 0.01])
    assert found("weight=0.01,tolerance=1e-9") == pytest.approx([*fall, 0.01, 0.01, 0.01])
    assert found("first=0.1,last=0.1") == pytest.approx([0.1] * 6)
    assert found("weight=0.01,first=0.001") == pytest.approx([0.01] * 6)
    start = torch.zeros(1, 1, 40, 33)
    assert found("weight=0.01", start) == [0.01] * 6
    assert found("weight=0.01,continuation=3", start) == pytest.approx([*fall, 0.01, 0.01, 0.01])


# --- Divergence ---


GROWN = {
    "objective": Told((1.0, 2.0, 3.0), (5.0, 4.0, 41.0)),
    "residual": Told((1.0, 2.0, 3.0), (), (5.0, 4.0, 41.0)),
    "infinite": Told((1.0, 2.0, 3.0), (5.0, 4.0, math.inf)),
    "nan": Told((1.0, 2.0, 3.0), (5.0, 4.0, math.nan)),
}


@pytest.mark.parametrize("name", GROWN)
def test_divergence_is_an_error(name, m):
    with pytest.raises(CheckError, match=r"diverged in iteration 3: .*--keep-going") as found:
        list(GROWN[name].steps(m))
    assert found.value.exit_code == 7


@pytest.mark.parametrize("name", GROWN)
def test_keep_going_ends_with_the_best_iterate(name, m):
    steps = list(GROWN[name].steps(m, keep_going=True))
    assert values(steps) == [1.0, 2.0, 2.0]
    assert steps[-1].stopped.startswith("diverged in iteration 3: ")
    assert steps[-1].facts == steps[1].facts


def test_growth_up_to_ten_times_and_from_nothing_is_none(m):
    assert len(list(Told((1.0, 2.0), (4.0, 39.0)).steps(m))) == 2
    energy = float(m.y.square().sum()) / 2
    assert len(list(Told((1.0, 2.0), (0.0, 9e-6 * energy)).steps(m))) == 2


def test_nothing_to_keep_is_an_error_even_then(m):
    with pytest.raises(CheckError, match="iteration 1"):
        list(Told((1.0,), (math.nan,)).steps(m, keep_going=True))
    with pytest.raises(CheckError, match="the image is not finite"):
        list(Told((1.0, math.nan)).steps(m))


def test_a_true_solver_diverges_where_the_norm_is_too_large(m):
    m = m.normalized()
    louder = replace(m, operator=Louder(m.operator), y=3 * m.y)
    for name in ("ista", "fista", "tv"):
        with pytest.raises(CheckError, match="objective grew from"):
            list(csrecon.load(f"{name}:weight=0.01,continuation=0").steps(louder))


class Louder(torch.nn.Module):
    """Three times an operator: ‖A‖ = 3."""

    def __init__(self, operator):
        super().__init__()
        self.operator, self.domain = operator, operator.domain

    def forward(self, x):
        return 3 * self.operator(x)

    def adjoint(self, y):
        return 3 * self.operator.adjoint(y)


# --- Warm starts ---


@pytest.mark.parametrize("name", ["tv", "fista", "ista", "tval3", "lasso"])
def test_a_warm_start_saves_iterations(name, m):
    m = m.normalized()
    options = "weight=0.01,iterations=400" + (",spin=false" if name in ("fista", "ista") else "")
    solver = csrecon.load(f"{name}:{options}")
    limit = last(solver.steps(m))
    few = replace(solver, iterations=10, continuation=0)
    cold, warm = (last(few.steps(m, start)) for start in (None, limit.image))
    assert warm.facts[OBJECTIVE] < cold.facts[OBJECTIVE] * 0.999
    assert warm.facts[OBJECTIVE] == pytest.approx(limit.facts[OBJECTIVE], rel=0.1)


def test_starts_in_python(m):
    tv = "tv:iterations=3"
    cold = csrecon.reconstruct(m, tv, device="cpu")
    warm = csrecon.reconstruct(m, tv, device="cpu", init=IMAGE)
    assert np.abs(warm - IMAGE).mean() < 0.5 * np.abs(cold - IMAGE).mean()
    by_model = csrecon.reconstruct(m, tv, device="cpu", init="fista:iterations=60")
    fista = csrecon.reconstruct(m, "fista:iterations=60", device="cpu")
    direct = last(csrecon.load(tv).steps(m.normalized(), torch.from_numpy(fista)[None, None]))
    np.testing.assert_allclose(by_model, direct.image[0, 0].numpy(), atol=1e-6)
    loaded = csrecon.load("fista:iterations=60")
    np.testing.assert_array_equal(by_model, csrecon.reconstruct(m, tv, device="cpu", init=loaded))


def test_starts_are_arrays_with_values_that_a_result_can_have(m, tmp_path):
    odd = IMAGE * 1.5 - 0.2
    odd[0, 0] = np.nan
    np.save(tmp_path / "x.npy", odd)
    tv = "tv:iterations=2"
    found = csrecon.reconstruct(m, tv, device="cpu", init=tmp_path / "x.npy")
    usual = np.nan_to_num(odd).clip(0, 1)
    np.testing.assert_array_equal(found, csrecon.reconstruct(m, tv, device="cpu", init=usual))


def test_complex_starts():
    phased = (IMAGE * np.exp(1j * IMAGE)).astype(np.complex64)
    m = csrecon.sample(phased, 0.3, kind="fourier")
    tv = "tv:iterations=2"
    cold = csrecon.reconstruct(m, tv, device="cpu")
    warm = csrecon.reconstruct(m, tv, device="cpu", init=1.2 * phased)
    assert np.abs(warm - phased).mean() < np.abs(cold - phased).mean()
    with pytest.raises(UsageError, match="start of shape"):
        csrecon.reconstruct(m, tv, device="cpu", init=IMAGE)


@pytest.mark.parametrize(
    ("model", "start", "message"),
    [
        ("tv", np.zeros((5, 5), np.float32), "start of shape"),
        ("tv", "nosuch", "no model named"),
        ("rcoast", IMAGE, "classical solvers"),
        ("omp", IMAGE, "leave out the warm start"),
    ],
)
def test_starts_that_cannot_be(model, start, message, m):
    with pytest.raises(csrecon.errors.CsreconError, match=message):
        csrecon.reconstruct(m, model, device="cpu", init=start)


def test_a_start_that_is_not_finite(m):
    with pytest.raises(InputError, match="NaN"):
        list(csrecon.load("tv").steps(m, torch.full((1, 1, 40, 33), math.nan)))


def test_networks_are_refused_before_another_model_runs(m):
    class Never:
        def steps(self, m):
            raise AssertionError

    with pytest.raises(UsageError, match="classical solvers"):
        api.reconstruct_steps(m, "rcoast", setup=SETUP, init=Never())
    network = zoo.load("rcoast")
    assert started(network) is network
    with pytest.raises(UsageError, match="classical solvers"):
        started(network, keep_going=True)


def test_every_solver_is_identified():
    for name in SOLVERS:
        found = zoo.identity(csrecon.load(name))
        assert found["solver"] == name
        assert len(found) > 1 or name == "adjoint"  # its options
    assert GAP not in last(csrecon.load("tv:iterations=1").steps(csrecon.sample(IMAGE, 0.5))).facts
