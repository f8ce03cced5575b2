"""Cells of a benchmark as one table, and as CSV, Markdown and JSON files."""

import csv
import io
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from csrecon._version import __version__
from csrecon.errors import UsageError
from csrecon.evaluation.bench import Plan
from csrecon.evaluation.rows import Cell, Row
from csrecon.evaluation.table import Table, unformulated
from csrecon.io import files
from csrecon.io.text import json_text, printable
from csrecon.metrics import PROTOCOLS, Score, mean
from csrecon.sensing import beside
from csrecon.sensing.operators import KINDS
from csrecon.sensing.operators.kinds import default_block

_LPIPS = ", LPIPS 0.1 of AlexNet on gray as RGB"
SUFFIXES = (".csv", ".json", ".md", ".tex")


@dataclass(frozen=True)
class Conditions:
    """The conditions of a benchmark besides the models and the images."""

    plan: Plan

    def facts(self) -> dict[str, Any]:
        """All conditions, for JSON."""
        return {
            "dataset": self.plan.dataset,
            "protocol": self.plan.protocol,
            "protocol_text": PROTOCOLS[self.plan.protocol] + _LPIPS * self.plan.lpips,
            "seeds": list(self.plan.seeds),
            "phi": f"{self._kinds()}, {self._drawn()}",
            "noise_sigma": list(self.plan.noise_sigmas),
            "device": str(self.plan.setup.device),
            "precision": self.plan.setup.precision,
            "threads": torch.get_num_threads(),
            "csrecon": __version__,
            "torch": torch.__version__,
            "platform": f"{platform.system()} {platform.machine()}, Python "
            f"{platform.python_version()}",
        }

    def _kinds(self) -> str:
        """Kinds of Φ or operator, and blocks, as text."""
        texts = []
        for kind in self.plan.kinds:
            if kind not in KINDS:
                texts.append(kind)
                continue
            sides = [side or default_block(kind)[0] for side in self.plan.blocks]
            texts.append(f"{kind}, {' and '.join(f'{s}×{s}' for s in sides)} blocks")
        return "; ".join(texts)

    def _drawn(self) -> str:
        if self.plan.masks:
            return "masks that belong to the set"
        return f"seed {', '.join(map(str, self.plan.seeds))}"

    def __str__(self) -> str:
        """One line under a table."""
        facts = self.facts()
        scored = "PSNR in dB / SSIM" + " / LPIPS" * self.plan.lpips
        sigmas = ", ".join(f"{sigma:g}" for sigma in self.plan.noise_sigmas)
        noise = f"noise σ {sigmas}; " if any(self.plan.noise_sigmas) else ""
        return (
            f"{self.plan.dataset}; {scored}: {facts['protocol_text']}; "
            f"Φ {facts['phi']}; {noise}{self.plan.setup}, {facts['threads']} threads; "
            f"csrecon {facts['csrecon']}, torch {facts['torch']}."
        )


def _average(scores: Sequence[Score | None]) -> Score | None:
    known = [score for score in scores if score is not None]
    return mean(known) if len(known) == len(scores) else None


def _pair(score: Score | None, spread: float | None = None) -> str:
    if score is None:
        return ""
    around = "" if spread is None else f" ± {spread:.2f}"
    perceptual = "" if score.lpips is None else f" / {score.lpips:.4f}"
    return f"{score.psnr:.2f}{around} / {score.ssim:.4f}{perceptual}"


