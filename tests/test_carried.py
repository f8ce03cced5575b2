"""The C++ program of docs/export.md runs an exported network without Python."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import csrecon
from csrecon.sensing import native
from csrecon.sensing.operators import Phi
from tests.conftest import ROOT, scene
from tests.test_cli import run


def openvino():
    """The folder of OpenVINO's headers and libraries; skips the test where something is missing."""
    compiler, found = shutil.which("g++"), importlib.util.find_spec("openvino")
    if compiler is None:
        pytest.skip("needs the compiler g++")
    if found is None or found.origin is None:
        pytest.skip("needs OpenVINO: pip install openvino")
    folder = Path(found.origin).parent
    libraries = list((folder / "libs").glob("libopenvino.so.*"))
    if not libraries:
        pytest.skip("this OpenVINO has no libopenvino.so")
    return compiler, folder, libraries[0]


@pytest.mark.slow
def test_the_program_of_the_page_gives_the_image_of_csrecon():
    compiler, folder, library = openvino()
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```cpp\n(.*?)```", text, flags=re.DOTALL)
    Path("carry.cpp").write_text(program, encoding="utf-8")
    linked = [str(library), f"-Wl,-rpath,{library.parent}"]
    command = [compiler, "-std=c++17", "-Wall", "carry.cpp", f"-I{folder / 'include'}", *linked]
    done = subprocess.run([*command, "-o", "carry"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    phi = Phi.make(109, 1089, 0)
    np.save("phi.npy", phi.matrix)
    m = csrecon.sample(scene(256, 256)[..., 0], phi=phi)
    native.save(m, Path("y.npy"))
    options = ["--ipl", 1, "--shape", "256x256", "--phi", "phi.npy", "-o", "rcoast.onnx"]
    run("export", "rcoast", *options)  # the page's, with fewer iterations
    done = subprocess.run(["./carry"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = csrecon.reconstruct(m, "rcoast", ipl=1, precision="fp32")
    with Image.open("image.pgm") as written:
        levels = np.asarray(written).astype(float)
    assert np.abs(levels - 255 * expected.clip(0, 1)).max() <= 1
