"""Models on the Hugging Face hub: repositories of model.safetensors and config.json.

config.json holds the SHA-256 of model.safetensors, which is checked after every download.
"""

import json
import re
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from csrecon.errors import ModelError, UsageError
from csrecon.io import downloads, files, transfer
from csrecon.zoo.cards import REPOSITORY

PREFIX = "hf:"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_NAME = re.compile(rf"hf:({REPOSITORY})(?:@(\w[\w.-]*(?:/\w[\w.-]*)*))?")
_LARGEST_CONFIG = 2**20  # bytes
# What the hub's client raises: its HTTP library's errors (a base of its own), OSError, ValueError.
_FAULTS: tuple[type[Exception], ...] = (
    ValueError,
    *(k for k in HfHubHTTPError.__mro__ if issubclass(k, Exception) and k is not Exception),
)


def file(repository: str, name: str, revision: str | None = None) -> Path:
    """One file of a repository, in the hub's own cache.

    Raises:
        ModelError: no such repository, revision or file, no access, or no connection.
    """
    if not downloads.offline():
        transfer.web_address(constants.ENDPOINT, "HF_ENDPOINT")
    try:
        return Path(
            hf_hub_download(
                repository, name, revision=revision, local_files_only=downloads.offline()
            )
        )
    except _FAULTS as error:
        first = str(error).strip().partition("\n")[0]
        at = f" at {revision}" if revision else ""
        raise ModelError(f"hf:{repository}{at}: {name} is unavailable ({first}).") from error


def checked(repository: str, name: str, revision: str | None, sha256: str) -> Path:
    """One file of a repository, with its SHA-256 verified.

    Raises:
        ModelError: as in `file`, or other bytes.
    """
    path = file(repository, name, revision)
    found = files.sha256_file(path)
    if found != sha256:
        raise ModelError(
            f"hf:{repository}: {name} has SHA-256 {found} instead of {sha256}; it is not used."
        )
    return path


def model(name: str) -> Path:
    """The weights file of `hf:owner/name[@revision]`.

    Raises:
        UsageError: not of that form.
        ModelError: as in `checked`, or a config.json that names no digest.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise UsageError(f"{name!r}: expected hf:owner/name or hf:owner/name@revision.")
    repository, revision = match[1], match[2]
    config = file(repository, CONFIG, revision)
    try:
        with config.open("rb") as stream:
            sha256 = json.loads(stream.read(_LARGEST_CONFIG))["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{name}: its {CONFIG} names no `sha256` of {WEIGHTS}; only models published with "
            "`csrecon models push` can be loaded."
        ) from error
    return checked(repository, WEIGHTS, revision, str(sha256))


def push(folder: Path, repository: str, private: bool) -> str:
    """Publish a folder of WEIGHTS, CONFIG and CARD; return the address of the commit.

    Raises:
        ModelError: offline, no access, or no connection.
    """
    if downloads.offline():
        raise ModelError("publishing needs the network, and it is switched off.")
    transfer.web_address(constants.ENDPOINT, "HF_ENDPOINT")
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="csrecon model"
        )
    except _FAULTS as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"hf:{repository}: cannot be published ({first}). `hf auth login` sets the token."
        ) from error
    return str(commit.commit_url)
