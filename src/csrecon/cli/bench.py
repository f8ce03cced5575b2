"""`csrecon bench`: quality, seconds and memory of models on a set of images."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csrecon import _default
from csrecon.cli import parse, torchrun
from csrecon.cli.command import (
    DataDir,
    Device,
    Json,
    Overwrite,
    Precision,
    Seed,
    Tile,
    log,
    progress,
    say,
    say_as_is,
    say_table,
)
from csrecon.errors import UsageError

if TYPE_CHECKING:
    from csrecon.evaluation.bench import Plan
    from csrecon.evaluation.cache import ResultCache
    from csrecon.evaluation.presets import Preset, Result
    from csrecon.evaluation.rows import Row
    from csrecon.evaluation.table import Table


_RATIOS = "0.1,0.2,0.3,0.4,0.5"
_MOST_SEEDS, _MOST_JOBS = 10**6, 1024


def bench(
    dataset: Annotated[
        str | None, typer.Option(help="A named set (set11, bsd68, …) or a folder.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Instead, a table or an ablation of the paper: table1, table2, ablation, fig6 "
            "(recursion), fig7 (RFMU) or fig8 (IPL); denoise, noise of σ 15, 25 and 50 of 255; or "
            "solvers, all classical solvers beside networks; or mri, five masks of k-space."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model names, separated by commas, each with its options; .safetensors files or "
            "hf:owner/name; repeatable.  "
            f"[{_default.MODEL}]"
        ),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(help="Sampling ratios, separated by commas.  [0.1,0.2,0.3,0.4,0.5]"),
    ] = None,
    ipl: Annotated[
        list[str] | None,
        typer.Option(
            help="Iterations per layer: 6, or one per layer as 4,4,4,6,6; repeatable.",
            metavar="IPL",
        ),
    ] = None,
    ipls: Annotated[
        str | None,
        typer.Option(
            help="Several IPLs at once, as far as a model allows them: 1..6 or 1,2,4.",
            metavar="IPLS",
        ),
    ] = None,
    seed: Seed = 0,
    seeds: Annotated[
        int,
        typer.Option(
            help="Number of seeds of Φ, from --seed on: mean ± standard deviation.",
            min=1,
            max=_MOST_SEEDS,
        ),
    ] = 1,
    kind: Annotated[
        str, typer.Option(help="Kinds of Φ or of operator, as in `sample`, separated by commas.")
    ] = "gaussian",
    block: Annotated[
        str | None,
        typer.Option(
            help="Sides of a block in pixels, separated by commas.  [33; 32 for hadamard]"
        ),
    ] = None,
    noise_sigma: Annotated[
        str, typer.Option(help="Standard deviations of Gaussian noise on y, separated by commas.")
    ] = "0",
    protocol: Annotated[str, typer.Option(help="Scoring protocol: paper or standard.")] = "paper",
    figures: Annotated[
        str,
        typer.Option(
            "--metrics",
            help="psnr,ssim, or psnr,ssim,lpips (an extra; downloads AlexNet once, 233 MiB).",
        ),
    ] = "psnr,ssim",
    limit: Annotated[
        int | None, typer.Option(help="Only the first N images of the set.", min=1, metavar="N")
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            help="Images of one shape per batch; each has an equal share of the seconds. Classical "
            "solvers take one.",
            min=1,
        ),
    ] = 1,
    data_dir: DataDir = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
    jobs: Annotated[
        int,
        typer.Option(
            help="Processes that share the work; implies --resume.", min=1, max=_MOST_JOBS
        ),
    ] = 1,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep finished rows in the result cache, and reuse them."),
    ] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help="Report: .csv, .json, .md or .tex, or a folder for all; repeatable.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure models × ratios × IPLs on a set of images, or a whole table of the paper.

    Prints PSNR and SSIM (and LPIPS with --metrics), the paper's results beside ours if there are
    any, seconds per image and peak memory (of the GPU, or of this process). At one ratio all models
    and images have the same Φ; --seed draws another, --kind chooses another kind of Φ. A preset
    lists separately the paper's results, those of the authors' weights measured here, and ours. It
    takes finished rows from the result cache, except for the seconds of table2. The plots of fig6,
    fig7 and fig8 are written to the folder of -o.

    **Examples**

        csrecon bench --dataset bsd68
        csrecon bench --dataset set11 --ratio 0.1 --ipls 1..12 --resume
        csrecon bench --dataset photos/ --model rcoast --model mine.safetensors -o report/
        csrecon bench --dataset set11 --kind gaussian,hadamard,dct --ratio 0.25
        csrecon bench --dataset set11 --noise-sigma 0,0.02,0.1 --model rcoast-noise
        csrecon bench --dataset set11 --model tv,tval3,fista:transform=wavelet,lasso,omp
        csrecon bench --preset table1 --jobs 4 -o table1/
        csrecon bench --preset fig8 -o fig8/
        csrecon bench --preset denoise --jobs 2
        csrecon bench --preset solvers -o solvers/
        csrecon bench --preset mri -o mri/
        torchrun --nproc-per-node 8 -m csrecon bench --preset table1
    """
    from csrecon import metrics, zoo
    from csrecon.evaluation import bench as measuring
    from csrecon.evaluation import cache, presets, report
    from csrecon.evaluation.rows import summarize
    from csrecon.runtime import execution
    from csrecon.zoo import datasets

    perceptual = parse.lpips(figures)
    sigmas = parse.sigmas(noise_sigma)
    own = (model, ratio is not None, ipl, ipls, block, any(sigmas), kind != "gaussian", perceptual)
    shared = resume or jobs > 1 or batch > 1 or torchrun.launched()
    table = _table(dataset, preset, any(own), shared)
    names = [name for text in model or [_default.MODEL] for name in zoo.split_names(text)]
    if (ipl or ipls) and all(map(zoo.is_solver, names)):
        raise UsageError(f"{', '.join(names)}: a classical solver has no layers; leave out --ipl.")
    schedules = [parse.ipl(text) for text in ipl or []] + (parse.ipls(ipls) if ipls else [])
    targets = report.targets(output or [], overwrite, preset or "bench")
    folder = _figure_folder(table, output or [], overwrite)
    ratios = parse.ratios(_RATIOS if ratio is None else ratio)
    source = table.dataset if table else str(dataset)
    paths = datasets.images(source, data_dir)[:limit]
    _keep_inputs([*paths, *map(Path, names)], targets, folder)
    label = source if source in datasets.DATASETS else _folder(source)
    if limit:
        label += f" (first {len(paths)})"
    with torchrun.processes(device) as (chosen, rank, world):
        plan = measuring.Plan(
            label,
            paths,
            execution.choose(chosen, precision, tile),
            range(seed, seed + seeds),
            metrics.protocol(protocol),
            list(table.columns) if table and table.noise else sigmas,
            [table.kind] if table and table.kind else [part.strip() for part in kind.split(",")],
            parse.blocks(block),
            perceptual,
            batch,
            _masks(table, data_dir),
        )
        keep = resume or bool(table and not table.timed) or jobs > 1 or world > 1
        work = _Work(plan, cache.default() if keep else None, jobs, rank, world)
        conditions = report.Conditions(plan)
        if table:
            results = list(presets.run(table, lambda n, r, i: work.rows([n], r, i), plan.protocol))
            content = presets.table_of(table, results)
            texts = presets.texts(table, results, conditions)
        else:
            rows = list(work.rows(names, ratios, schedules or [None]))
            cells = summarize(rows, plan.published)
            content = report.listing(cells)
            texts = report.texts(cells, rows, conditions)
    if rank:
        return
    try:
        report.write(targets, texts, overwrite)
        drawn = _drawn(table, results, folder, overwrite) if table else []
    finally:  # a full disk loses one of the two at most
        if as_json:
            say_as_is(texts[".json"]())
        else:
            _say(table.title if table else None, content, str(conditions))
    for target in [*targets, *drawn]:
        log.info("report: %s", target)


