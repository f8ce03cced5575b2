"""One table for the terminal, Markdown, LaTeX and CSV.

Names of models, sets and images are shown as they are: none of them is markup or a formula, or ends
a line.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from csrecon.io.text import printable

_SYMBOLS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "−": "$-$",
    "±": r"$\pm$",
    "σ": r"$\sigma$",
    "Φ": r"$\Phi$",
    **{special: rf"\{special}" for special in "&%$#_{}"},
}
_BAR = r"\|"  # in a cell of Markdown
# What a spreadsheet takes for a formula; a number with its sign is none.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.]*(\s|$))")


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table, for tables that are printed line by line."""
    return f"| {' | '.join(printable(cell).replace('|', _BAR) for cell in cells)} |"


def unformulated(value: Any) -> Any:
    """A value for a CSV; a text that begins like a formula has an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


@dataclass(frozen=True)
class Table:
    """A header and lines of texts; the first `left` columns are left-aligned, the others right."""

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: int = 1

    def markdown(self) -> str:
        """A Markdown table."""
        rule = ["---"] * self.left + ["---:"] * (len(self.header) - self.left)
        rows = [self.header, rule, *self.lines]
        return "\n".join(map(line, rows)) + "\n"

    def latex(self, comment: str) -> str:
        """A table for a paper (needs the package booktabs), with its conditions as a comment."""
        rows = [" & ".join(map(_escaped, row)) + r" \\" for row in [self.header, *self.lines]]
        columns = "l" * self.left + "r" * (len(self.header) - self.left)
        return "\n".join(
            [
                f"% {printable(comment)}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                rows[0],
                r"\midrule",
                *rows[1:],
                r"\bottomrule",
                r"\end{tabular}",
                "",
            ]
        )

    def csv(self) -> str:
        """Comma-separated values."""
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(
            [unformulated(cell) for cell in row] for row in [self.header, *self.lines]
        )
        return stream.getvalue()


def _escaped(text: str) -> str:
    return "".join(_SYMBOLS.get(symbol, symbol) for symbol in printable(text))
