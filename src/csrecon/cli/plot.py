"""`csrecon plot`: the figures of a benchmark, or of the iterates of models."""

from pathlib import Path
from typing import Annotated

import typer

from csrecon.cli.command import Json, Overwrite, say, say_json


def plot(
    reports: Annotated[
        list[Path],
        typer.Argument(
            help="JSON reports of `csrecon bench -o FILE.json`, or what `csrecon compare --json` "
            "or `csrecon reconstruct --json` printed; several of a kind are drawn together.",
            metavar="REPORT",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the figures.")] = Path(
        "figures"
    ),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw PSNR against ratio, IPL, seconds and parameters, where a report has several of them.

    Of the models that `csrecon compare --json` ran, draw PSNR, and of classical solvers also
    objective, residual, duality gap and strength, against the iteration and against seconds; of
    `csrecon reconstruct --json` the same without PSNR and seconds. Every figure is written as PNG
    and PDF, with its points as CSV beside it.

    **Example**

        csrecon bench --dataset set11 --ratio 0.1,0.5 --ipls 1..12 -o ipl.json
        csrecon plot ipl.json -o figures/
        csrecon compare img.png --model tv --model rcoast --json > both.json
        csrecon plot both.json -o figures/
        csrecon reconstruct y.npy --model tv --json > tv.json
        csrecon plot tv.json -o figures/
    """
    from csrecon.evaluation import convergence, figures
    from csrecon.io import files

    if convergence.is_list(reports[0]):
        files.refuse_inputs(convergence.outputs(output), reports)
        traces = [trace for report in reports for trace in convergence.read(report)]
        drawn = convergence.draw(traces, output, overwrite)
    else:
        files.refuse_inputs(figures.outputs(output), reports)
        cells = [cell for report in reports for cell in figures.read_cells(report)]
        drawn = figures.draw(cells, output, overwrite)
    written = [str(path) for path in drawn]
    if as_json:
        say_json(written)
    else:
        for path in written:
            say(path)
