"""Cells of a benchmark as one table, and as CSV, Markdown and JSON files."""

import csv
import io
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import csrecon
from csrecon import files
from csrecon.bench import Plan
from csrecon.cells import Cell, Row
from csrecon.errors import UsageError
from csrecon.metrics import PROTOCOLS, Score, mean

_LPIPS = ", LPIPS 0.1 of AlexNet on gray as RGB"
SUFFIXES = (".csv", ".json", ".md", ".tex")


@dataclass(frozen=True)
class Conditions:
    """What the figures of a benchmark depend on besides the models and the images."""

    plan: Plan

    def facts(self) -> dict[str, Any]:
        """Everything worth keeping beside the figures."""
        return {
            "dataset": self.plan.dataset,
            "protocol": self.plan.protocol,
            "protocol_text": PROTOCOLS[self.plan.protocol] + _LPIPS * self.plan.lpips,
            "seeds": list(self.plan.seeds),
            "phi": f"{self.plan.kind}, {self.plan.block[0]}×{self.plan.block[1]} blocks, seed "
            + ", ".join(map(str, self.plan.seeds)),
            "noise_sigma": self.plan.noise_sigma,
            "device": str(self.plan.setup.device),
            "precision": self.plan.setup.precision,
            "threads": torch.get_num_threads(),
            "csrecon": csrecon.__version__,
            "torch": torch.__version__,
            "platform": f"{platform.system()} {platform.machine()}, Python "
            f"{platform.python_version()}",
        }

    def __str__(self) -> str:
        """One line under a table."""
        facts = self.facts()
        scored = "PSNR in dB / SSIM" + " / LPIPS" * self.plan.lpips
        noise = f"noise σ {self.plan.noise_sigma:g}; " if self.plan.noise_sigma else ""
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
    """The cells of each model and IPL."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.ipl), []).append(cell)
    return list(groups.values())


def table(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Header and lines as papers print them: a line per model and IPL, a column per ratio.

    The paper's line follows where it has figures; measured and published are never mixed.
    """
    ratios = [f"{cell.ratio:g}" for cell in _series(cells)[0]]
    header = ["model", "IPL", "figures", *ratios, "mean", "s/image", "peak MB"]
    lines = []
    for group in _series(cells):
        name, ipl = Path(group[0].model).name, group[0].ipl
        seconds = sum(cell.seconds for cell in group) / len(group)
        peak = max(cell.peak_memory or 0 for cell in group) / 2**20
        own, paper = [cell.score for cell in group], [cell.paper for cell in group]
        columns = [*(_pair(c.score, c.spread) for c in group), _pair(_average(own))]
        lines.append([name, ipl, "measured", *columns, f"{seconds:.3f}", f"{peak:.0f}"])
        if any(paper):
            columns = [_pair(score) for score in [*paper, _average(paper)]]
            lines.append([name, ipl, "paper", *columns, "", ""])
    return header, lines


def listing(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Header and lines for a terminal: a line per cell, and one per mean over the ratios."""
    scored = "PSNR / SSIM" + " / LPIPS" * any(cell.score.lpips is not None for cell in cells)
    header = ["model", "IPL", "ratio", scored, "paper", "s/image", "peak MB"]
    lines = []
    for group in _series(cells):
        name, ipl = Path(group[0].model).name, group[0].ipl
        for cell in group:
            peak = "" if cell.peak_memory is None else f"{cell.peak_memory / 2**20:.0f}"
            figures = [
                _pair(cell.score, cell.spread),
                _pair(cell.paper),
                f"{cell.seconds:.3f}",
                peak,
            ]
            lines.append([name, ipl, f"{cell.ratio:g}", *figures])
        if len(group) > 1:
            means = [_average([c.score for c in group]), _average([c.paper for c in group])]
            seconds = sum(cell.seconds for cell in group) / len(group)
            lines.append([name, ipl, "mean", *map(_pair, means), f"{seconds:.3f}", ""])
    return header, lines


Table = tuple[list[str], list[list[str]]]
"""A header and lines of texts."""


def to_markdown(content: Table, conditions: Conditions) -> str:
    """A table for a README, with its conditions below."""
    header, lines = content
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])
    return f"{body}\n\n{conditions}\n"


def to_latex(content: Table, conditions: Conditions) -> str:
    """A table for a paper (needs the package booktabs), with its conditions as a comment."""
    header, lines = content
    rows = [" & ".join(map(_escaped, line)) + r" \\" for line in [header, *lines]]
    return "\n".join(
        [
            f"% {conditions}",
            rf"\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


_SYMBOLS = {"×": r"$\times$", "−": "$-$", "±": r"$\pm$", "σ": r"$\sigma$", "Φ": r"$\Phi$"}


def _escaped(text: str) -> str:
    plain = re.sub(r"([&%$#_{}])", r"\\\1", text)
    return "".join(_SYMBOLS.get(symbol, symbol) for symbol in plain)


def to_csv(cells: Sequence[Cell]) -> str:
    """One line a cell, every field."""
    records = [_record(cell) for cell in cells]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
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
    return files.json_text(content(cells, rows, conditions))


def _record(cell: Cell) -> dict[str, Any]:
    """The fields of a cell, flat; the paper's are None where it has none."""
    record = asdict(cell)
    score, paper = record.pop("score"), record.pop("paper") or {"psnr": None, "ssim": None}
    score, paper = (
        {k: v for k, v in s.items() if k != "lpips" or v is not None} for s in (score, paper)
    )
    return {**record, **score, **{f"paper_{name}": value for name, value in paper.items()}}


def is_folder(output: Path) -> bool:
    """Whether an output that a user named is a folder, there or yet to be made."""
    return output.is_dir() or not output.suffix


def targets(outputs: Sequence[Path], overwrite: bool, stem: str = "bench") -> list[Path]:
    """The files that `-o` asks for; a name without suffix is a folder that gets one of each.

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
    paths = list(dict.fromkeys(paths))
    if paths:
        with files.new_files(*paths, overwrite=overwrite, publish=False):
            pass  # a folder that cannot be written is found before the work
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
                temporary.write_text(texts[temporary.suffix.lower()](), encoding="utf-8")


def texts(
    cells: Sequence[Cell], rows: Sequence[Row], conditions: Conditions
) -> dict[str, Callable[[], str]]:
    """What a report of these cells is in every format, by suffix."""
    return {
        ".csv": lambda: to_csv(cells),
        ".md": lambda: to_markdown(table(cells), conditions),
        ".tex": lambda: to_latex(table(cells), conditions),
        ".json": lambda: to_json(cells, rows, conditions),
    }
