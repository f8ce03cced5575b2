"""LPIPS: the package's distance, with AlexNet from a pinned download."""

import io
import json
import sys
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from csrecon.cli.app import app
from csrecon.errors import ModelError, UsageError
from csrecon.evaluation import perceptual
from tests.conftest import make_torchvision_importable, scene

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forgotten():
    perceptual.network.cache_clear()


@pytest.fixture
def reference(server, monkeypatch):
    """The package's metric with random features, which the server has as AlexNet."""
    make_torchvision_importable()
    package = pytest.importorskip("lpips")
    torch.manual_seed(0)
    metric = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    weights = {
        f"features.{name.partition('.')[2]}": value
        for name, value in metric.net.state_dict().items()
    }
    stream = io.BytesIO()
    torch.save(weights | {"classifier.1.bias": torch.zeros(9)}, stream)
    body = stream.getvalue()
    digest = f"sha256:{sha256(body).hexdigest()}"
    remote = perceptual.ALEXNET.model_copy(update={"digest": digest, "bytes": len(body)})
    monkeypatch.setattr(perceptual, "ALEXNET", remote)
    server.answers["/download.pytorch.org/models/alexnet-owt-7be5be79.pth"] = body
    return metric


def images(count=2, side=64):
    draw = torch.Generator().manual_seed(0)
    x = torch.from_numpy(scene(side, side)[..., 0] / 255).float().expand(count, 1, -1, -1)
    return x, (x + 0.1 * torch.randn(x.shape, generator=draw)).clamp(0, 1)


def test_it_is_the_package_s_distance(reference):
    x, noisy = images()
    ours = perceptual.lpips(noisy, x)
    theirs = reference(2 * noisy.expand(-1, 3, -1, -1) - 1, 2 * x.expand(-1, 3, -1, -1) - 1)
    torch.testing.assert_close(ours, theirs.flatten().detach())
    assert (ours > 0).all()
    torch.testing.assert_close(perceptual.lpips(x, x), torch.zeros(2))
    assert torch.isnan(perceptual.lpips(*images(3, 31))).all()
    assert torch.isfinite(perceptual.lpips(*images(1, perceptual.SMALLEST))).all()


def test_bench_shows_it(reference, tmp_path):
    (tmp_path / "few").mkdir()
    for index in range(2):
        Image.fromarray(scene(40 + index, 50)).save(tmp_path / "few" / f"{index}.png")
    asked = ["bench", "--dataset", "few", "--model", "tv", "--ratio", "0.1,0.5", "--resume"]
    result = CliRunner().invoke(app, [*asked, "--json"])
    assert "lpips" not in json.loads(result.stdout)["cells"][0]
    result = CliRunner().invoke(app, [*asked, "--metrics", "psnr,ssim,lpips", "-o", "report"])
    assert result.exit_code == 0, result.output
    assert "PSNR / SSIM / LPIPS" in result.stdout
    report = json.loads((tmp_path / "report" / "bench.json").read_text(encoding="utf-8"))
    rows, cells = report["rows"], report["cells"]
    assert [cell["lpips"] for cell in cells] == pytest.approx(
        [np.mean([r["lpips"] for r in rows if r["ratio"] == ratio]) for ratio in (0.1, 0.5)]
    )
    assert cells[0]["lpips"] > cells[1]["lpips"] > 0
    assert "paper_lpips" not in cells[0]
    assert "LPIPS 0.1" in (tmp_path / "report" / "bench.md").read_text(encoding="utf-8")
    result = CliRunner().invoke(app, [*asked, "--metrics", "vmaf"])
    assert result.exit_code == 2
    assert "psnr,ssim,lpips" in result.stderr


def test_what_is_missing_is_said(monkeypatch):
    make_torchvision_importable()
    pytest.importorskip("lpips")
    with pytest.raises(ModelError, match="network is switched off"):
        perceptual.network(CPU)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UsageError, match=r"csrecon\[lpips\]"):
        perceptual.network(CPU)
