"""Published tables and ablations: networks, data, and three kinds of results kept apart.

`paper` are the values of the paper; `authors` are the authors' weights, measured here; `csrecon`
are our weights, measured here. A preset with curves is also drawn: PSNR against total iterations.
"""

import itertools
import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from csrecon import zoo
from csrecon.errors import ModelError, UsageError, nearest
from csrecon.evaluation import report
from csrecon.evaluation.rows import Cell, Row, summarize
from csrecon.evaluation.table import Table
from csrecon.io.text import json_text
from csrecon.metrics import Protocol
from csrecon.zoo import cards

log = logging.getLogger(__name__)

Kind = Literal["paper", "authors", "csrecon"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Line(_Part):
    """A network of a table.

    Attributes:
        label: name in the paper.
        ipl: iterations per layer.
        ours, authors: entries of models.yaml, or solvers; authors None if no weights were released.
            The same entry as both is the authors' alone.
        psnr: the paper's PSNR in dB at the table's ratio, if no card has it.
        curve: label in a figure of the lines of one network at several IPLs.
        hours, fps: training hours and images per second in the paper.
    """

    label: str
    ipl: int = 1
    ours: str
    authors: str | None = None
    psnr: float | None = None
    curve: str | None = None
    hours: float | None = None
    fps: float | None = None


class Preset(_Part):
    """A table of the paper, or the comparison of one of its figures.

    In presets.yaml a line with `ipls` stands for one line per IPL, and its `psnr` is then the
    paper's PSNR by IPL.

    Attributes:
        ratios: the columns, m/n.
        noise: instead, the columns are denoising, with noise of these σ · 255.
        masks: Fourier sampling with the masks of k-space that belong to the set, one a ratio.
        published: PSNR in dB by column of methods that are not in csrecon, by label; null where
            none was published.
        seconds: whether the seconds of an image stand beside the quality.
    """

    title: str
    dataset: str
    ratios: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    noise: tuple[float, ...] = ()
    masks: bool = False
    published: dict[str, tuple[float | None, ...]] = {}
    seconds: bool = False
    lines: tuple[Line, ...] = Field(min_length=1)

    @field_validator("lines", mode="before")
    @classmethod
    def _a_line_an_ipl(cls, lines: Sequence[Any]) -> list[Any]:
        return [one for line in lines for one in _at_every_ipl(line)]

    @property
    def curves(self) -> bool:
        """Whether it has a figure."""
        return any(line.curve for line in self.lines)

    @property
    def columns(self) -> dict[float, str]:
        """The columns: ratio, or noise σ, and what is written above."""
        if self.noise:
            return {level / 255: f"σ {level:g}/255" for level in self.noise}
        return {ratio: f"{100 * ratio:g} %" for ratio in self.ratios}

    @property
    def kind(self) -> str | None:
        """The kind of operator; None for block sampling with a Gaussian Φ."""
        return "identity" if self.noise else "fourier" if self.masks else None

    def column(self, cell: Cell) -> float:
        """The column of a cell."""
        return cell.noise_sigma if self.noise else cell.ratio

    @property
    def timed(self) -> bool:
        """Whether it compares seconds, which depend on the load of the machine."""
        return self.lines[0].fps is not None


def _at_every_ipl(line: Any) -> list[Any]:
    if not isinstance(line, dict) or "ipls" not in line:
        return [line]
    fields = {key: value for key, value in line.items() if key not in ("ipls", "psnr")}
    printed, curve = line.get("psnr", {}), line["label"]
    if unknown := printed.keys() - line["ipls"]:
        raise ValueError(f"{curve}: a value of the paper for IPL {unknown}, which is not run")
    return [
        {
            **fields,
            "label": f"{curve}, IPL {ipl}",
            "curve": curve,
            "ipl": ipl,
            "psnr": printed.get(ipl),
        }
        for ipl in line["ipls"]
    ]


@dataclass(frozen=True)
class Result:
    """One kind of results of one line: cells by column, or the reason why there are none."""

    line: Line
    kind: Kind
    cells: dict[float, Cell]
    reason: str = ""


@cache
def presets() -> dict[str, Preset]:
    """All presets by name."""
    text = Path(__file__).with_name("presets.yaml").read_text(encoding="utf-8")
    return {name: Preset(**fields) for name, fields in yaml.safe_load(text).items()}


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        UsageError: an unknown name; the message names the closest one.
    """
    if name not in presets():
        raise UsageError(f"no preset {name!r}: {nearest(name, presets())}")
    return presets()[name]


Runner = Callable[[str, Sequence[float], Sequence[int]], Iterator[Row]]
"""Runs a model at some ratios and IPLs."""


def run(table: Preset, runner: Runner, protocol: Protocol = "paper") -> Iterator[Result]:
    """Run a table; yield the results of each line, ours after the authors'.

    A model whose weights are unavailable has a reason instead of results.
    """
    for _, group in itertools.groupby(table.lines, lambda line: line.curve or line.label):
        lines = list(group)
        ours, authors = lines[0].ours, lines[0].authors
        kinds: list[tuple[Kind, str | None]] = [("csrecon", ours)] if ours != authors else []
        # Tables of seconds have ours alone: the same network takes the same time. So have those
        # whose lines are no networks of the paper.
        alone = table.timed or table.seconds or table.noise or table.masks
        if not alone or not kinds:
            kinds.insert(0, ("authors", authors))
        found = [_measured(lines, kind, name, table, runner, protocol) for kind, name in kinds]
        for results in zip(*found, strict=True):
            yield from results


def _measured(
    lines: Sequence[Line],
    kind: Kind,
    name: str | None,
    table: Preset,
    runner: Runner,
    protocol: Protocol,
) -> list[Result]:
    """The results of the lines of one network."""

    def nothing(reason: str) -> list[Result]:
        return [Result(line, kind, {}, reason) for line in lines]

    if name is None:
        return nothing("no weights were released")
    entry = None if zoo.is_solver(name) else cards.card(name)
    if entry and entry.weights is None:
        return nothing("not trained yet")
    ratios = []
    for ratio in table.ratios:
        try:
            if entry:
                entry.weights_at(ratio)
            ratios.append(ratio)
        except ModelError:
            continue
    try:
        cells = summarize(list(runner(name, ratios, [line.ipl for line in lines])), protocol)
    except ModelError as error:
        log.warning("%s", error)
        return nothing("weights unavailable here")
    return [
        Result(line, kind, {table.column(c): c for c in cells if c.ipl in ("", str(line.ipl))})
        for line in lines
    ]


def _pair(psnr: float, ssim: float | None) -> str:
    return f"{psnr:.2f}" if ssim is None else f"{psnr:.2f} / {ssim:.4f}"


def published(line: Line, table: Preset) -> dict[float, tuple[float, float | None]]:
    """The paper's PSNR and SSIM (None if it has none) of a line, by column."""
    if line.psnr is not None:
        return {table.ratios[0]: (line.psnr, None)}
    if line.ours not in cards.cards():
        return {}
    found = {
        ratio: cards.card(line.ours).published_at(table.dataset, "paper", str(line.ipl), ratio)
        for ratio in table.ratios
    }
    return {ratio: pair for ratio, pair in found.items() if pair}


def quality(table: Preset, results: Sequence[Result]) -> Table:
    """PSNR and SSIM: paper, authors' weights, ours, and ours minus the paper."""
    several = ["mean"] if len(table.columns) > 1 else []
    timed = ["s/image"] if table.seconds else []
    header = ["network", "figures", *table.columns.values(), *several, *timed]
    lines: list[list[str]] = []
    for label, psnrs in table.published.items():
        columns_of = zip(table.columns, psnrs, strict=True)
        known = {at: (psnr, None) for at, psnr in columns_of if psnr is not None}
        lines.append([label, "published", *_columns(known, table)])
    for line in table.lines:
        printed = published(line, table)
        rows = [["paper", *_columns(printed, table)]] if printed else []
        own: dict[float, tuple[float, float | None]] = {}
        for result in (r for r in results if r.line == line):
            pairs: dict[float, tuple[float, float | None]] = {
                r: (c.score.psnr, c.score.ssim) for r, c in result.cells.items()
            }
            if result.kind == "csrecon":
                own = pairs
            columns = _columns(pairs, table)
            if result.reason:
                columns[0] = result.reason
            elif table.seconds and result.cells:
                columns.append(f"{_seconds(result):.2f}")
            kind = "authors' weights, here" if result.kind == "authors" else "csrecon"
            rows.append([kind, *columns])
        if own and printed:
            gaps = {r: own[r][0] - printed[r][0] for r in own.keys() & printed}
            texts = [f"{gaps[r]:+.2f}" if r in gaps else "" for r in table.columns]
            whole = len(gaps) == len(table.columns)
            texts += [f"{sum(gaps.values()) / len(gaps):+.2f}" if whole else "" for _ in several]
            rows.append(["csrecon − paper (dB)", *texts])
        lines += [[line.label if row is rows[0] else "", *row] for row in rows]
    lines = [[*line, *[""] * (len(header) - len(line))] for line in lines]
    return Table(header, lines, left=2)


def _seconds(result: Result) -> float:
    """Seconds of an image, the mean over the columns."""
    return statistics.fmean(cell.seconds for cell in result.cells.values())


def _columns(pairs: Mapping[float, tuple[float, float | None]], table: Preset) -> list[str]:
    texts = [_pair(*pairs[at]) if at in pairs else "" for at in table.columns]
    if len(texts) == 1:
        return texts
    known = [pairs[at] for at in table.columns if at in pairs]
    if len(known) < len(texts):
        return [*texts, ""]
    psnr = sum(p for p, _ in known) / len(known)
    similar = [s for _, s in known if s is not None]
    ssim = sum(similar) / len(similar) if len(similar) == len(known) else None
    return [*texts, _pair(psnr, ssim)]


def speed(table: Preset, results: Sequence[Result]) -> Table:
    """Training hours and images per second: the paper's, and ours here."""
    header = [
        "network", "parameters", "paper: hours", "paper: images/s", "here: s/image",
        "here: images/s",
    ]  # fmt: skip
    lines = []
    for line in table.lines:
        ours = next(r for r in results if r.line == line and r.kind == "csrecon")
        seconds = _seconds(ours) if ours.cells else None
        lines.append(
            [
                line.label,
                f"{cards.card(line.ours).parameters:,}",
                f"{line.hours:.2f}",
                f"{line.fps:.2f}",
                f"{seconds:.3f}" if seconds else ours.reason,
                f"{1 / seconds:.2f}" if seconds else "",
            ]
        )
    return Table(header, lines, left=2)


def table_of(table: Preset, results: Sequence[Result]) -> Table:
    """The table for the terminal."""
    return (speed if table.timed else quality)(table, results)


def texts(
    table: Preset, results: Sequence[Result], conditions: report.Conditions
) -> dict[str, Callable[[], str]]:
    """The report of the table in every format, by suffix."""
    content = table_of(table, results)

    def to_json() -> str:
        return json_text(
            {
                "title": table.title,
                "conditions": conditions.facts(),
                "results": [
                    {
                        "network": result.line.label,
                        "figures": result.kind,
                        "reason": result.reason,
                        "cells": [asdict(cell) for cell in result.cells.values()],
                        "paper": {str(r): p for r, p in published(result.line, table).items()},
                    }
                    for result in results
                ],
            }
        )

    return {
        ".csv": content.csv,
        ".md": lambda: report.to_markdown(content, conditions),
        ".tex": lambda: content.latex(str(conditions)),
        ".json": to_json,
    }
