"""What the kill test kills: commands that write, with what was there before, and how to read it.

A state is what csrecon's own readers find in a folder: unit -> a value that tells contents apart. A
unit is what must be old or new as a whole: a measurement, an image, a checkpoint, a row.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import corpus
import grammar
import loopback
import numpy as np
import torch

import csrecon
from csrecon import zoo
from csrecon.errors import CsreconError
from csrecon.evaluation.cache import ResultCache
from csrecon.io import images
from csrecon.sensing import native
from csrecon.training import checkpoint
from csrecon.training.recipe import Recipe
from csrecon.zoo import datasets

State = dict[str, str]


class Loss(Exception):  # noqa: N818 - what the test looks for
    """Something is lost, mixed or unreadable."""


@dataclass(frozen=True)
class Plan:
    """A command to kill.

    Attributes:
        command: its words.
        state: reads the result in a folder.
        before: commands whose result is there before; none for a first write.
        again: options that a user adds to do it again, the next if one does not do.
        final: like `state`, for a finished result.
    """

    command: Sequence[str]
    state: Callable[[Path], State]
    before: Sequence[Sequence[str]] = ()
    again: Sequence[str] = ("--overwrite",)
    final: Callable[[Path], State] | None = None


def inputs(folder: Path) -> None:
    """Write the inputs of all plans."""
    for name, height in (("i", 64), ("j", 48)):
        (folder / f"{name}.png").write_bytes(corpus.png(height, 40))
    (folder / "photos").mkdir()
    (folder / "taken").mkdir()
    for index in range(3):
        (folder / "photos" / f"{index}.png").write_bytes(corpus.png(40 + index, 40))
        image = corpus.scene(32 + index, 32)[..., 0]
        native.save(csrecon.sample(image, 0.3, block=8), folder / "taken" / f"{index}.npy")
    native.save(csrecon.sample(corpus.scene(48, 48)[..., 1], 0.3, block=8), folder / "other.npy")
    draw = np.random.default_rng(1)
    np.save(folder / "phi.npy", draw.normal(size=(20, 64)) / 8)
    for name in ("lab", "lab2"):
        np.save(folder / f"{name}.npy", draw.normal(size=(9, 20)))


def bodies() -> dict[str, bytes]:
    """The files of the set that is downloaded."""
    draw = np.random.default_rng(2)
    return {f"{index}.png": draw.bytes(30_000 + index) for index in range(6)}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _measurements(*names: str, given: bool = False) -> Callable[[Path], State]:
    """Measurements, with phi.npy as their Φ if it is not in them."""

    def state(folder: Path) -> State:
        found = {}
        phi = native.Given(phi=native.read_phi(folder / "phi.npy") if given else None)
        for name in names:
            path = folder / name
            sidecar = path.with_suffix(".json")
            if path.suffix == ".npy" and not sidecar.exists():
                if path.exists() and not sidecar.exists():  # in this order, while it is written
                    raise Loss(f"{name} without its description")
            elif path.suffix == ".npy" or path.exists():
                m = native.load(path, phi)
                y = m.y.numpy().tobytes() + m.operator.adjoint(m.y).numpy().tobytes()
                found[name] = f"{tuple(m.y.shape)} {_digest(y)}"
        return found

    return state


def _images(*names: str) -> Callable[[Path], State]:
    def state(folder: Path) -> State:
        found = {}
        for name in names:
            if (folder / name).exists():
                images.read(folder / name)
                found[name] = _digest((folder / name).read_bytes())
        return found

    return state


def _run(folder: Path) -> State:
    """The run that the checkpoint continues; what else is there of a run must be readable.

    The checkpoint is the first file of a run, and the others of an earlier run give way to it.
    """
    found = {}
    run = folder / "run"
    if (run / checkpoint.FILE).exists():
        found["run"] = torch.load(run / checkpoint.FILE, weights_only=True)["recipe"]
    elif (run / checkpoint.RECIPE).exists() or (run / "weights.safetensors").exists():
        raise Loss("files of a run without its checkpoint")
    for name, read in ((checkpoint.RECIPE, _recipe), ("weights.safetensors", zoo.load)):
        try:
            if (run / name).exists():
                read(run / name)
        except (FileNotFoundError, CsreconError):
            if (run / name).exists():  # else it gave way meanwhile
                raise
    return found


def _recipe(path: Path) -> Recipe:
    return Recipe.model_validate_json(path.read_text(encoding="utf-8"))


def _trained(folder: Path) -> State:
    """The end of a run: what it holds, up to the times that are logged."""
    state = torch.load(folder / "run" / checkpoint.FILE, weights_only=True)
    weights = _digest((folder / "run" / "weights.safetensors").read_bytes())
    return {**_run(folder), "weights": weights, "step": str(state["step"])}


def _set(folder: Path) -> State:
    found = {}
    wanted = bodies()
    for name, body in wanted.items():
        path = folder / "cache" / "data" / loopback.SET / name
        if path.exists():
            if path.read_bytes() != body:
                raise Loss(f"{name} is not what the server has")
            found[name] = "right"
    if len(found) == len(wanted) and datasets.at_hand(loopback.SET) is None:
        raise Loss("a complete set that is not at hand")
    return found


def _benchmark(folder: Path) -> State:
    """The rows of the result cache and the reports, without times and memory."""
    found = {}
    path = folder / "cache" / "bench" / "rows.jsonl"
    for key, row in ResultCache(path)._rows.items():
        found[f"row {key}"] = f"{row['psnr']:.4f} {row['ssim']:.4f}"
    report = folder / "report" / "bench.json"
    if report.exists():
        rows = json.loads(report.read_text(encoding="utf-8"))["rows"]
        found["report"] = _digest(repr([(r["image"], r["psnr"]) for r in rows]).encode())
    for name in ("bench.csv", "bench.md", "bench.tex"):
        path = folder / "report" / name
        if path.exists() and not path.read_text(encoding="utf-8").endswith("\n"):
            raise Loss(f"{name} is cut off")
    return found


_SAMPLE = ("sample", "--ratio", "0.5", "--block", "8")
_LAB = ("--phi", "phi.npy", "--shape", "24x24")
_TRAIN = ("train", "rista", "--data", "photos", "--out", "run", *corpus.TINY_TRAINING)
_RESUMED = ("--resume", "--overwrite")
_TV = ("--model", "tv:iterations=2")
_BENCH = ("bench", "--dataset", "photos", "--ratio", "0.3", "--resume", "-o", "report/")
_TWO = ("--model", "tv:iterations=2", "--model", "tv:iterations=3")
_PHOTOS = tuple(f"many/{index}.npy" for index in range(3))
_SHOWN = tuple(f"many/{index}.png" for index in range(3))


@dataclass(frozen=True)
class Command:
    """A command and its plans, which are killed in turn."""

    plans: Sequence[Plan]
    environment: Mapping[str, str] = field(default_factory=dict)


def _trainings() -> list[Plan]:
    plans = [
        Plan(_TRAIN, _run, again=_RESUMED, final=_trained),
        Plan(
            (*_TRAIN, "--resume"),
            _run,
            [(*_TRAIN, "--max-time", "0.001s")],
            again=_RESUMED,
            final=_trained,
        ),
    ]
    if "--overwrite" in grammar.options("train"):
        old = (*_TRAIN, "--set", "seed=1")
        plans.append(Plan((*_TRAIN, "--overwrite"), _run, [old], again=(), final=_trained))
    return plans


COMMANDS: dict[str, Command] = {
    "sample": Command(
        [
            Plan((*_SAMPLE, "i.png"), _measurements("y.npy")),
            Plan(
                (*_SAMPLE, "i.png", "--overwrite"),
                _measurements("y.npy"),
                [(*_SAMPLE, "j.png", "--color", "rgb")],
            ),
            Plan(
                (*_SAMPLE, "i.png", "-o", "y.npz", "--overwrite"),
                _measurements("y.npz"),
                [(*_SAMPLE, "j.png", "-o", "y.npz")],
            ),
            Plan(
                (*_SAMPLE, "photos", "-o", "many", "--overwrite"),
                _measurements(*_PHOTOS),
                [(*_SAMPLE, "photos", "-o", "many", "--seed", "1")],
            ),
        ]
    ),
    "reconstruct": Command(
        [
            Plan(("reconstruct", "other.npy", *_TV, "-o", "o.png"), _images("o.png")),
            Plan(
                ("reconstruct", "other.npy", *_TV, "-o", "o.png", "--overwrite"),
                _images("o.png"),
                [("reconstruct", "taken/0.npy", *_TV, "-o", "o.png")],
            ),
            Plan(
                ("reconstruct", "taken", *_TV, "-o", "many", "--overwrite"),
                _images(*_SHOWN),
                [("reconstruct", "taken", "--model", "tv:iterations=1", "-o", "many")],
            ),
        ]
    ),
    "import": Command(
        [
            Plan(("import", "lab.npy", *_LAB, "-o", "y.npz"), _measurements("y.npz")),
            Plan(
                ("import", "lab.npy", *_LAB, "-o", "y.npz", "--overwrite"),
                _measurements("y.npz"),
                [("import", "lab2.npy", *_LAB, "-o", "y.npz")],
            ),
            Plan(
                ("import", "lab.npy", *_LAB, "-o", "y.npy", "--overwrite"),
                _measurements("y.npy", given=True),
                [("import", "lab2.npy", *_LAB, "-o", "y.npy")],
            ),
        ]
    ),
    "train": Command(_trainings()),
    "download": Command(
        [Plan(("data", "download", loopback.SET, "--json"), _set, again=())],
        {"CSRECON_OFFLINE": "0"},
    ),
    "bench": Command(
        [
            Plan((*_BENCH, *_TWO), _benchmark),
            Plan((*_BENCH, *_TWO, "--overwrite"), _benchmark, [(*_BENCH, *_TV)]),
        ]
    ),
}
