"""README's commands run as written, in a folder with an image and some photos."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from csrecon.cli.app import app
from csrecon.evaluation import presets
from csrecon.sensing.operators import BlockOperator, Phi, make
from csrecon.zoo.datasets import DATASETS
from tests.conftest import ROOT, SHARED, scene

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["csrecon"]:
                yield words[1:]


def test_every_shell_command(monkeypatch):
    Image.fromarray(scene(70, 90)).save("img.png")
    Path("photos").mkdir()
    for index in range(2):
        Image.fromarray(scene(60, 70 + index)).save(f"photos/{index}.png")
    phi = make("gaussian", 40, (32, 32), 0).rows()
    camera = BlockOperator(Phi(phi.matrix().numpy()), (480, 288))
    y = camera(torch.from_numpy(scene(480, 288)[..., 0] / 255)[None, None].float())
    savemat("lab.mat", {"y": y.reshape(-1, 40).T.numpy(), "Phi": phi.matrix().numpy()})
    monkeypatch.setenv("CSRECON_DATA", str(SHARED / "data"))
    ran = []
    for words in commands():
        command = list(words)
        if command[0] == "bench":
            command += ["--limit", "1"]  # one image instead of all
            command = ["1..2" if word == "1..12" else word for word in command]
            at_hand = [name for name in DATASETS if (SHARED / "data" / name).is_dir()]
            if "--preset" in command:
                name = presets.preset(command[command.index("--preset") + 1]).dataset
                if name not in at_hand:
                    continue
            else:
                where = command.index("--dataset") + 1
                if command[where] in DATASETS and command[where] not in at_hand:
                    command[where] = "photos"
        if "download" in command:
            continue  # needs the network; tests/test_depot.py and test_fetch.py have a server
        if command[0] == "train":
            command += ["--max-time", "1s", "--set", "patch=48", "--set", "batch=1"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, f"csrecon {shlex.join(command)}\n{result.output}"
        ran.append(command[0])
    assert {"sample", "reconstruct", "bench"} <= set(ran)
    made = {path.name for path in Path().iterdir()}
    assert {"y.npy", "y.json", "y.png", "colour.png", "colour.tif", "lab.png", "lab.npz"} <= made
    assert len(list(Path("images").iterdir())) == 2
    assert {path.name for path in Path("report").iterdir()} == {
        "bench.csv",
        "bench.json",
        "bench.md",
        "bench.tex",
    }


def test_python_examples():
    import csrecon
    from csrecon.reconstructors.nets.coast import CoastBlock

    image = scene(60, 70)[..., 0]
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    examples = [text for text in examples if "deepinverse" not in text]  # test_deepinverse.py
    assert len(examples) == 2
    y = csrecon.sample(image, ratio=0.1).y.numpy()
    names = {"image": image, "y": y, "phi": Phi.make(109, 1089, 0).matrix}
    exec(examples[0].replace("(480, 288)", "image.shape"), names)
    assert names["x"].shape == image.shape
    names["MyBlock"] = lambda: CoastBlock(32)
    exec(examples[1].replace("class MyBlock(ProxBlock): ...", ""), names)
    assert len(names["net"].blocks) == 5


@pytest.mark.parametrize("name", ["use", "test"])
def test_set_up_commands_stand_where_ci_looks_for_them(name):
    assert re.search(rf"<!-- setup: {name} -->\n```sh\npython3 -m venv .*\n```", README)


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]), ids=lambda p: p.name
)
def test_links_lead_to_files(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (path.parent / target).exists(), target
