"""One table for the terminal, Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

_SYMBOLS = {"×": r"$\times$", "−": "$-$", "±": r"$\pm$", "σ": r"$\sigma$", "Φ": r"$\Phi$"}


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table, for tables that are printed line by line."""
    return f"| {' | '.join(cells)} |"


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
                f"% {comment}",
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
        csv.writer(stream, lineterminator="\n").writerows([self.header, *self.lines])
        return stream.getvalue()


def _escaped(text: str) -> str:
    plain = re.sub(r"([&%$#_{}])", r"\\\1", text)
    return "".join(_SYMBOLS.get(symbol, symbol) for symbol in plain)
