"""`csrecon plot`: the figures of a benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from csrecon.cli.command import Json, Overwrite, say, say_json


def plot(
    report: Annotated[
        Path,
        typer.Argument(help="The JSON report of `csrecon bench -o FILE.json`.", metavar="REPORT"),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the figures.")] = Path(
        "figures"
    ),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw PSNR against ratio, IPL, seconds and parameters, where a report has several of them.

    Every figure is written as PNG and PDF, with its points as CSV beside it.

    **Example**

        csrecon bench --dataset set11 --ratio 0.1,0.5 --ipls 1..12 -o ipl.json
        csrecon plot ipl.json -o figures/
    """
    from csrecon.evaluation import figures
    from csrecon.io import files

    files.refuse_inputs(figures.outputs(output), [report])
    written = [str(p) for p in figures.draw(figures.read_cells(report), output, overwrite)]
    if as_json:
        say_json(written)
    else:
        for path in written:
            say(path)
