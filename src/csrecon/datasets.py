"""Image sets by name: their cards, and where their files are found on this machine.

A set lies in a folder of its name under one of: the given data folder, $CSRECON_DATA, and the
cache ($CSRECON_CACHE/data, or the operating system's cache folder).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from csrecon.errors import InputError, ModelError, nearest
from csrecon.files import reading
from csrecon.images import SUFFIXES


@dataclass(frozen=True)
class DatasetCard:
    """What a set is: its images, what they may be used for, and where they come from."""

    title: str
    count: int
    use: str
    source: str


_RECURSIONS = (
    "github.com/Rawwad-Alhejaili/Recursions-Are-All-You-Need"
    " @ 3b8ecc9e93803b7e88620106c700b56c2695dc93, COAST/data/"
)

DATASETS: dict[str, DatasetCard] = {
    "set11": DatasetCard(
        "nine 256×256 and two 512×512 gray images", 11, "validation", _RECURSIONS + "Set11"
    ),
    "bsd68": DatasetCard("68 RGB images of 480×288", 68, "test", _RECURSIONS + "SetBSD68"),
    "t91": DatasetCard(
        "the 91 training images",
        91,
        "training",
        "github.com/tegg89/SRCNN-Tensorflow @ 78be1a24697935fc39a3a8cf59a6632264afade7, Train",
    ),
    "bsd400": DatasetCard(
        "400 gray images of 180×180, disjoint from BSD68",
        400,
        "training",
        "github.com/cszn/DnCNN @ e93b27812d3ff523a3a79d19e5e50d233d7a8d0a, "
        "TrainingCodes/DnCNN_TrainingCodes_v1.0/data/Train400",
    ),
}


def cache_dir() -> Path:
    """Where csrecon keeps what it downloads: $CSRECON_CACHE, else the system's cache folder."""
    chosen = os.environ.get("CSRECON_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("csrecon")


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, by name.

    Raises:
        InputError: no such folder, or no image in it.
    """
    with reading(folder):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder.")
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{folder}: no image in it (looked for {', '.join(SUFFIXES)}).")
    return found


def images(name: str, data_dir: Path | None = None) -> list[Path]:
    """The files of a set, by its name in DATASETS or by the path of a folder.

    Raises:
        ModelError: an unknown name; a set that is not on this machine, or incomplete.
        InputError: a folder without images.
    """
    if name not in DATASETS:
        folder = Path(name)
        if folder.is_dir():
            return list_images(folder)
        raise ModelError(f"no data set or folder named {name!r}: {nearest(name, DATASETS)}")
    card = DATASETS[name]
    roots = [data_dir, os.environ.get("CSRECON_DATA"), cache_dir() / "data"]
    places = [Path(root) / name for root in roots if root]
    for place in places:
        if place.is_dir():
            found = list_images(place)
            if len(found) != card.count:
                raise ModelError(
                    f"{place}: {len(found)} images, and {name} has {card.count}; restore the set, "
                    "or give the folder itself as the data set."
                )
            return found
    looked = ", ".join(str(place) for place in places)
    raise ModelError(
        f"data set {name!r} ({card.title}) is not on this machine; looked in {looked}. "
        f"It comes from {card.source}. Put it into a folder {name}/ and pass --data-dir with the "
        "folder above, or set CSRECON_DATA to it."
    )
