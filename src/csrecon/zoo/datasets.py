"""Image sets by name: their cards, and their files on this machine.

A set is a folder of its name in the given data folder, in $CSRECON_DATA or in the cache. A set that
none of them has is downloaded into the cache; every file is verified by its digest in
sets/NAME.txt.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from csrecon.errors import InputError, ModelError, nearest
from csrecon.io.downloads import Remote, cache_dir, digest_of, fetch, fetch_all, problem
from csrecon.io.files import reading
from csrecon.io.folders import listed
from csrecon.io.images import SUFFIXES

_LISTS = Path(__file__).parent / "sets"
_LINE = re.compile(r"(\w+:[0-9a-f]+)  ([A-Za-z0-9][\w.-]*)")


@dataclass(frozen=True)
class DatasetCard:
    """The description of an image set.

    Attributes:
        title: description of the images.
        count: number of images.
        use: training, validation (choices may be made on it) or test.
        repository, commit, folder: its location on GitHub; empty for a set that is not there.
        origin: instead, where its files come from, as text.
        suffixes: of its files.
        masks: k-space masks (`mask_matrix` of a .mat file) that belong to it, by ratio.
    """

    title: str
    count: int
    use: str
    repository: str = ""
    commit: str = ""
    folder: str = ""
    origin: str = ""
    suffixes: tuple[str, ...] = SUFFIXES
    masks: Mapping[float, Remote] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Its origin, as text."""
        return self.origin or f"github.com/{self.repository} @ {self.commit}, {self.folder}"

    def url(self, name: str) -> str:
        """The address of one file."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{self.folder}/{name}"


_RECURSIONS = (
    "Rawwad-Alhejaili/Recursions-Are-All-You-Need",
    "3b8ecc9e93803b7e88620106c700b56c2695dc93",
)
_DNCNN = ("cszn/DnCNN", "e93b27812d3ff523a3a79d19e5e50d233d7a8d0a")
_SRCNN = ("tegg89/SRCNN-Tensorflow", "78be1a24697935fc39a3a8cf59a6632264afade7")
_ISTA = ("jianzhangcs/ISTA-Net-PyTorch", "f69904068fe1417d149992f8b5c10bc4e24c5feb")


def _mask(percent: int, sha256: str, size: int) -> Remote:
    """A mask of the authors of ISTA-Net."""
    repository, commit = _ISTA
    return Remote(
        url=f"https://raw.githubusercontent.com/{repository}/{commit}/sampling_matrix/"
        f"mask_{percent}.mat",
        digest=f"sha256:{sha256}",
        bytes=size,
    )


DATASETS: dict[str, DatasetCard] = {
    "set11": DatasetCard(
        "nine 256×256 and two 512×512 gray images",
        11,
        "validation",
        *_RECURSIONS,
        "COAST/data/Set11",
    ),
    "bsd68": DatasetCard(
        "68 RGB images of 480×288", 68, "test", *_RECURSIONS, "COAST/data/SetBSD68"
    ),
    "urban100": DatasetCard(
        "100 RGB images of buildings, about 1024×768",
        100,
        "test",
        *_RECURSIONS,
        "COAST/data/Urban100",
    ),
    "bsd100": DatasetCard(
        "100 RGB images of 481×321", 100, "test", *_RECURSIONS, "COAST/data/BSD100"
    ),
    "bsd68-gray": DatasetCard("68 gray images of 481×321", 68, "test", *_DNCNN, "testsets/BSD68"),
    "set12": DatasetCard(
        "12 gray images",
        12,
        "test",
        *_DNCNN,
        "TrainingCodes/DnCNN_TrainingCodes_DagNN_v1.1/testsets/Set12",
    ),
    "t91": DatasetCard("the 91 training images", 91, "training", *_SRCNN, "Train"),
    "bsd400": DatasetCard(
        "400 gray images of 180×180, disjoint from BSD68",
        400,
        "training",
        *_DNCNN,
        "TrainingCodes/DnCNN_TrainingCodes_v1.0/data/Train400",
    ),
    "brain_test": DatasetCard(
        "50 gray brain slices of 256×256, and five masks of k-space",
        50,
        "test",
        *_ISTA,
        "data/BrainImages_test",
        masks={
            0.1: _mask(
                10, "107e1550e7d1a529f90f99eaa1993961b741293a384ec992b6b9bee227ac773e", 4143
            ),
            0.2: _mask(
                20, "88917e951cc396936b9e5cedeb3c88055f2e54c831f72a00699066f00e11963c", 5212
            ),
            0.3: _mask(
                30, "f5ec50ae5f637301ce054016af44a534dc449e9ca7b4dbbab717b17204c51e12", 5795
            ),
            0.4: _mask(
                40, "7fac649ddbfa786e98747a3dc7e84286c19ac17d1e07e961f534231611319856", 5970
            ),
            0.5: _mask(
                50, "bd3d41daaf760d757323ab9f7d65bf3ca953c17ef7b8f05f096f4989b5624b26", 5846
            ),
        },
    ),
    "brain_train": DatasetCard(
        "two T1 volumes (NIfTI) of one head, 1 and 0.5 mm",
        2,
        "training",
        origin="ch2.nii.gz and ch2better.nii.gz of Debian's package mricron-data (BSD-3-clause)",
        suffixes=(".gz", ".nii"),
    ),
}


def card(name: str) -> DatasetCard:
    """The card of a set.

    Raises:
        ModelError: no set of that name; the message names the closest one.
    """
    if name not in DATASETS:
        raise ModelError(f"no data set named {name!r}: {nearest(name, DATASETS)}")
    return DATASETS[name]


def remotes(name: str) -> dict[str, Remote]:
    """The files of a set by name; empty if their digests are not known.

    Raises:
        ModelError: the list of digests is damaged.
    """
    path = _LISTS / f"{name}.txt"
    if not path.exists():
        return {}
    matches = [_LINE.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not all(matches):
        raise ModelError(f"{path}: not a list of digests and names; reinstall csrecon.")
    return {
        m[2]: Remote(url=DATASETS[name].url(m[2]), digest=m[1], bytes=None)
        for m in matches
        if m is not None
    }


def download(name: str) -> Path:
    """The folder of a set in the cache, complete and verified; missing files are downloaded.

    Raises:
        ModelError: no digests are known, or as in downloads.fetch.
        ResourceError: the cache cannot be written.
    """
    wanted = remotes(name)
    folder, entry = _cached(name), DATASETS[name]
    if not wanted:
        if folder.is_dir() and len(_files(name, folder)) == entry.count:
            return folder  # placed there by hand
        raise ModelError(
            f"{name}: the digests of its files are not known, so csrecon does not download it. "
            f"Its source is {entry.source}."
        )
    masks = [(remote, folder / _last(remote)) for remote in entry.masks.values()]
    fetch_all(name, [(remote, folder / file) for file, remote in wanted.items()] + masks)
    return folder


def mask(name: str, ratio: float, data_dir: Path | None = None) -> Path:
    """The file of a mask that belongs to a set, verified; downloaded if no folder has it.

    Raises:
        ModelError: the set has no mask of this ratio, or a mask that is damaged or unavailable.
        ResourceError: the cache cannot be written.
    """
    masks = card(name).masks
    if ratio not in masks:
        known = ", ".join(f"{each:g}" for each in masks) or "none"
        raise ModelError(f"{name} has no mask of the ratio {ratio:g}; ratios with one: {known}.")
    remote = masks[ratio]
    for place in _given(name, data_dir):
        path = place / _last(remote)
        if path.exists():
            if wrong := problem(path, remote):
                raise ModelError(f"{path}: {wrong}; restore the mask of {name}.")
            return path
    return fetch(remote, _cached(name) / _last(remote))


def _last(remote: Remote) -> str:
    return PurePosixPath(remote.url).name


def verify(name: str, folder: Path) -> list[str]:
    """The faults of a set in a folder, one line per file; empty if the set is intact.

    A set with digests of pixels may be in any lossless format.

    Raises:
        InputError: no such folder, or no image in it.
        ModelError: no digests are known.
    """
    wanted = remotes(name)
    if not wanted:
        raise ModelError(f"{name}: the digests of its files are not known.")
    found = _files(name, folder)
    here = {path.stem: path for path in sorted(found, key=lambda path: path.name in wanted)}
    faults = [f"{path.name}: not a file of this set" for path in found if path != here[path.stem]]
    for file, remote in wanted.items():
        path = here.pop(Path(file).stem, None)
        if path is None:
            faults.append(f"{file}: missing")
        elif digest_of(path, remote.digest.partition(":")[0]) != remote.digest:
            faults.append(f"{path.name}: other content than the published file")
    for remote in card(name).masks.values():
        path = folder / _last(remote)
        if wrong := problem(path, remote) if path.exists() else "missing":
            faults.append(f"{path.name}: {wrong}")
    return faults + [f"{path.name}: not a file of this set" for path in here.values()]


def list_images(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The image files of a folder that are not hidden, by name.

    Raises:
        InputError: no such folder, or no image in it.
    """
    with reading(folder):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder.")
    found = listed(folder, suffixes)
    if not found:
        raise InputError(f"{folder}: no image in it (looked for {', '.join(suffixes)}).")
    return found


