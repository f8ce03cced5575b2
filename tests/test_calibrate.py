"""Fitting Φ near its nominal one: what known images determine is found, the rest is kept."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csrecon import metrics
from csrecon.errors import InputError
from csrecon.io import images
from csrecon.sensing import lab
from csrecon.sensing.fitting import FitOptions, fit
from csrecon.sensing.known import Known
from csrecon.sensing.operators import BlockOperator, Phi
from tests.test_cli import names, run

SIDE, M = 8, 24
N = SIDE**2


def nominal(seed=0):
    return Phi.make(M, N, seed).matrix.astype(np.float64)


def errors(size, shape, seed=1):
    return size * np.random.default_rng(seed).normal(size=shape)


def known(phi, count, noise=0.0, offset=0.0, many=8, seed=2):
    """Blocks of different brightness and texture, and what a camera with this Φ gives."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(count, 1)) + 0.3 * rng.normal(size=(count, N))
    y = x @ np.transpose(phi) + offset + noise * rng.normal(size=(count, M))
    return Known(x, y, np.arange(count) % many)


def residuals(found):
    return {str(held.model): held.residual for held in found.held}


# --- The fit ---


@pytest.mark.parametrize("scale", [1.0, 850.0])
def test_gains_of_rows_are_found(scale):
    gains = scale * (1 + errors(0.1, M))
    found = fit(known(gains[:, None] * nominal(), 100), nominal())
    assert found.better
    assert str(found.model) == "rows"
    np.testing.assert_allclose(found.gains, gains, rtol=1e-6)
    np.testing.assert_allclose(found.phi, gains[:, None] * nominal(), atol=1e-6 * scale)
    assert not found.offset.any()


def test_gains_are_found_in_noise_and_drawn_together():
    """All gains are alike, so the mean of them is surer than each."""
    found = fit(known(1.2 * nominal(), 60, noise=0.05), nominal())
    assert str(found.model) == "rows"
    assert np.abs(found.gains - 1.2).max() < 0.01
    spread = known(1.2 * nominal(), 60, noise=0.05)
    z = spread.pixels @ nominal().T
    alone = (z * spread.values).sum(0) / (z * z).sum(0)
    assert np.abs(found.gains - 1.2).max() < 0.5 * np.abs(alone - 1.2).max()


@pytest.mark.parametrize("many", [1, 8])
def test_entries_are_found_from_more_blocks_than_pixels(many):
    true = nominal() + errors(0.02, (M, N)) / np.sqrt(N)
    found = fit(known(true, 4 * N, noise=1e-4, many=many), nominal())
    assert str(found.model) == "entries"
    assert found.groups == ("images" if many >= 3 else "blocks")
    held = residuals(found)
    assert held["entries"] < held["nominal"] / 3
    assert held["entries"] < held["rows"] / 3
    before, after = (np.linalg.norm(phi - true) for phi in (nominal(), found.phi))
    assert after < before / 3
    assert found.rank == N
    assert found.determined > 0.8 * N


