"""Blueprints: version 1 is read as version 2, wrong parts are named, and cards are exact."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from csrecon.errors import ModelError
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.reconstructors.modulation import RFMU, NoModulation, RatioGain
from csrecon.reconstructors.options import build
from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.starts import AdjointStart, LinearStart, MarkovStart
from csrecon.zoo import cards

CARDS_OF_VERSION_1 = Path(__file__).with_name("legacy") / "models.yaml"


def version_1(architecture, arguments, schedule=(2, 3), **more):
    return {
        "architecture": architecture,
        "arguments": arguments,
        "schedule": list(schedule),
        "trained": {"ipl": 4, "ratios": [0.1, 0.5]},
        "allowed": {"ipl": 12},
        **more,
    }


def version_2(block, modulation, start=None, schedule=(2, 3), **recursion):
    return {
        "version": 2,
        "task": "compressive-sensing",
        "block": block,
        "modulation": modulation,
        "start": start or {"name": "adjoint"},
        "recursion": {
            "schedule": list(schedule),
            "relax_after": None,
            "average_after": None,
            "rotate": False,
            "projection": False,
            "order": "layers",
            "blockwise": False,
            **recursion,
        },
        "trained": {"ipl": 4, "max_ipl": 12, "ratios": [0.1, 0.5]},
    }


COAST, ISTA = {"name": "coast", "features": 8}, {"name": "ista-net-plus", "features": 8}
MATRIX = {"m": 3, "n": 9, "phi_sha256": "ab"}
UPGRADES = {
    "coast": (
        version_1("coast", {"features": 8, "modulation": "ratio", "projection": True}),
        version_2(COAST, {"name": "ratio"}, projection=True),
    ),
    "coast-by-default": (
        version_1("coast", {"features": 8}),
        version_2(COAST, {"name": "ratio"}),
    ),
    "plain": (
        version_1("coast", {"features": 8, "modulation": "none"}, order="stack"),
        version_2(COAST, {"name": "none"}, order="looped"),
    ),
    "rcoast": (
        version_1(
            "coast",
            {
                "features": 8,
                "modulation": "rfmu",
                "max_steps": 30,
                "noise_scale": 10,
                "halved_after": 3,
                "turning": True,
                "projection": True,
            },
        ),
        version_2(
            COAST,
            {"name": "rfmu", "max_steps": 30, "noise_scale": 10},
            relax_after=3,
            rotate=True,
            projection=True,
        ),
    ),
    "istanet-plus": (
        version_1("ista-net-plus", {"features": 8, "start": MATRIX}),
        version_2(ISTA, {"name": "none"}, {"name": "matrix", **MATRIX}, blockwise=True),
    ),
    "rista": (
        version_1(
            "ista-net-plus",
            {
                "features": 8,
                "modulation": "rfmu",
                "max_steps": 9,
                "start": "markov",
                "blockwise": False,
                "turning": True,
            },
        ),
        version_2(
            ISTA,
            {"name": "rfmu", "max_steps": 9, "level_scale": None},
            {"name": "markov"},
            rotate=True,
        ),
    ),
}


@pytest.mark.parametrize("name", UPGRADES)
def test_version_1_is_read_as_version_2(name):
    old, expected = UPGRADES[name]
    kept = json.dumps(old)
    upgraded = Blueprint.model_validate(old)
    assert upgraded.model_dump(mode="json") == expected
    assert json.dumps(old) == kept
    assert upgraded == Blueprint.model_validate(expected)
    assert upgraded == Blueprint.model_validate_json(json.dumps(old))
    assert Blueprint.model_validate_json(upgraded.model_dump_json()) == upgraded
    net = upgraded.build()
    assert json.loads(net.blueprint) == expected


def test_what_a_blueprint_builds():
    networks = {name: Blueprint.model_validate(new).build() for name, (_, new) in UPGRADES.items()}
    kinds = {
        name: (type(net.modulation), type(net.start), net.recursion.blockwise)
        for name, net in networks.items()
    }
    assert kinds == {
        "coast": (RatioGain, AdjointStart, False),
        "coast-by-default": (RatioGain, AdjointStart, False),
        "plain": (NoModulation, AdjointStart, False),
        "rcoast": (RFMU, AdjointStart, False),
        "istanet-plus": (NoModulation, LinearStart, True),
        "rista": (RFMU, MarkovStart, False),
    }
    assert (
        networks["rcoast"].modulation.level_scale,
        networks["rcoast"].modulation.noise_scale,
    ) == (
        2.0,
        10,
    )
    assert networks["rista"].modulation.level_scale is None
    assert len(networks["rista"].modulation.units) == 2
    assert networks["rista"].trained.max_ipl == 12
    unsaid = UPGRADES["rcoast"][1] | {"modulation": {"name": "rfmu"}}
    assert Blueprint.model_validate(unsaid).build().modulation.max_steps == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": {"name": "frcost"}}, "unknown architecture 'frcost': did you mean 'frcoast'"),
        ({"block": {"name": "coast", "feature": 3}}, "did you mean 'features'"),
        ({"modulation": {"name": "rmfu"}}, "unknown modulation 'rmfu': did you mean 'rfmu'"),
        ({"modulation": {"name": "rfmu", "maxsteps": 3}}, "did you mean 'max_steps'"),
        ({"modulation": {"name": "ratio", "max_steps": 3}}, "no option 'max_steps'"),
        ({"modulation": {"name": "rfmu", "max_steps": "x"}}, "max_steps='x'"),
        ({"start": {"name": "adjiont"}}, "unknown start 'adjiont': did you mean 'adjoint'"),
        ({"start": {"name": "adjoint", "m": 3}}, "no option 'm': it takes none"),
        (
            {"start": {"name": "matrix", **MATRIX, "phi": "ab"}},
            "no option 'phi': known: m, n, phi_sha256",
        ),
        ({"start": {"name": "matrix", **MATRIX, "m": 0}}, "m=0"),
    ],
)
def test_wrong_parts_are_answered_with_the_nearest(change, message):
    blueprint = Blueprint.model_validate(UPGRADES["coast"][1] | change)
    with pytest.raises(ModelError, match=message):
        blueprint.build()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"task": "art"},
        {"block": {}},
        {"block": "coast"},
        {"recursion": {"schedule": []}},
        {"recursion": {"schedule": [1001]}},
        {"recursion": {"schedule": [1], "relax_after": 0}},
        {"recursion": {"schedule": [13]}},
        {"trained": {"ipl": 0, "max_ipl": 12, "ratios": [0.1, 0.5]}},
        {"trained": {"ipl": 4, "max_ipl": 12, "ratios": [0.0, 0.5]}},
        {"trained": {"ipl": 4, "max_ipl": 12, "ratios": [0.1, 1.5]}},
        {"trained": {"ipl": 4, "max_ipl": 12, "ratios": [0.1, 0.5], "also": 1}},
    ],
)
def test_fields_that_cannot_be(change):
    Blueprint.model_validate(UPGRADES["coast"][1])
    with pytest.raises(ValidationError):
        Blueprint.model_validate(UPGRADES["coast"][1] | change)


def test_options_are_converted_to_their_types():
    def part(count: Count, scale: float | None = 2.0, name_: str = "a"):
        return count, scale, name_

    registry = {"part": part}
    assert build(registry, "part", "part", {"count": "3"}) == (3, 2.0, "a")
    assert build(registry, "part", "part", {"count": 3, "scale": "0.5"}) == (3, 0.5, "a")
    for options, message in (
        ({}, "count={}: field required"),
        ({"count": "x"}, "count='x'"),
        ({"count": 0}, "greater than or equal to 1"),
        ({"count": 3, "scal": 1}, "did you mean 'scale'"),
    ):
        with pytest.raises(ModelError, match=message):
            build(registry, "part", "part", options)


@pytest.mark.parametrize("name", cards.cards())
def test_every_card_builds_with_its_parameters(name):
    card = cards.card(name)
    net = card.build()
    assert sum(p.numel() for p in net.parameters()) == card.parameters
    assert net.recursion == card.recursion
    assert net.trained == card.trained


def test_a_network_built_from_a_card_carries_the_blueprint_alone():
    card = cards.card("rcoast")
    assert json.loads(card.build().blueprint) == card.blueprint().model_dump(mode="json")


BOUNDED = ("rista", "rista-3pct", "istanet-plus", "istanet-plus-3pct")


def test_cards_of_version_1_are_the_same():
    """tests/legacy/models.yaml is models.yaml of the last release that wrote version 1."""
    assert "version: 1" in CARDS_OF_VERSION_1.read_text(encoding="utf-8")
    old = cards.read_cards(CARDS_OF_VERSION_1)
    assert len(old) == 18
    for name, card in old.items():
        now = cards.card(name)
        assert card.parameters == now.parameters
        then, today = card.blueprint().model_dump(), now.blueprint().model_dump()
        if name in BOUNDED:  # trained anew with thresholds that cannot become negative
            assert today["block"].pop("nonnegative")
        else:
            assert card.weights == now.weights
        assert then == today
