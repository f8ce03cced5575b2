"""Weights files on this machine: bundled, or downloaded, verified, and converted if necessary.

The authors' checkpoints are converted to .safetensors by a reader that runs no code. A converted
file is stored with its SHA-256, which is checked before every use.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from csrecon.errors import InputError, ModelError, UsageError
from csrecon.io import arrays, downloads, files
from csrecon.io.downloads import Remote
from csrecon.sensing.native import read_phi
from csrecon.sensing.operators import Phi
from csrecon.zoo import hub, matconvnet, published, weights_file
from csrecon.zoo.cards import BUNDLED, Bundled, Checkpoint, Hub, Weights, card, cards

# 0123456789ab-NAME, 0123456789ab.safetensors and .sha256; hidden, locks and temporaries of these.
_OURS = re.compile(r"[0-9a-f]{12}[-.]|\.[0-9a-f]{12}-\d+(\.|$)|\.[0-9a-f]{12}[-.].*\.lock$")


_DIGEST = 64  # characters of a SHA-256


def folder() -> Path:
    """The folder of downloaded and converted weights."""
    return downloads.cache_dir() / "models"


def weights_path(name: str, ratio: float | None = None) -> Path:
    """The verified weights file of a model, downloaded if necessary.

    Args:
        name: of a model of the zoo.
        ratio: m/n of the measurement, for networks with per-ratio weights.

    Raises:
        ModelError: weights that are not released, damaged or unavailable.
        ResourceError: the cache cannot be written.
    """
    entry = card(name)
    if entry.weights is None:
        ready = ", ".join(n for n, c in cards().items() if c.weights)
        raise ModelError(f"model {name!r} has no released weights yet; models that have: {ready}.")
    try:
        return _path(name, entry.weights_at(ratio))
    except ModelError as error:
        raise ModelError(f"model {name!r}: {error}") from error


def own_phi(name: str, ratio: float) -> Phi | None:
    """The only Φ that a model works with; None if it works with any.

    Raises:
        ModelError, ResourceError: as in `weights_path`.
    """
    weights = card(name).weights_at(ratio) if card(name).weights else None
    if isinstance(weights, Checkpoint) and weights.phi is not None:
        return read_phi(_fetched(name, weights.phi))
    return None


def all_weights(name: str) -> Iterator[tuple[str, Weights]]:
    """Every weights file of a model, with a label."""
    weights = card(name).weights
    if isinstance(weights, Mapping):
        for each_ratio, each in weights.items():
            yield f"{name} at {each_ratio:g}", each
    elif weights is not None:
        yield name, weights


def bundled() -> list[str]:
    """Names of the models whose weights come with the package."""
    return [name for name, entry in cards().items() if isinstance(entry.weights, Bundled)]


def download(name: str) -> list[Path]:
    """Fetch, verify and convert all weights of a model.

    Raises:
        ModelError, ResourceError: as in `weights_path`.
    """
    return [_path(name, weights) for _, weights in all_weights(name)]


def problem(name: str, weights: Weights) -> str | None:
    """What is wrong with local weights; None if they are intact. Nothing is downloaded.

    Returns "not downloaded" for weights that are not on this machine.
    """
    if isinstance(weights, Bundled):
        path = BUNDLED / weights.file
        right = path.exists() and files.sha256_file(path) == weights.sha256
        return None if right else f"{path} is missing or altered"
    if isinstance(weights, Hub):
        return None
    sources = [weights] if isinstance(weights, Remote) else _sources(weights)
    for remote in sources:
        path = _place(name, remote)
        if not path.exists():
            return "not downloaded"
        if wrong := downloads.problem(path, remote):
            return f"{path}: {wrong}"
    return None


def prune() -> tuple[int, int]:
    """Remove cached weights that no card refers to; return the number of files and of bytes.

    Files with names that csrecon does not give, which somebody else put there, are kept.
    """
    wanted = set()
    for name in cards():
        for _, weights in all_weights(name):
            if isinstance(weights, Checkpoint):
                wanted |= {_place(name, remote) for remote in _sources(weights)}
                made = _made(name, weights)
                wanted |= {made, made.with_suffix(".sha256")}
            elif isinstance(weights, Remote):
                wanted.add(_place(name, weights))
    gone = [
        path
        for path in folder().rglob("*")
        if path.is_file() and path not in wanted and _OURS.match(path.name)
    ]
    size = sum(path.stat().st_size for path in gone)
    for path in gone:
        path.unlink()
    for empty in sorted((p for p in folder().rglob("*") if p.is_dir()), reverse=True):
        if not any(empty.iterdir()):
            shutil.rmtree(empty)
    return len(gone), size


def _sources(weights: Checkpoint) -> list[Remote]:
    return [r for r in (weights.checkpoint, weights.phi, weights.start) if r is not None]


def _place(name: str, remote: Remote) -> Path:
    last = PurePosixPath(unquote(urlsplit(remote.url).path)).name
    plain = re.sub(r"[^\w.+=-]", "_", last).lstrip(".")
    return folder() / name / f"{remote.digest.partition(':')[2][:12]}-{plain}"


def _fetched(name: str, remote: Remote) -> Path:
    return downloads.fetch(remote, _place(name, remote))


def _path(name: str, weights: Weights) -> Path:
    if isinstance(weights, Bundled):
        if wrong := problem(name, weights):
            raise ModelError(f"{wrong}; reinstall csrecon.")
        return BUNDLED / weights.file
    if isinstance(weights, Hub):
        return hub.checked(weights.repository, weights.file, weights.revision, weights.sha256)
    if isinstance(weights, Remote):
        return _fetched(name, weights)
    return _converted(name, weights)


def _made(name: str, weights: Checkpoint) -> Path:
    return folder() / name / f"{weights.checkpoint.digest.partition(':')[2][:12]}.safetensors"


def _is_recorded(made: Path, record: Path) -> bool:
    """Whether a converted file is there, with the SHA-256 of its record; both are plain files."""
    if not (made.is_file() and record.is_file() and record.stat().st_size == _DIGEST):
        return False
    return record.read_bytes() == files.sha256_file(made).encode()


def _converted(name: str, weights: Checkpoint) -> Path:
    """The .safetensors file converted from a checkpoint; converted now if it is missing."""
    target = _made(name, weights)
    record = target.with_suffix(".sha256")
    with downloads.locked(target):
        if _is_recorded(target, record):
            return target
        entry = card(name)
        phi = start = None
        if weights.phi is not None and weights.start is not None:
            phi = read_phi(_fetched(name, weights.phi))
            start = arrays.pick(_fetched(name, weights.start))
        source = _fetched(name, weights.checkpoint)
        try:
            if source.suffix == ".mat":
                blueprint = entry.blueprint()
                network = matconvnet.convert(source, blueprint)
            else:
                ipl = max(entry.recursion.schedule)
                network, blueprint = published.convert(
                    source, ipl, entry.trained.ratios, phi, start, entry.task
                )
        except (InputError, UsageError) as error:
            raise ModelError(f"its checkpoint cannot be converted: {error}") from error
        weights_file.save(network, blueprint, target, overwrite=True)
        with files.new_files(record, overwrite=True) as (temporary,):
            temporary.write_text(files.sha256_file(target), encoding="ascii")
    return target