def test_entries_are_not_fitted_to_noise():
    """Fewer blocks than pixels, gains, and noise: the entries stay."""
    true = (1 + errors(0.1, M))[:, None] * nominal()
    found = fit(known(true, N // 2, noise=0.02), nominal())
    assert str(found.model) == "rows"
    assert found.rank == N // 2
    assert found.determined < N // 4


def test_fewer_blocks_than_pixels_determine_a_part():
    """What the blocks do not see keeps its nominal value."""
    true = nominal() + errors(0.05, (M, N)) / np.sqrt(N)
    blocks = known(true, N // 2)
    found = fit(blocks, nominal(), FitOptions(offset=False))
    assert str(found.model) == "entries"
    unseen = np.linalg.svd(blocks.pixels)[2][N // 2 :]
    kept = found.gains[:, None] * nominal()
    np.testing.assert_allclose(found.phi @ unseen.T, kept @ unseen.T, atol=1e-9)
    assert np.linalg.norm(found.phi - true) < np.linalg.norm(nominal() - true)


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_keeps_the_nominal_phi(seed):
    for many in (1, 3, 8):
        found = fit(known(nominal(), 100, noise=0.02, many=many, seed=seed), nominal())
        assert not found.better
    assert not fit(known(nominal(), 100, seed=seed), nominal()).better


@pytest.mark.parametrize("size", [0.0, 0.03])
def test_offsets_of_rows_are_found(size):
    true, offset = nominal() + errors(size, (M, N)) / np.sqrt(N), errors(0.3, M, 4)
    found = fit(known(true, 4 * N, noise=1e-3, offset=offset), nominal())
    assert str(found.model) == ("entries + offset" if size else "rows + offset")
    np.testing.assert_allclose(found.offset, offset, atol=2e-3)
    without = fit(known(true, 4 * N, noise=1e-3, offset=offset), nominal(), FitOptions(False))
    assert not without.offset.any()


def test_the_order_of_blocks_changes_nothing_but_rounding():
    blocks = known(nominal() + errors(0.02, (M, N)) / np.sqrt(N), 100, many=5)
    order = np.random.default_rng(0).permutation(100)
    mixed = Known(blocks.pixels[order], blocks.values[order], blocks.image[order])
    np.testing.assert_allclose(fit(mixed, nominal()).phi, fit(blocks, nominal()).phi, atol=1e-8)


def test_what_cannot_be_fitted_is_refused():
    blocks = known(nominal(), 20)
    with pytest.raises(InputError, match=r"expected a Φ of shape \(24, 64\)"):
        fit(blocks, nominal()[:-1])
    with pytest.raises(InputError, match="Is it the Φ of this camera"):
        fit(blocks, 0 * nominal())
    with pytest.raises(InputError, match="all values are 0"):
        fit(Known(blocks.pixels, 0 * blocks.values, blocks.image), nominal())
    with pytest.raises(InputError, match=r"constant.*the sum of each row"):
        Known(np.ones((20, N)) * np.arange(20)[:, None], blocks.values, blocks.image)
    with pytest.raises(InputError, match="3 known blocks: expected at least 4"):
        Known(blocks.pixels[:3], blocks.values[:3], blocks.image[:3])
    with pytest.raises(InputError, match="NaN"):
        Known(blocks.pixels * np.nan, blocks.values, blocks.image)
    with pytest.raises(InputError, match="as many of each"):
        Known(blocks.pixels, blocks.values[1:], blocks.image)


# --- The command ---


def scene(seed, height=64, width=60):
    """A gray image with edges and texture, uint8."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:height, :width]
    a, b, c = rng.uniform(0.1, 1.2, 3)
    waves = (
        110 + 60 * np.sin(a * row + b * column) + 40 * (np.sin(c * row) * np.cos(a * column) > 0)
    )
    return np.clip(waves + 12 * rng.normal(size=waves.shape), 0, 255).astype(np.uint8)


def measured(phi, image):
    """Bare values of csrecon's order, (blocks, m)."""
    operator = BlockOperator(Phi.given(phi), image.shape)
    planes = torch.from_numpy(image.astype(np.float32) / 255)[None, None]
    return operator(planes).reshape(-1, len(phi)).numpy()


@pytest.fixture
def camera():
    """nominal.npy, and pairs/ of five images with bare values of the true Φ, which is returned."""
    true = (1 + errors(0.2, M))[:, None] * nominal()
    np.save("nominal.npy", nominal().astype(np.float32))
    Path("pairs").mkdir()
    for index in range(5):
        image = scene(index)
        Image.fromarray(image).save(f"pairs/{index}.png")
        np.save(f"pairs/{index}.npy", measured(true, image))
    return true


def calibrate(*options, code=0, phi="nominal.npy"):
    given = ("--phi", phi) if phi else ()
    return run("calibrate", "pairs", *given, *options, code=code)


def facts(*options, **more):
    return json.loads(calibrate("--json", *options, **more).stdout)


def test_bare_values(camera):
    result = calibrate("-o", "fitted.npy")
    assert "-> fitted.npy" in result.stdout
    assert "next: csrecon reconstruct y.npy --phi fitted.npy --shape 64x60\n" in result.stdout
    made = np.load("fitted.npy")
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, camera, atol=1e-5)
    assert names(".") == {"nominal.npy", "pairs", "fitted.npy"}


def score(path, image):
    found = images.read(Path(path)).planes
    return metrics.score(found, torch.from_numpy(image / np.float32(255))[None, None]).psnr


def test_from_samples_to_a_better_image(camera):
    """The recorded Φ of a sample need not be the nominal one, which is the point."""
    np.save("true.npy", camera.astype(np.float32))
    for index in range(5):
        Path(f"pairs/{index}.npy").unlink()
        run("sample", f"pairs/{index}.png", "--phi", "true.npy", "-o", f"pairs/{index}.npy")
    found = facts("-o", "phi.npy")
    assert found["model"] == "rows"
    assert found["outputs"] == ["phi.npy"]
    assert found["blocks"] == 5 * 64
    row, column = np.mgrid[:64, :60]
    image = (120 + 60 * np.sin(row / 9) * np.cos(column / 7) + 50 * (row > 30)).astype(np.uint8)
    Image.fromarray(image).save("scene.png")
    run("sample", "scene.png", "--phi", "true.npy", "-o", "y.npy")
    assert "--phi phi.npy --replace-phi" in found["next"]
    assert "--replace-phi too" in run("reconstruct", "y.npy", "--phi", "nominal.npy", code=3).stderr
    assert "give it too" in run("reconstruct", "y.npy", "--replace-phi", code=2).stderr
    scores = {}
    for phi in ("nominal", "phi"):
        words = shlex.split(found["next"].replace("phi.npy", f"{phi}.npy"))[1:]
        run(*words, "--model", "tv:iterations=50", "-o", f"{phi}.png")
        scores[phi] = score(f"{phi}.png", image)
    assert scores["phi"] > scores["nominal"] + 2


def test_samples_of_a_seed_have_their_own_nominal_phi(camera):
    """Without --phi the recorded Φ is the nominal one: here it is also the true one."""
    for index in range(5):
        Path(f"pairs/{index}.npy").unlink()
        image = f"pairs/{index}.png"
        run(
            "sample", image, "--m", M, "--block", SIDE, "--color", "rgb", "-o", f"pairs/{index}.npy"
        )
    assert "no fit is better" in calibrate(phi=None, code=7).stderr
    run("sample", image, "--m", M, "--block", SIDE, "--seed", 1, "-o", image[:-3] + "npy",
        "--overwrite")  # fmt: skip
    assert "another Φ than the first" in calibrate(phi=None, code=3).stderr
    run("sample", image, "--m", 5, "--block", SIDE, "-o", image[:-3] + "npy", "--overwrite")
    assert "5 values per block" in calibrate(phi=None, code=3).stderr
    assert not calibrate(code=3).stdout  # nor with --phi, whose shape is another


def test_an_offset_gives_a_white_and_a_black_scene(camera):
    offset = 100 + 30 * np.random.default_rng(0).uniform(size=M)
    values = {}
    for path in sorted(Path("pairs").glob("*.npy")):
        values[path] = 850 * np.load(path) + offset
        np.save(path, values[path])
    found = facts("--gain", 850, "--offset", 100)
    assert found["outputs"] == ["phi.npy", "phi-white.npy", "phi-black.npy"]
    assert "--calibrate phi-white.npy phi-black.npy" in found["next"]
    assert "--gain" not in found["next"]
    np.testing.assert_allclose(np.load("phi-black.npy"), offset, rtol=1e-4)
    np.testing.assert_allclose(np.load("phi.npy"), camera, atol=1e-4)
    image = scene(9)
    np.save("y.npy", 850 * measured(camera, image) + offset)
    run(*shlex.split(found["next"])[1:], "--model", "tv:iterations=50", "-o", "y.png")
    np.save("exact.npy", measured(camera, image))
    np.save("true.npy", camera)
    run("reconstruct", "exact.npy", "--phi", "true.npy", "--shape", "64x60",
        "--model", "tv:iterations=50")  # fmt: skip
    assert abs(score("y.png", image) - score("exact.png", image)) < 0.05
    assert "exists already" in calibrate(code=2).stderr
    Path("phi.npy").unlink()
    assert "phi-white.npy: exists already" in calibrate(code=2).stderr
    calibrate("--overwrite")


def test_rows_that_sum_to_0_have_no_white_scene(camera):
    balanced = nominal() - nominal().mean(axis=1, keepdims=True)
    np.save("nominal.npy", balanced)
    for index in range(5):
        np.save(f"pairs/{index}.npy", measured(balanced, scene(index)) + errors(0.3, M))
    result = calibrate()
    assert "subtract the offsets in phi-black.npy" in result.stderr.replace("\n", " ")
    assert "--calibrate" not in result.stdout.partition("next: ")[2]


def test_orders_come_back_as_they_were_given(camera):
    """MATLAB's orders: pixels by columns, blocks by columns, measurements first."""
    swapped = Phi(camera.astype(np.float32)), Phi(nominal().astype(np.float32))
    true, start = (lab.by_rows(phi, (SIDE, SIDE)).matrix for phi in swapped)
    np.savez("lab.npz", Phi=start, other=np.ones((3, 3)))
    for index in range(5):
        values = np.load(f"pairs/{index}.npy")
        Path(f"pairs/{index}.npy").unlink()
        columns = values.reshape(8, 8, M).swapaxes(0, 1).reshape(64, M)
        np.savez(f"pairs/{index}.npz", y=columns.T, t=np.arange(9))
    orders = ("--pixel-order", "F", "--block-order", "F", "--var", "y")
    orders += ("--layout", "measurements-first")
    found = facts(*orders, phi="lab.npz:Phi")
    np.testing.assert_allclose(np.load("phi.npy"), true, atol=1e-5)
    said = shlex.split(found["next"])
    assert all(word in said for word in orders)
    wrong = calibrate("-o", "wrong.npy", *orders[2:], phi="lab.npz:Phi")
    assert "in this order (--pixel-order" in " ".join(wrong.stderr.split())


def test_complementary_patterns(camera):
    for index in range(5):
        y = np.load(f"pairs/{index}.npy")
        pair = np.stack([3 + y / 2, 3 - y / 2], axis=2).reshape(len(y), 2 * M)
        np.save(f"pairs/{index}.npy", pair)
    found = facts("--differential")
    assert {one["model"] for one in found["models"]} == {"nominal", "rows", "entries"}
    assert found["next"].endswith("--differential")
    np.testing.assert_allclose(np.load("phi.npy"), camera, atol=1e-4)


def test_missing_blocks(camera):
    places = [(row, column) for row in range(8) for column in range(8) if row != column]
    np.savetxt("positions.csv", places, fmt="%d", delimiter=",")
    for index in range(5):
        kept = np.load(f"pairs/{index}.npy").reshape(8, 8, M)[tuple(np.transpose(places))]
        np.save(f"pairs/{index}.npy", kept)
    assert facts("--positions", "positions.csv")["blocks"] == 5 * 56
    np.testing.assert_allclose(np.load("phi.npy"), camera, atol=1e-5)


def test_images_in_a_folder_of_their_own(camera):
    Path("scenes").mkdir()
    for path in Path("pairs").glob("*.png"):
        np.save(f"scenes/{path.stem}.npy", images.read(path).planes[0, 0].numpy())
        path.unlink()
    assert "no pair" in calibrate(code=3).stderr
    calibrate("--images", "scenes")
    np.testing.assert_allclose(np.load("phi.npy"), camera, atol=1e-5)


def test_nothing_is_written_where_nothing_is_better(camera):
    rng = np.random.default_rng(0)
    for index in range(5):
        values = measured(nominal(), scene(index))
        np.save(f"pairs/{index}.npy", values + 0.05 * rng.normal(size=values.shape))
    before = names(".")
    result = calibrate(code=7)
    assert "Nothing is written" in result.stderr
    assert "nominal" in result.stdout
    assert names(".") == before
    assert not facts(code=7)["outputs"]
    assert "because of --force" in calibrate("--force", code=7).stderr
    np.testing.assert_allclose(np.load("phi.npy"), nominal(), atol=0.05)


def test_bad_pairs_are_refused(camera):
    def refused(said, *options, code=3, **more):
        result = calibrate(*options, code=code, **more)
        assert said in " ".join(result.stderr.split())
        assert names(".") == {"nominal.npy", "pairs"}

    refused("0.npy: holds bare values", phi=None, code=2)
    refused("Leave it out", "--noise", 1, code=2)
    refused("--gain auto: the gains are fitted", "--gain", "auto", code=2)
    refused("expected a name that ends in .npy", "-o", "phi.mat", code=2)
    refused("is an input", "-o", "nominal.npy", "--overwrite", code=2)
    refused("is an input", "-o", "pairs/0.npy", "--overwrite", code=2)
    refused("64 blocks × 24", "--shape", "64x64", "--layout", "measurements-first")
    refused("the image has 1 of (64, 60)", "--shape", "64x61")
    good = np.load("pairs/0.npy")
    for values, said in (
        (good * np.nan, "NaN"),
        (good[:-1], "63 blocks"),
        (good[:, :-1], "23 measurements per block"),
    ):
        np.save("pairs/0.npy", values)
        refused(said)
    Path("pairs/0.npy").unlink()
    refused("0.png: no measurement of it")
    np.savez("pairs/0.npz", y=good)
    np.savetxt("pairs/0.csv", good, delimiter=",")
    refused("expected one file of this stem")
    Path("pairs/0.csv").unlink()
    for index in range(5):
        Image.fromarray(np.full((64, 64), 40 * index + 20, np.uint8)).save(f"pairs/{index}.png")
    refused("all known blocks are constant")
    for path in Path("pairs").glob("*.png"):
        path.unlink()
    refused("no pair of an image and its measurement")