def _series(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of each model, IPL and condition."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.ipl, cell.condition), []).append(cell)
    return list(groups.values())


def _names(group: Sequence[Cell], conditioned: bool) -> list[str]:
    """Model, IPL and, if there are several, the condition."""
    first = group[0]
    return [Path(first.model).name, first.ipl, *([first.condition or "paper"] * conditioned)]


def table(cells: Sequence[Cell]) -> Table:
    """A table as in papers: a line per model and IPL, a column per ratio.

    A line with the paper's results follows if there are any; the two are never mixed.
    """
    conditioned = any(cell.condition for cell in cells)
    ratios = [f"{cell.ratio:g}" for cell in _series(cells)[0]]
    names = ["model", "IPL", *(["Φ, noise"] * conditioned), "figures"]
    lines = []
    for group in _series(cells):
        named = _names(group, conditioned)
        seconds = sum(cell.seconds for cell in group) / len(group)
        peak = max(cell.peak_memory or 0 for cell in group) / 2**20
        own, paper = [cell.score for cell in group], [cell.paper for cell in group]
        columns = [*(_pair(c.score, c.spread) for c in group), _pair(_average(own))]
        lines.append([*named, "measured", *columns, f"{seconds:.3f}", f"{peak:.0f}"])
        if any(paper):
            columns = [_pair(score) for score in [*paper, _average(paper)]]
            lines.append([*named, "paper", *columns, "", ""])
    return Table([*names, *ratios, "mean", "s/image", "peak MB"], lines, left=2 + conditioned)


def listing(cells: Sequence[Cell]) -> Table:
    """A table for a terminal: a line per cell, and one per mean over the ratios."""
    scored = "PSNR / SSIM" + " / LPIPS" * any(cell.score.lpips is not None for cell in cells)
    conditioned = any(cell.condition for cell in cells)
    names = ["model", "IPL", *(["Φ, noise"] * conditioned)]
    lines = []
    for group in _series(cells):
        named = _names(group, conditioned)
        for cell in group:
            peak = "" if cell.peak_memory is None else f"{cell.peak_memory / 2**20:.0f}"
            figures = [
                _pair(cell.score, cell.spread),
                _pair(cell.paper),
                f"{cell.seconds:.3f}",
                peak,
            ]
            lines.append([*named, f"{cell.ratio:g}", *figures])
        if len(group) > 1:
            means = [_average([c.score for c in group]), _average([c.paper for c in group])]
            seconds = sum(cell.seconds for cell in group) / len(group)
            lines.append([*named, "mean", *map(_pair, means), f"{seconds:.3f}", ""])
    header = [*names, "ratio", scored, "paper", "s/image", "peak MB"]
    return Table(header, lines, left=1 + 2 * conditioned)


def to_markdown(table: Table, conditions: Conditions) -> str:
    """A table for a document, with its conditions below."""
    return f"{table.markdown()}\n{printable(str(conditions))}\n"


def to_csv(cells: Sequence[Cell]) -> str:
    """One line per cell, with every field."""
    records = [_record(cell) for cell in cells]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: unformulated(v) for k, v in record.items()} for record in records)
    return stream.getvalue()


def content(cells: Sequence[Cell], rows: Sequence[Row], conditions: Conditions) -> dict[str, Any]:
    """Conditions, cells, and the row of every image."""
    return {
        "conditions": conditions.facts(),
        "cells": [_record(cell) for cell in cells],
        "rows": [asdict(row) for row in rows],
    }


def to_json(cells: Sequence[Cell], rows: Sequence[Row], conditions: Conditions) -> str:
    """The content of a report as JSON."""
    return json_text(content(cells, rows, conditions))


def _record(cell: Cell) -> dict[str, Any]:
    """The fields of a cell, flat; the paper's are None if it has none."""
    record = asdict(cell)
    score, paper = record.pop("score"), record.pop("paper") or {"psnr": None, "ssim": None}
    score, paper = (
        {k: v for k, v in s.items() if k != "lpips" or v is not None} for s in (score, paper)
    )
    return {**record, **score, **{f"paper_{name}": value for name, value in paper.items()}}


def is_folder(output: Path) -> bool:
    """Whether an output names a folder, existing or not."""
    return output.is_dir() or not output.suffix


def targets(outputs: Sequence[Path], overwrite: bool, stem: str = "bench") -> list[Path]:
    """The files of `-o`; a name without suffix is a folder for one report in each format.

    Raises:
        UsageError: another suffix, or a file that exists.
    """
    paths: list[Path] = []
    for output in outputs:
        if is_folder(output):
            paths += [output / f"{stem}{suffix}" for suffix in SUFFIXES]
        elif output.suffix.lower() in SUFFIXES:
            paths.append(output)
        else:
            raise UsageError(f"{output}: a report ends in {', '.join(SUFFIXES)}, or is a folder.")
    paths = list({path.resolve(): path for path in paths}.values())
    beside.refuse_sidecars(paths)
    if paths:
        files.check_writable(*paths, overwrite=overwrite)  # fails before any work
    return paths


def write(
    paths: Sequence[Path],
    texts: Mapping[str, Callable[[], str]],
    overwrite: bool = False,
) -> None:
    """Write the reports, each with the text of its suffix.

    Raises:
        UsageError: a file exists and `overwrite` is false.
        ResourceError: a file cannot be written.
    """
    if paths:
        with files.new_files(*paths, overwrite=overwrite) as temporaries:
            for temporary in temporaries:
                text = texts[temporary.suffix.lower()]()
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def texts(
    cells: Sequence[Cell], rows: Sequence[Row], conditions: Conditions
) -> dict[str, Callable[[], str]]:
    """The report of these cells in every format, by suffix."""
    return {
        ".csv": lambda: to_csv(cells),
        ".md": lambda: to_markdown(table(cells), conditions),
        ".tex": lambda: table(cells).latex(str(conditions)),
        ".json": lambda: to_json(cells, rows, conditions),
    }
