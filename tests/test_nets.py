"""Networks: exact parameter counts, the shared contract, the authors' outputs, and locality."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import csrecon
from csrecon.errors import InputError, UsageError
from csrecon.reconstructors.base import State
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.reconstructors.modulation import NoModulation
from csrecon.reconstructors.nets.frcoast import FrcoastBlock
from csrecon.reconstructors.nets.ista_net_plus import IstaNetPlusBlock
from csrecon.reconstructors.unfolding import Recursion, Unfolding
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi
from csrecon.training.unroll import widen
from csrecon.zoo import cards, published
from tests.checks import check_reconstructor, check_tiled
from tests.conftest import scene, shared

COUNTS = {"istanet-plus": 336_978, "rista": 114_630, "coast": 1_122_024, "rcoast": 281_674}
AUTHORS = {"golden_rcoast": "rcoast-5x4-full", "golden_coast5x4": "coast-5x4-no-rfmu-full"}


def fresh(name, seed=0):
    torch.manual_seed(seed)
    return cards.card(name).build().eval()


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_of_the_paper(name):
    card = cards.card(name)
    count = sum(p.numel() for p in card.build().parameters())
    assert count == card.parameters == COUNTS[name]


@pytest.mark.parametrize("color", ["gray", "rgb"])
@pytest.mark.parametrize("name", COUNTS)
def test_networks_keep_the_contract(name, color):
    check_reconstructor(fresh(name), csrecon.sample(scene(), 0.2, color=color))


@pytest.mark.parametrize("name", ["coast", "istanet-plus"])
def test_prox_looks_reach_pixels_far_and_no_farther(name):
    block = fresh(name).blocks[0]
    gain = torch.ones(2, 32)
    side = 2 * block.reach + 9
    centre = side // 2
    r = torch.rand(1, 1, side, side, dtype=torch.float64)
    block = block.double()
    touched = r.clone()
    touched[0, 0, centre, centre] += 1

    def image(x, gradient):
        return block.prox(State(x), gradient, gain.double())[0].image

    with torch.no_grad():
        change = (image(touched, 0 * r) - image(r, 0 * r)).abs()[0, 0]
        by_gradient = image(r, touched) - image(r, r)  # ρ times as far, and no farther
        torch.testing.assert_close(by_gradient[0, 0] != 0, change > 0)
    rows, columns = torch.nonzero(change > 0, as_tuple=True)
    assert int((rows - centre).abs().max()) == block.reach
    assert int((columns - centre).abs().max()) == block.reach


def test_ista_net_plus_reconstructs_every_block_by_itself():
    blocks = [IstaNetPlusBlock(32) for _ in range(3)]
    net = Unfolding(blocks, Recursion((1,) * 3, blockwise=True), NoModulation(32, 2)).eval()
    image = scene(66, 66)[..., 0]
    other = image.copy()
    other[:33, :33] = 255 - other[:33, :33]
    with torch.inference_mode():
        a, b = (net(csrecon.sample(x, 0.1))[0, 0] for x in (image, other))
    assert not torch.equal(a[:33, :33], b[:33, :33])
    assert torch.equal(a[33:], b[33:])
    assert torch.equal(a[:, 33:], b[:, 33:])


def test_symmetry_penalty_is_the_formula_and_only_for_training():
    block = fresh("istanet-plus").blocks[0]
    r, gain = torch.rand(2, 1, 20, 20), torch.ones(2, 32)
    none = torch.zeros_like(r)
    state, penalty = block.prox(State(r), none, gain)
    assert penalty == 0
    block.train()
    trained, penalty = block.prox(State(r), none, gain)
    torch.testing.assert_close(trained.image, state.image)
    d = block.head(r)
    conv = [*block.analysis, *block.synthesis]
    undone = conv[3](torch.relu(conv[2](conv[1](torch.relu(conv[0](d))))))
    torch.testing.assert_close(penalty, (undone - d).square().mean())


@pytest.mark.parametrize("schedule", ["44444", "11111", "12342"])
@pytest.mark.parametrize("percent", [10, 30])
@pytest.mark.parametrize("golden", AUTHORS)
def test_the_authors_weights_give_the_authors_images(golden, percent, schedule):
    stored = np.load(shared("reference", f"{golden}.npz"))
    phi = np.load(shared("reference", "golden_rcoast.npz"))[f"phi_{percent}"]
    net, _ = published.convert(shared("weights", "authors", f"{AUTHORS[golden]}.pkl"), ipl=4)
    m = csrecon.sample(stored["image"], phi=phi)
    np.testing.assert_allclose(m.y[0], stored[f"y_{percent}"], atol=1e-5)
    with torch.inference_mode():
        image = net.at(tuple(map(int, schedule)))(m)[0, 0].numpy()
    np.testing.assert_allclose(image, stored[f"xhat_{percent}_{schedule}"], atol=1e-4)


@pytest.mark.parametrize("percent", [10, 25])
def test_ista_net_plus_with_its_own_phi_and_start(percent):
    from scipy.io import loadmat

    stored = np.load(shared("reference", "golden_istanet_plus.npz"))
    folder = shared("weights", "authors")
    phi = Phi.given(loadmat(folder / f"phi_0_{percent}_1089.mat")["phi"])
    q = loadmat(folder / f"Initialization_Matrix_{percent}.mat")["Qinit"]
    checkpoint = folder / f"istanet-plus-r{percent}.pkl"
    net, _ = published.convert(checkpoint, ipl=1, phi=phi, start=q)
    assert sum(p.numel() for p in net.parameters()) == COUNTS["istanet-plus"]
    with pytest.raises(UsageError, match="give both"):
        published.convert(checkpoint, ipl=1)
    with pytest.raises(InputError, match="expected"):
        published.convert(checkpoint, ipl=1, phi=phi, start=q.T)

    operator = BlockOperator(phi, stored["image"].shape)
    y = torch.from_numpy(stored[f"y_{percent}"])[None]
    with torch.inference_mode():
        image = net(Measurement.of(operator, y))[0, 0].numpy()
    np.testing.assert_allclose(image, stored[f"xhat_{percent}"], atol=1e-3)
    with pytest.raises(InputError, match="its own Φ"):
        net(csrecon.sample(stored["image"], m=len(phi.matrix)))


def frcoast(features, layers, ipl, context=0):
    """The blueprint of an FR-COAST whose layers are visited in turn."""
    return Blueprint.model_validate(
        {
            "block": {"name": "frcoast", "features": features, "context": context},
            "modulation": {"name": "rfmu", "max_steps": 20},
            "start": {"name": "markov"},
            "recursion": {
                "schedule": [ipl] * layers,
                "order": "looped",
                "rotate": True,
                "projection": True,
            },
            "trained": {"ipl": 20 // layers, "max_ipl": 24 // layers, "ratios": [0.1, 0.5]},
        }
    )


@pytest.mark.parametrize(
    ("features", "layers", "context", "count"),
    [(64, 1, 0, 237_381), (48, 2, 0, 264_970), (64, 1, 48, 292_789)],
    ids=["1x64", "2x48", "context"],
)
def test_frcoast_has_its_parameters(features, layers, context, count):
    net = frcoast(features, layers, 20 // layers, context).build()
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("size", [(50, 70), (33, 35), (1, 1), (2, 5)])
@pytest.mark.parametrize("color", ["gray", "rgb"])
@pytest.mark.parametrize("context", [0, 4])
def test_frcoast_keeps_the_contract(color, size, context):
    torch.manual_seed(0)
    net = frcoast(8, 2, 3, context).build().eval()
    check_reconstructor(net, csrecon.sample(scene(*size), 0.2, color=color))


def test_frcoast_is_the_formula():
    torch.manual_seed(0)
    block = FrcoastBlock(5).eval()
    x, gradient, features = torch.rand(2, 1, 6, 8), torch.rand(2, 1, 6, 8), torch.rand(2, 5, 3, 4)
    gain = torch.rand(2, 5)
    with torch.no_grad():
        state, penalty = block.prox(State(x, features), gradient, gain)
        r = x - block.rho * gradient
        inputs = torch.cat([r, 4 * gradient], dim=1)
        corners = [inputs[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        planes = torch.stack(corners, dim=2).flatten(1, 2)
        f = block.head(planes) + gain[1][:, None, None] * features
        for unit in block.residual:
            f = f + gain[0][:, None, None] * unit.conv2(torch.relu(unit.conv1(f)))
        tail = block.tail(f)
        image = r.clone()
        for k, (i, j) in enumerate((i, j) for i in (0, 1) for j in (0, 1)):
            image[:, 0, i::2, j::2] += tail[:, k]
    torch.testing.assert_close(state.features, f)
    torch.testing.assert_close(state.image, image)
    assert penalty == 0
    begun = block.begin(x)
    assert torch.equal(begun.image, x)
    assert begun.features.shape == (2, 5, 3, 4)
    assert not begun.features.any()


def test_frcoast_carries_its_features():
    torch.manual_seed(0)
    net = frcoast(8, 1, 3).build().eval()
    m = csrecon.sample(scene(50, 70)[..., 0], 0.2)

    def forgetful(block, state, gradient, gain):
        assert state.features.shape[-2:] == tuple(side // 2 for side in state.image.shape[-2:])
        return block(State(state.image, torch.zeros_like(state.features)), gradient, gain)

    with torch.inference_mode():
        whole = [step.image for step in net.steps(m)]
        without = [step.image for step in net.applied(forgetful).steps(m)]
    assert torch.equal(whole[0], without[0])
    assert (whole[1] - without[1]).abs().max() > 1e-4


def test_without_the_total_fewer_iterations_are_the_first_of_more():
    torch.manual_seed(0)
    blueprint = frcoast(8, 2, 5).model_dump()
    m = csrecon.sample(scene(50, 70)[..., 0], 0.2)
    for total in (False, True):
        blueprint["modulation"]["total"] = total
        net = Blueprint.model_validate(blueprint).build().eval()
        net.recursion = replace(net.recursion, projection=False)
        with torch.inference_mode():
            few = [step.image for step in net.at(3).steps(m)]
            more = [step.image for step in net.at(5).steps(m)][: len(few)]
        equal = [torch.equal(a, b) for a, b in zip(few, more, strict=True)]
        assert any(equal) is all(equal) is not total


def pilot(name, features, layers):
    """The weights of a pilot training, whose keys had other names."""
    net = frcoast(features, layers, 20 // layers).build()
    ours = {}
    for key, value in load_file(shared("weights", name)).items():
        unit = re.fullmatch(r"blocks\.(\d+)\.c([12])\.(\d)\.(.*)", key)
        if unit:
            key = f"blocks.{unit[1]}.residual.{unit[3]}.conv{unit[2]}.{unit[4]}"  # noqa: PLW2901
        ours[key.replace("rfmu.", "modulation.")] = (
            value.reshape(()) if key.endswith("rho") else value
        )
    net.load_state_dict(ours)
    return net.eval()


def test_frcoast_in_tiles_is_exact_at_odd_sizes_and_in_every_orientation():
    net = pilot("frcoast-pilot-1x64.safetensors", 64, 1).at(8)
    m = csrecon.sample(scene(131, 97)[..., 0], 0.2)
    assert check_tiled(net, m) == 8


def test_a_unit_with_context_adds_nothing_at_first_and_is_exact_in_tiles():
    torch.manual_seed(0)
    m = csrecon.sample(scene(131, 97)[..., 0], 0.2)
    small = frcoast(8, 1, 8).build().eval()
    net = frcoast(8, 1, 8, context=4).build().eval()
    widen(small, net)
    padded = csrecon.sample(scene(132, 100)[..., 0], 0.2)  # 131x97 gets another padding
    with torch.inference_mode():
        assert torch.equal(small(padded), net(padded))
        before = net(m)
        for parameter in net.blocks[0].context.conv2.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
        assert (net(m) - before).abs().max() > 1e-3
    assert check_tiled(net, m) == 8


@pytest.mark.parametrize("context", [0, 4])
def test_frcoast_looks_reach_pixels_far_at_most(context):
    torch.manual_seed(0)
    block = FrcoastBlock(8, context=context).double()
    if context:
        torch.nn.init.normal_(block.context.conv2.weight)
    gain = torch.ones(2, 8, dtype=torch.float64)
    side = 4 * (block.reach // 2 + 3)
    found = []
    for centre in range(side // 2, side // 2 + 4):
        r = torch.rand(1, 1, side, side, dtype=torch.float64)
        touched = r.clone()
        touched[0, 0, centre, centre] += 1
        images = [block.prox(block.begin(x), 0 * x, gain)[0].image for x in (r, touched)]
        rows, _ = torch.nonzero((images[1] - images[0])[0, 0], as_tuple=True)
        found.append(int((rows - centre).abs().max()))
    # A pixel changes those of its 2x2 cell, so the radius is up to one more than the layers' own.
    assert max(found) in (block.reach, block.reach + 1)


@pytest.mark.parametrize(
    ("name", "features", "layers", "least"),
    [
        ("frcoast-pilot-1x64.safetensors", 64, 1, 28.5),
        ("frcoast-pilot-2x48.safetensors", 48, 2, 28.5),
    ],
)
def test_the_pilots_reconstruct_as_they_did(name, features, layers, least):
    with Image.open(shared("data", "set11", "Monarch.tif")) as opened:
        image = np.asarray(opened.convert("L"))
    assert image.shape == (256, 256)
    m = csrecon.sample(image, 0.1, seed=77)
    net = pilot(name, features, layers)
    x = csrecon.reconstruct(m, net, 20 // layers, "cpu", precision="fp32")
    psnr = -10 * np.log10(np.mean((np.clip(x, 0, 1) - image / 255) ** 2))
    assert psnr >= least