def _say(title: str | None, content: "Table", conditions: str) -> None:
    if title:
        say(title)
    say_table(content.header, content.lines, content.left)
    say(conditions)


def _masks(table: "Preset | None", data_dir: Path | None) -> dict[float, Path]:
    """The files of the masks of a preset, by ratio; empty if it has none."""
    from csrecon.zoo import datasets

    if table is None or not table.masks:
        return {}
    return {ratio: datasets.mask(table.dataset, ratio, data_dir) for ratio in table.ratios}


def _folder(source: str) -> str:
    return f"folder {Path(os.path.realpath(source)).name}"


def _drawn(
    table: "Preset", results: "Sequence[Result]", folder: Path | None, overwrite: bool
) -> list[Path]:
    """The files of the figure of a preset with curves; a note if there is no folder for it."""
    from csrecon.evaluation import figures

    if folder:
        return figures.draw_preset(table, results, folder, overwrite)
    if table.curves:
        log.info("-o FOLDER also draws this as a figure.")
    return []


def _figure_folder(table: "Preset | None", outputs: Sequence[Path], overwrite: bool) -> Path | None:
    """The folder for the figure of a preset with curves: the first folder of -o, if any.

    Raises:
        UsageError: the figure exists already.
    """
    from csrecon.evaluation import figures, report
    from csrecon.io import files

    folder = next((path for path in outputs if report.is_folder(path)), None)
    if table is None or folder is None or not table.curves:
        return None

    files.refuse_existing(*figures.preset_paths(folder), overwrite=overwrite)
    return folder


