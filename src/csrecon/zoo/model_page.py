"""The files that publish a model on the hub: its weights, config.json, and a model page."""

import json
import shutil
from pathlib import Path

from csrecon._version import __version__
from csrecon.errors import ModelError, UsageError
from csrecon.io import files
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.zoo import cards, hub, store, weights_file


def write(name: str, folder: Path, repository: str) -> None:
    """Write the files of a model's repository into a folder.

    Args:
        name: a model of the zoo, or the path of a .safetensors file that csrecon wrote.
        folder: created if necessary; existing files are not replaced.
        repository: owner/name, for the example on the page.

    Raises:
        UsageError: a file exists already, or a model with per-ratio weights.
        ModelError: no weights, or not a weights file that csrecon can load.
    """
    entry = cards.cards().get(name)
    if entry is not None and entry.per_ratio:
        raise UsageError(f"{name}: has per-ratio weights; publish one of its files by its path.")
    path = store.weights_path(name) if entry else Path(name)
    if path.suffix != ".safetensors":
        raise ModelError(f"{name!r}: neither a model of the zoo nor a .safetensors file.")
    weights_file.load(path)  # what nobody can load is not published
    blueprint = weights_file.read_blueprint(path)
    config = {
        "library": "csrecon",
        "version": __version__,
        "sha256": files.sha256_file(path),
        "blueprint": blueprint.model_dump(mode="json"),
    }
    targets = [folder / each for each in (hub.WEIGHTS, hub.CONFIG, hub.CARD)]
    with files.new_files(*targets) as (weights, configuration, page):
        shutil.copyfile(path, weights)
        configuration.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        page.write_text(_page(blueprint, entry, repository), encoding="utf-8")


def _page(blueprint: Blueprint, entry: cards.ModelCard | None, repository: str) -> str:
    """A model card in the hub's form: YAML front matter, then Markdown."""
    low, high = blueprint.trained.ratios
    schedule = blueprint.recursion.schedule
    lines = [
        "---",
        "library_name: csrecon",
        "tags: [compressive-sensing, image-reconstruction, deep-unfolding]",
        f"license: {entry.licence.lower() if entry else 'unknown'}",
        "---",
        f"# {entry.summary if entry else repository}",
        "",
        "Reconstructs images from compressive measurements y = Φx with "
        "[csrecon](https://pypi.org/project/csrecon/):",
        "",
        "```",
        "csrecon sample img.png --ratio 0.1",
        f"csrecon reconstruct y.npy --model hf:{repository}",
        "```",
        "",
        f"* block: {blueprint.block.name} {blueprint.block.options}",
        f"* modulation: {blueprint.modulation.name}; start: {blueprint.start.name}",
        f"* layers × iterations: {len(schedule)} × {max(schedule)}, up to "
        f"{blueprint.trained.max_ipl} iterations per layer allowed",
        f"* trained for ratios {low:g} to {high:g}",
    ]
    if entry is not None:
        lines += ["", entry.provenance, "", f"Source: {entry.source}"]
        for result in entry.measured:
            lines += ["", f"{result.dataset}, IPL {result.ipl}: {result.source}", ""]
            lines += ["| ratio | PSNR / dB | SSIM |", "|---|---|---|"]
            lines += [f"| {r:g} | {p:.2f} | {s:.4f} |" for r, (p, s) in result.values.items()]
    return "\n".join(lines) + "\n"
