"""Fuzz the readers of csrecon: python benchmarks/fuzz.py [--minutes 10] [--seed 0]

Every reader gets valid files of its format with bytes changed, removed, repeated or inserted. A
reader may read or refuse (InputError, ModelError, UsageError). Anything else is reported with the
file that caused it, and the exit code is 1.
"""

import argparse
import collections
import json
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

import csrecon
from csrecon import zoo
from csrecon.errors import InputError, ModelError, UsageError
from csrecon.evaluation.selftest import GOLDEN
from csrecon.io import arrays, images
from csrecon.sensing import native
from csrecon.zoo import cards

Y = np.arange(24.0).reshape(4, 6)


def seeds(folder: Path) -> list[tuple[Path, Callable[[Path], object]]]:
    """One small valid file of every format, with its reader."""
    np.save(folder / "a.npy", Y)
    np.savez_compressed(folder / "a.npz", y=Y)
    savemat(folder / "a.mat", {"y": Y, "name": "text", "cell": {"b": Y}}, do_compression=True)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("group/y", data=Y, compression="gzip")
    np.savetxt(folder / "a.csv", Y, delimiter=",")
    picture = Image.fromarray((Y * 10).astype(np.uint8))
    kinds = ["png", "jpg", "tif", "bmp", "webp", "gif"]
    for kind in kinds:
        picture.save(folder / f"i.{kind}")
    m = csrecon.sample(np.asarray(picture), 0.5, block=2)
    native.save(m, folder / "m.npy")
    native.save(m, folder / "p.npz")
    native.save(csrecon.sample(np.asarray(picture), 0.5, kind="fourier"), folder / "f.npz")
    weights = GOLDEN.with_name("rista.safetensors").read_bytes()
    (folder / "w.safetensors").write_bytes(weights[:4000])
    (folder / "models.yaml").write_text("version: 1\nmodels: {}\n")
    return [
        *((folder / f"a.{kind}", arrays.read) for kind in ("npy", "npz", "mat", "h5", "csv")),
        *((folder / f"i.{kind}", images.read) for kind in kinds),
        (folder / "m.json", lambda path: native.load(path.with_suffix(".npy"))),
        (folder / "m.npy", native.load),
        (folder / "p.npz", native.load),
        (folder / "f.npz", native.load),
        (folder / "w.safetensors", zoo.load),
        (folder / "models.yaml", cards.read_cards),
    ]


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """The bytes with one to eight random faults."""
    out = bytearray(whole)
    for _ in range(draw.randint(1, 8)):
        where = draw.randrange(len(out) + 1)
        size = draw.randint(1, 1 + len(out) // 8)
        match draw.randrange(5):
            case 0:
                out[where : where + 1] = bytes([draw.randrange(256)])
            case 1:
                del out[where : where + size]
            case 2:
                out[where:where] = out[where : where + size]
            case 3:
                out[where:where] = draw.randbytes(min(size, 64))
            case 4:
                out[where : where + 8] = draw.choice([b"\0" * 8, b"\xff" * 8, b"9" * 8, b"[" * 8])
    return bytes(out)


def main() -> int:
    """Fuzz until the time is up; print the counts per file."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    draw = random.Random(chosen.seed)
    warnings.simplefilter("ignore")
    tried: collections.Counter[str] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [(path, path.read_bytes(), read) for path, read in seeds(folder)]
        end = time.monotonic() + 60 * chosen.minutes
        while time.monotonic() < end:
            path, whole, read = draw.choice(files)
            content = damaged(whole, draw)
            path.write_bytes(content)
            tried[path.name] += 1
            try:
                read(path)
            except (InputError, ModelError, UsageError):
                refused[path.name] += 1
            except Exception as error:
                faults += 1
                kept = Path(f"fuzz-{faults}{path.suffix}")
                kept.write_bytes(content)
                print(f"{path.name}: {type(error).__name__}: {error} -> {kept}", file=sys.stderr)
            path.write_bytes(whole)
    lines = {kind: {"tried": tried[kind], "refused": refused[kind]} for kind in sorted(tried)}
    print(json.dumps({"seed": chosen.seed, "faults": faults, "files": lines}, indent=2))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
