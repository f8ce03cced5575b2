"""`csrecon bench`: quality, seconds and memory of models on a set of images."""

from pathlib import Path
from typing import Annotated

import typer

from csrecon.cli import parse
from csrecon.cli.command import (
    Device,
    Json,
    Overwrite,
    Precision,
    Seed,
    log,
    progress,
    say,
    say_json,
    say_table,
)
from csrecon.errors import UsageError


def bench(
    dataset: Annotated[str, typer.Option(help="A named set (set11, bsd68, …) or a folder.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model name or .safetensors file; repeat for several.  [rcoast]"),
    ] = None,
    ratio: Annotated[
        str, typer.Option(help="Sampling ratios, separated by commas.")
    ] = "0.1,0.2,0.3,0.4,0.5",
    ipl: Annotated[
        list[str] | None,
        typer.Option(
            help="Iterations per layer, 6 or 4,4,4,6,6; repeat for several.", metavar="IPL"
        ),
    ] = None,
    ipls: Annotated[
        str | None, typer.Option(help="Several IPLs at once: 1..6 or 1,2,4.", metavar="IPLS")
    ] = None,
    seed: Seed = 0,
    protocol: Annotated[str, typer.Option(help="Scoring protocol: paper or standard.")] = "paper",
    limit: Annotated[
        int | None, typer.Option(help="Only the first N images of the set.", min=1, metavar="N")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder that holds the sets; else CSRECON_DATA, else the cache."),
    ] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", help="Report: .csv, .json or .md, or a folder for all; repeatable."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure models × ratios × IPLs on a set of images.

    Prints PSNR and SSIM, the paper's figures beside ours where there are any, seconds per image
    and peak memory (of the GPU, or of this process). Φ is gaussian, the same for every model and
    image of a ratio; --seed draws another.

    **Examples**

        csrecon bench --dataset bsd68
        csrecon bench --dataset set11 --ratio 0.1 --ipls 1..6
        csrecon bench --dataset photos/ --model rcoast --model mine.safetensors -o report/
    """
    from csrecon import bench as measuring
    from csrecon import datasets, execution, metrics, report
    from csrecon.solvers import SOLVERS

    names = model or ["rcoast"]
    if (ipl or ipls) and all(name in SOLVERS for name in names):
        raise UsageError(f"{', '.join(names)}: a classical solver has no layers; leave out --ipl.")
    if protocol not in metrics.PROTOCOLS:
        raise UsageError(
            f"--protocol {protocol!r}: expected one of {', '.join(metrics.PROTOCOLS)}."
        )
    chosen_protocol: metrics.Protocol = "paper" if protocol == "paper" else "standard"
    schedules = [parse.ipl(text) for text in ipl or []] + (parse.ipls(ipls) if ipls else [])
    targets = report.targets(output or [], overwrite)
    ratios = parse.ratios(ratio)
    paths = datasets.images(dataset, data_dir)[:limit]
    setup = execution.choose(device, precision)
    label = dataset if dataset in datasets.DATASETS else f"folder {Path(dataset).resolve().name}"
    if limit:
        label += f" (first {len(paths)})"
    conditions = report.Conditions(label, chosen_protocol, seed, str(setup.device), setup.precision)
    rows = []
    with progress() as bar:
        total = len({*names}) * len({*ratios}) * max(1, len({*schedules})) * len(paths)
        running = measuring.run(
            names, label, paths, ratios, schedules or [None], setup, seed, chosen_protocol
        )
        task = bar.add_task("bench", total=total)
        for row in running:
            rows.append(row)
            bar.update(
                task, advance=1, description=f"{Path(row.model).name} {row.ratio:g} IPL {row.ipl}"
            )
    cells = measuring.summarize(rows, chosen_protocol)
    if as_json:
        say_json(report.content(cells, rows, conditions))
    else:
        header, lines = report.listing(cells)
        say_table(header, lines)
        say(str(conditions))
    report.write(targets, cells, rows, conditions, overwrite)
    for target in targets:
        log.info("report: %s", target)