def _keep_inputs(inputs: Sequence[Path], targets: Sequence[Path], folder: Path | None) -> None:
    """Raise UsageError if a report or a figure would replace an image or weights."""
    from csrecon.evaluation import figures
    from csrecon.io import files

    drawn = figures.preset_paths(folder) if folder else []
    files.refuse_inputs([*targets, *drawn], inputs)


def _table(dataset: str | None, preset: str | None, chosen: bool, shared: bool) -> "Preset | None":
    """The preset that was asked for, if any.

    Raises:
        UsageError: neither or both of set and preset, a preset with options that it defines
            itself, or timings that would be shared between processes or cached.
    """
    from csrecon.evaluation import presets

    if (dataset is None) == (preset is None):
        raise UsageError("give a set of images with --dataset, or a table with --preset.")
    if preset and chosen:
        raise UsageError(
            f"--preset {preset} has its own models, ratios, IPLs, Φ and metrics: leave them out."
        )
    table = presets.preset(preset) if preset else None
    if table and table.timed and shared:
        raise UsageError(
            f"--preset {preset} measures the seconds of one image in one process, without the "
            "result cache: leave out --resume, --jobs and --batch."
        )
    return table


@dataclass(frozen=True)
class _Work:
    """Runs the benchmark: in this process, in several that it starts, or in those of torchrun."""

    plan: "Plan"
    results_cache: "ResultCache | None"
    jobs: int
    rank: int
    world: int

    def rows(
        self,
        names: Sequence[str],
        ratios: Sequence[float],
        schedules: Sequence[int | tuple[int, ...] | None],
    ) -> Iterator["Row"]:
        """The rows, in order; if work is shared, every process first computes its share."""
        from csrecon.evaluation import bench as measuring

        plan, results_cache = self.plan, self.results_cache
        label = f"bench {', '.join(Path(name).name for name in names)}"
        with progress() as bar:
            if results_cache and self.world > 1:
                share = (self.rank, self.world)
                for _ in measuring.run(names, ratios, schedules, plan, results_cache, share):
                    pass
                torchrun.wait()
                results_cache.read()
            elif results_cache and self.jobs > 1:
                task = bar.add_task(f"{label}, {self.jobs} processes", total=self.jobs)
                for done in measuring.spread(
                    self.jobs, names, ratios, schedules, plan, results_cache
                ):
                    bar.update(task, completed=done)
            if self.rank:
                return
            count = len({*names}) * len({*ratios}) * len({*schedules}) * len(plan.conditions())
            task = bar.add_task(label, total=count * len(plan.paths) * len(plan.seeds))
            for row in measuring.run(names, ratios, schedules, plan, results_cache):
                bar.update(task, advance=1, description=f"{label} {row.ratio:g} IPL {row.ipl}")
                yield row
