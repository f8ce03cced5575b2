"""`csrecon demo` as a server: one reconstruction, wrong files, a cancel, its bounds and its end."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from PIL import Image

from csrecon.demo import serving
from csrecon.errors import ResourceError
from csrecon.runtime import execution
from tests.conftest import ROOT, scene

gradio_client = pytest.importorskip("gradio_client", reason="needs the extra demo")

LONG = 60.0  # seconds; a small image takes one or two
SMALL = {"kind": "gaussian", "noise": 0, "second": "", "second_ipl": 1, "side": 512, "seed": 0}


@contextmanager
def served(folder, *options):
    """The command, with its temporary files below a folder; yields its address and the process."""
    folder.mkdir(exist_ok=True)
    environment = {
        **os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "CSRECON_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "src"),
    }  # fmt: skip
    command = [sys.executable, "-m", "csrecon", "demo", "--port", "0", "--device", "cpu", *options]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=folder,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), process.communicate(timeout=LONG)
        yield line.split()[0], process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    with served(folder / "temporary") as (address, process):
        yield address, folder
        process.terminate()
        assert process.wait(LONG) == 143
    assert not list((folder / "temporary").iterdir())


@pytest.fixture(scope="module")
def client(place):
    address, folder = place
    return gradio_client.Client(address, verbose=False, download_files=str(folder))


def image_of(folder, height, width):
    path = folder / f"{height}x{width}.png"
    Image.fromarray(scene(height, width)).save(path)
    return path


def asked(path, ratio=25, model="frcoast", ipl=2, **others):
    """The values of the controls, in their order."""
    said = {**SMALL, **others}
    return (
        gradio_client.handle_file(str(path)), said["kind"], ratio, said["noise"], model, ipl,
        said["second"], said["second_ipl"], said["side"], said["seed"],
    )  # fmt: skip


def run(client, given, event="/reconstruct"):
    """Everything that an event shows, the last first; raises its error."""
    job = client.submit(*given, api_name=event)
    shown = list(job)
    job.result(LONG)
    return [value for values in reversed(shown) for value in values]


def texts(values):
    return json.dumps(values, default=str, ensure_ascii=False)


def command_lines(values):
    return next(v for v in map(plain, values) if isinstance(v, str) and v.startswith("csrecon "))


def plain(value):
    return value.get("value") if isinstance(value, dict) and "value" in value else value


def test_one_reconstruction(client, place, tmp_path):
    values = run(client, asked(image_of(tmp_path, 66, 66)))
    said = texts(values)
    assert "frcoast, IPL 2" in said
    assert "<figcaption>2<br>" in said
    assert "of 4,356 pixels" in said
    sample, reconstruct = command_lines(values).splitlines()
    assert sample == "csrecon sample image.png --ratio 0.25 -o y.npz"
    files = next(v for v in map(plain, values) if isinstance(v, list))
    assert [Path(f).name for f in files] == ["image.png", "y.npz", "result.png"]
    for line in (sample, reconstruct):  # beside the first of the files
        words = [sys.executable, "-m", *shlex.split(line)]
        (tmp_path / "image.png").write_bytes(Path(files[0]).read_bytes())
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert f"{done.stdout.split(' dB')[0].split()[-1]} dB" in said  # the PSNR of the page


def test_more_values_give_a_better_image(client, tmp_path):
    path, found = image_of(tmp_path, 66, 66), []
    for ratio, ipl in ((10, 1), (10, 4), (50, 4)):
        values = run(client, asked(path, ratio, ipl=ipl))
        caption = next(v for v in values if isinstance(v, str) and "Reconstruction</b>" in v)
        found.append(float(caption.split("</b>")[1].split(" dB")[0]))
    assert found == sorted(found)
    assert found[-1] > found[0] + 3


def test_two_models_have_a_slider(client, tmp_path):
    chosen = asked(image_of(tmp_path, 66, 66), second="tv")
    values = run(client, chosen)
    assert "Right: tv." in texts(values)
    assert "result-2.png" in command_lines(values)


def test_wrong_files_end_nothing(client, tmp_path):
    wrong = tmp_path / "text.png"
    wrong.write_text("no image")
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^'?text\.png: "):
        run(client, asked(wrong))
    with pytest.raises(gradio_client.exceptions.AppError, match="at least 7"):
        run(client, asked(image_of(tmp_path, 3, 40)))
    values = run(client, asked(image_of(tmp_path, 66, 66)))
    assert "IPL 2" in texts(values)


def test_a_cancelled_computation_makes_room_for_the_next(client, tmp_path):
    """It would take minutes; the next one, which waits for it, does not."""
    long = asked(image_of(tmp_path, 1000, 1000), model="rcoast", ipl=12, side=1024)
    job = client.submit(*long, api_name="/reconstruct")
    for shown in job:
        if "iteration 1 of 60" in texts(shown):
            break
    job.cancel()
    began = time.monotonic()
    assert "IPL 2" in texts(run(client, asked(image_of(tmp_path, 66, 66))))
    assert time.monotonic() - began < LONG


def test_a_file_of_csrecon(client, tmp_path):
    image_of(tmp_path, 66, 66)
    words = [sys.executable, "-m", "csrecon", "sample", "66x66.png", "--ratio", "0.2", "-o"]
    subprocess.run([*words, "y.npy"], cwd=tmp_path, check=True, capture_output=True)
    files = [gradio_client.handle_file(str(tmp_path / name)) for name in ("y.npy", "y.json")]
    given = (files, "y.npy", None, None, None, "C", "C", "1", False, "frcoast", 2)
    assert "complete and verified" in texts(run(client, (files,), "/inspect"))
    values = run(client, given, "/reconstruct_file")
    assert command_lines(values) == (
        "csrecon reconstruct y.npy --model frcoast --ipl 2 -o result.png"
    )


def test_only_this_machine_and_no_analytics(place):
    address, _ = place
    port = int(address.rsplit(":", 1)[1].strip("/"))
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", port))
    config = requests.get(f"{address}config", timeout=LONG).json()
    assert config["analytics_enabled"] is False
    assert not config.get("is_space")
    theme = requests.get(f"{address}theme.css", timeout=LONG).text
    assert "http://" not in theme.replace("http://www.w3.org", "") and "https://" not in theme


def test_uploads_are_bounded(place, tmp_path):
    address, folder = place
    content = bytes(65 * 2**20)
    answer = requests.post(
        f"{address}gradio_api/upload", files={"files": ("large.npy", content)}, timeout=LONG
    )
    assert answer.status_code == 413
    assert not list(folder.rglob("large.npy"))


def test_the_temporary_files_go_with_the_server(tmp_path):
    with served(tmp_path / "temporary") as (address, process):
        content = {"files": ("a.npy", b"values")}
        (path,) = requests.post(f"{address}gradio_api/upload", files=content, timeout=LONG).json()
        assert Path(path).read_bytes() == b"values"
        assert Path(path).is_relative_to(tmp_path / "temporary")
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == 0
    assert not list((tmp_path / "temporary").iterdir())


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"127.0.0.1:{port} cannot be .* --port 0"):
            serving.serve("127.0.0.1", port, execution.choose("cpu"), print)