def _files(name: str, folder: Path) -> list[Path]:
    return list_images(folder, DATASETS[name].suffixes)


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
    for place in _given(name, data_dir):
        if place.is_dir():
            found = _files(name, place)
            if fault := _incomplete(name, found):
                raise ModelError(
                    f"{place}: {fault}; restore the set, or give the folder itself as the data set."
                )
            return found
    try:
        folder = download(name)
        wanted = remotes(name)
        return [folder / file for file in sorted(wanted)] if wanted else _files(name, folder)
    except ModelError as error:
        looked = ", ".join(str(place) for place in [*_given(name, data_dir), _cached(name)])
        raise ModelError(
            f"data set {name!r} ({DATASETS[name].title}) is not on this machine; looked in "
            f"{looked}. {error} You may also put it into a folder {name}/ and pass --data-dir with "
            "the folder above, or set CSRECON_DATA to it."
        ) from error


def at_hand(name: str, data_dir: Path | None = None) -> bool:
    """Whether a set is on this machine, whole, so that nothing needs to be downloaded."""
    places = [*_given(name, data_dir), _cached(name)]
    first = next((place for place in places if place.is_dir()), None)
    return first is not None and not _incomplete(name, listed(first, DATASETS[name].suffixes))


def _incomplete(name: str, found: list[Path]) -> str | None:
    """What is missing from these files of a set, or does not belong to it; None if nothing."""
    count, here = DATASETS[name].count, {path.stem for path in found}
    wanted = remotes(name)
    missing = [file for file in wanted if Path(file).stem not in here]
    if 0 < len(missing) < len(wanted):  # a set may have other names throughout
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        return f"{len(missing)} of the {count} images of {name} are missing ({some})"
    return None if len(found) == count else f"{len(found)} images, and {name} has {count}"


def _given(name: str, data_dir: Path | None) -> list[Path]:
    roots = [data_dir, os.environ.get("CSRECON_DATA")]
    return [Path(root) / name for root in roots if root]


def _cached(name: str) -> Path:
    return cache_dir() / "data" / name
