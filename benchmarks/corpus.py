"""The seed corpus of the fuzzer: small valid files of every format that csrecon reads.

An item is everything that a command needs when it is given its name: a measurement with its
sidecar, a folder with its images. `kinds` says for what it may be given.
"""

import io
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from forked import Forked
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

import csrecon
from csrecon.evaluation.selftest import GOLDEN
from csrecon.sensing import native

ROOT = Path(__file__).parents[1]
LEGACY = ROOT / "tests" / "legacy"
SIDE, BLOCK, ROWS = 24, 8, 20
"""Of the images (pixels), of a block, and of Φ."""
TINY_TRAINING = (
    *("--set", "steps=4", "--set", "batch=1", "--set", "patch=36", "--set", "scales=[1]"),
    *("--set", "warmup=1", "--set", "precision=fp32", "--set", "phi_bases=1"),
)


@dataclass(frozen=True)
class Item:
    """One valid input.

    Attributes:
        name: to write in a command line.
        kinds: of input that it is.
        files: path -> content.
    """

    name: str
    kinds: frozenset[str]
    files: Mapping[str, bytes]


def scene(height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """A colourful image (H, W, 3) with smooth parts and edges."""
    row, column = np.mgrid[:height, :width]
    planes = [
        120 + 90 * np.sin(row / 6),
        120 + 90 * np.cos(column / 9),
        60 + 120 * ((row // 8 + column // 8) % 2),
    ]
    return np.stack(planes, axis=-1).astype(np.uint8)


def png(height: int, width: int = SIDE) -> bytes:
    """A PNG file of `scene`."""
    stream = io.BytesIO()
    Image.fromarray(scene(height, width)).save(stream, "PNG")
    return stream.getvalue()


def make(forked: Forked, brief: bool = False) -> list[Item]:
    """The corpus; a run and a report are made by commands, and left out if it is brief."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _images(folder)
        _arrays(folder)
        _measurements(folder)
        _weights(folder)
        if not brief:
            _results(folder, forked)
        return [*_items(folder)]


def _images(folder: Path) -> None:
    color = Image.fromarray(scene())
    gray = color.convert("L")
    for suffix in ("png", "jpg", "tif", "bmp", "webp", "gif"):
        gray.save(folder / f"i.{suffix}")
        color.save(folder / f"color.{suffix}")
    deep = (np.asarray(gray).astype(np.uint16) * 200).astype(np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(deep).save(folder / f"deep.{suffix}")
    Image.fromarray(np.asarray(gray, np.float32) / 255).save(folder / "float.tif")
    Image.fromarray(deep.astype(np.int32)).save(folder / "int.tif")
    gray.convert("1").save(folder / "bits.png")
    color.convert("P").save(folder / "palette.png")
    color.convert("RGBA").save(folder / "alpha.png")
    color.convert("CMYK").save(folder / "cmyk.tif")
    gray.save(folder / "frames.tif", save_all=True, append_images=[gray, gray])
    gray.save(folder / "frames.gif", save_all=True, append_images=[color.convert("L")])
    gray.crop((0, 0, SIDE, 1)).save(folder / "line.png")
    gray.crop((0, 0, 1, 1)).save(folder / "pixel.png")
    for index, height in enumerate((SIDE, SIDE + 13)):
        (folder / "photos").mkdir(exist_ok=True)
        Image.fromarray(scene(height, 40)).save(folder / "photos" / f"{index}.png")


def _arrays(folder: Path) -> None:
    draw = np.random.default_rng(0)
    phi = draw.normal(size=(ROWS, BLOCK**2)) / BLOCK
    blocks = (SIDE // BLOCK) ** 2
    values = draw.uniform(size=(blocks, BLOCK**2)) @ phi.T
    np.save(folder / "lab.npy", values)
    np.savez_compressed(folder / "lab.npz", y=values, phi=phi)
    savemat(folder / "lab.mat", {"y": values, "phi": phi, "note": "text"}, do_compression=True)
    with h5py.File(folder / "lab.h5", "w") as file:
        file.create_dataset("group/y", data=values, compression="gzip")
        file.create_dataset("phi", data=phi, chunks=(5, 16))
    _matlab73(folder / "seven.mat", {"y": values, "phi": phi})
    np.savetxt(folder / "lab.csv", values, delimiter=",")
    np.savetxt(folder / "lab.txt", values, header="a comment")
    np.save(folder / "pairs.npy", np.repeat(values, 2, axis=1))
    np.save(folder / "phi.npy", phi)
    np.savez(folder / "phi.npz", phi=phi)
    np.savetxt(folder / "phi.csv", phi, delimiter=";")
    np.save(folder / "mask.npy", draw.integers(0, 2, (SIDE, SIDE)))
    np.save(folder / "white.npy", phi.sum(axis=1))
    np.save(folder / "black.npy", np.zeros(ROWS))
    places = [f"{i // 3},{i % 3}" for i in range(blocks)]
    (folder / "positions.csv").write_text("\n".join(places) + "\n")


def _matlab73(path: Path, arrays: Mapping[str, NDArray[np.float64]]) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in arrays.items():
            made = file.create_dataset(name, data=value.T)
            made.attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116))


def _measurements(folder: Path) -> None:
    gray, color = scene()[..., 0], scene()
    native.save(csrecon.sample(gray, 0.3, block=BLOCK), folder / "m.npy")
    native.save(csrecon.sample(color, 0.3, block=BLOCK, kind="hadamard"), folder / "rgb.npz")
    native.save(csrecon.sample(gray, 0.5, kind="fourier"), folder / "fourier.npz")
    native.save(csrecon.sample(gray, kind="identity", noise_sigma=0.1), folder / "identity.npy")
    native.save(csrecon.sample(gray, 0.5, block=BLOCK, kind="pixels"), folder / "pixels.npy")
    for name in ("one", "two"):
        (folder / "taken").mkdir(exist_ok=True)
        native.save(csrecon.sample(gray, 0.3, block=BLOCK), folder / "taken" / f"{name}.npy")
    phi = np.load(folder / "phi.npy") * np.linspace(0.8, 1.2, ROWS)[:, None]
    for index in range(3):
        (folder / "known").mkdir(exist_ok=True)
        image = np.roll(gray, 5 * index, axis=1)
        Image.fromarray(image).save(folder / "known" / f"{index}.png")
        native.save(csrecon.sample(image, phi=phi), folder / "known" / f"{index}.npy")
    for name in ("gaussian", "small", "noisy"):  # written by earlier releases
        for suffix in (".npy", ".json"):
            (folder / f"{name}{suffix}").write_bytes((LEGACY / f"{name}{suffix}").read_bytes())
    (folder / "given.npz").write_bytes((LEGACY / "given.npz").read_bytes())


def _weights(folder: Path) -> None:
    for name in ("plain", "rista", "rcoast"):
        (folder / f"{name}.safetensors").write_bytes((LEGACY / f"{name}.safetensors").read_bytes())
    bundled = GOLDEN.with_name("istanet-plus.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(bundled[:4000])
    (folder / "models.yaml").write_bytes((LEGACY / "models.yaml").read_bytes())
    torch.save({"fcs.0.conv1_forward": torch.zeros(32, 1, 3, 3)}, folder / "authors.pkl")


def _results(folder: Path, forked: Forked) -> None:
    """A report, a result cache and a run."""
    environment = {"CSRECON_CACHE": str(folder / "cache"), "CSRECON_OFFLINE": "1"}
    models = [f"--model={name}:iterations={count}" for name in ("tv", "fista") for count in (2, 3)]
    kept = ("--precision=fp32", "--resume", "-o", "report")
    for command in (
        ["bench", "--dataset", "photos", *models, "--ratio=0.3,0.5", *kept],
        ["train", "rista", "--data", "photos", "--out", "run", *TINY_TRAINING],
    ):
        done = forked.run(command, folder, environment)
        if done.code:
            raise RuntimeError(f"{command}: {done.stderr}")
    record = {"step": 1, "seconds": 0.1, "loss": 0.01, "learning_rate": 1e-3}
    (folder / "run" / "log.jsonl").write_text(json.dumps(record) + "\n")


_KINDS: dict[str, Iterable[str]] = {
    "image": (".png", ".jpg", ".tif", ".bmp", ".webp", ".gif"),
    "array": (".npy", ".npz", ".mat", ".h5", ".csv", ".txt"),
    "weights": (".safetensors",),
    "cards": (".yaml",),
    "checkpoint": (".pkl",),
}
_MEASURED = ("m.npy", "rgb.npz", "fourier.npz", "identity.npy", "pixels.npy", "given.npz")
_SPECIAL: dict[str, tuple[str, ...]] = {
    "photos": ("images", "folder"),
    "taken": ("measurements", "folder"),
    "known": ("measurements", "folder"),
    "run": ("run", "folder"),
    "report/bench.json": ("report",),
    "report/bench.csv": ("report",),
    "cache/bench/rows.jsonl": ("cache",),
    "positions.csv": ("array", "positions"),
    "mask.npy": ("array", "mask"),
    **dict.fromkeys(("phi.npy", "phi.npz", "phi.csv"), ("array", "phi")),
    **dict.fromkeys(("white.npy", "black.npy"), ("array", "scene")),
    **dict.fromkeys(
        ("lab.npy", "lab.npz", "lab.mat", "lab.h5", "seven.mat", "lab.csv", "lab.txt", "pairs.npy"),
        ("array", "values"),
    ),
}


def _items(folder: Path) -> Iterable[Item]:
    for name, kinds in _SPECIAL.items():
        place = folder / name
        paths = sorted(place.rglob("*")) if place.is_dir() else [place]
        files = {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.is_file()}
        if not files:
            continue
        yield Item(name, frozenset(kinds), files)
    for path in sorted(folder.iterdir()):
        name, suffix = path.name, path.suffix
        if path.is_dir() or name in _SPECIAL or suffix == ".json":
            continue
        kinds = {kind for kind, suffixes in _KINDS.items() if suffix in suffixes}
        files = {name: path.read_bytes()}
        sidecar = path.with_suffix(".json")
        if sidecar.exists():
            files[sidecar.name] = sidecar.read_bytes()
        if sidecar.exists() or name in _MEASURED:
            kinds |= {"measurement"}
        yield Item(name, frozenset(kinds), files)
