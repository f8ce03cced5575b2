"""Networks: exact parameter counts, the shared contract, the authors' outputs, and locality."""

import numpy as np
import pytest
import torch

import csrecon
from csrecon import cards, published
from csrecon.errors import InputError, UsageError
from csrecon.measurement import Measurement
from csrecon.nets.ista_net_plus import ista_net_plus
from csrecon.operators import BlockOperator, Phi
from csrecon.recursion import Schedule
from csrecon.solvers import SOLVERS
from tests.checks import check_reconstructor
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


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_keep_the_contract(name):
    check_reconstructor(SOLVERS[name](), csrecon.sample(scene(), 0.2))


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_beat_the_back_projection_and_agree_with_the_data(name):
    image = scene(64, 64)[..., 1] / 255
    m = csrecon.sample(image, 0.3, block=16)
    x = csrecon.reconstruct(m, name)
    start = m.operator.adjoint(m.y)[0, 0].numpy()
    assert np.abs(x - image).mean() < 0.2 * np.abs(start - image).mean()
    again = csrecon.sample(np.clip(x, 0, 1), 0.3, block=16)
    assert (again.y - m.y).abs().mean() < 0.01 * m.y.abs().mean()


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
    with torch.no_grad():
        change = (block.prox(touched, gain.double())[0] - block.prox(r, gain.double())[0]).abs()[
            0, 0
        ]
    rows, columns = torch.nonzero(change > 0, as_tuple=True)
    assert int((rows - centre).abs().max()) == block.reach
    assert int((columns - centre).abs().max()) == block.reach


def test_ista_net_plus_reconstructs_every_block_by_itself():
    net = ista_net_plus(Schedule((1,) * 3)).eval()
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
    assert block.prox(r, gain)[1] == 0
    image = block.prox(r, gain)[0]
    block.train()
    trained_image, penalty = block.prox(r, gain)
    torch.testing.assert_close(trained_image, image)
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
        image = net(m, Schedule(tuple(map(int, schedule))))[0, 0].numpy()
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
