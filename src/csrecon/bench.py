"""Measuring reconstructors: models × ratios × IPLs on a set of images -> rows."""

import hashlib
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch

import csrecon
from csrecon import api, cards, depot, execution, files, images, metrics, perceptual
from csrecon.allocator import keep_freed_memory
from csrecon.cells import Row
from csrecon.journal import Journal, key_of
from csrecon.measurement import Measurement
from csrecon.metrics import Protocol, Score
from csrecon.noise import Noise
from csrecon.operators import BlockOperator, Sampling, count_measurements, make
from csrecon.operators.kinds import DEFAULT_SIDE
from csrecon.recursion import Reconstructor, Schedule, Unfolding

log = logging.getLogger(__name__)

_CPU = torch.device("cpu")
PAPER_BLOCK = (DEFAULT_SIDE, DEFAULT_SIDE)


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes: of the CUDA device since its last reset, else of this process; None unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _timed(
    model: Reconstructor, m: Measurement, schedule: Schedule | None, setup: execution.Setup
) -> tuple[torch.Tensor, float]:
    if setup.device.type == "cuda":
        torch.cuda.synchronize(setup.device)
        torch.cuda.reset_peak_memory_stats(setup.device)
    began = time.perf_counter()
    image = execution.final(execution.steps(model, m, schedule, setup)).image
    return image, time.perf_counter() - began


@dataclass(frozen=True)
class Plan:
    """On what to measure, and how.

    Attributes:
        dataset: what to call the set in the rows.
        paths: the image files; luma is measured and scored.
        setup: the device and the precision.
        seeds: of Φ; every one is measured.
        protocol: how to score, a name of metrics.PROTOCOLS.
        noise_sigma: standard deviation of Gaussian noise on y.
        kind: of Φ, a name of operators.KINDS.
        block: pixels of a block, (height, width).
        lpips: whether to score with LPIPS too.
        batch: how many images of one shape are reconstructed at once; seconds are then a share.
    """

    dataset: str
    paths: Sequence[Path]
    setup: execution.Setup
    seeds: Sequence[int] = (0,)
    protocol: Protocol = "paper"
    noise_sigma: float = 0.0
    kind: str = "gaussian"
    block: tuple[int, int] = PAPER_BLOCK
    lpips: bool = False
    batch: int = 1

    @property
    def published(self) -> Protocol | None:
        """The protocol whose printed figures these compare with; None where no paper measured."""
        as_printed = self.kind == "gaussian" and self.block == PAPER_BLOCK
        return self.protocol if as_printed and not self.noise_sigma else None


def evaluate(
    model: Reconstructor,
    pictures: Sequence[images.Picture],
    phi: Sampling,
    schedule: Schedule | None,
    plan: Plan,
) -> list[tuple[Score, float]]:
    """Sample pictures of one shape with Φ, reconstruct them at once, and score each.

    Returns:
        The score and the seconds of each. The noise on y is the same at every call.

    Raises:
        UsageError: several pictures and noise.
    """
    height, width = pictures[0].planes.shape[-2:]
    operator = BlockOperator(phi, (height, width), plan.block)
    measured = []
    for picture in pictures:
        clean = Measurement.of(operator, operator(picture.planes), picture.format)
        measured.append(Noise(plan.noise_sigma).added(clean, picture.planes, seed=0))
    planes, seconds = _timed(model, Measurement.stacked(measured), schedule, plan.setup)
    found = []
    for image, picture in zip(torch.split(planes, 1), pictures, strict=True):
        score = metrics.score(image, picture.planes, plan.protocol)
        if plan.lpips:
            shown = metrics.shown(image, plan.protocol).float()
            distance = perceptual.lpips(shown, picture.planes.transpose(0, 1))
            score = replace(score, lpips=float(distance))
        found.append((score, seconds / len(pictures)))
    return found


def run(
    models: Sequence[str],
    ratios: Sequence[float],
    ipls: Sequence[int | tuple[int, ...] | None],
    plan: Plan,
    journal: Journal | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Row]:
    """Reconstruct every image with every model, ratio and IPL; yield a row for each.

    Every model and image sees the same Φ of a seed at a ratio, except networks that work
    with no Φ but their own; what is named twice runs once. All images are read and all schedules
    checked before the first reconstruction. The first reconstruction of a model is run once more
    beforehand, so that no row times a warm-up.

    Args:
        models: names of the zoo or paths of .safetensors files.
        ratios: m/n in (0, 1].
        ipls: iterations per layer; None for the model's own.
        plan: the images and how to measure on them.
        journal: rows found there are yielded as they are, new ones are written there.
        share: (i, n) computes every n-th row only, from the i-th; rows in the journal are no work.

    Raises:
        UsageError, InputError, ModelError, ResourceError: as in `reconstruct`.
    """
    plan = replace(plan, setup=replace(plan.setup, spare=None))  # a row is of one device
    if plan.lpips:
        perceptual.network(_CPU)
    n = plan.block[0] * plan.block[1]
    counts = {ratio: count_measurements(n, ratio) for ratio in ratios}

    @cache
    def network(name: str, level: float | None) -> tuple[Reconstructor, str]:
        loaded = api.load(name, level)
        return loaded, weights_digest(loaded)

    jobs = [
        _job(name, ratio, seed, make(plan.kind, m, plan.block, seed), network, ipls)
        for name in dict.fromkeys(models)
        for seed in dict.fromkeys(plan.seeds)
        for ratio, m in counts.items()
    ]
    digests = {path: files.sha256_file(path) for path in plan.paths if images.read(path)}
    warm: set[str] = set()
    index = -1
    for job in jobs:
        for schedule in job.schedules:
            waiting: list[tuple[str, Path, images.Picture]] = []
            for path in plan.paths:
                index += 1
                key = journal_key(job, schedule, digests[path], plan)
                known = journal.get(key) if journal else None
                if known is not None:
                    yield from _measured(job, schedule, waiting, plan, journal, warm)
                    yield Row(**{**known, "model": job.model, "dataset": plan.dataset})
                    continue
                if index % share[1] != share[0]:
                    continue
                picture = images.read(path)
                alike = all(p.planes.shape == picture.planes.shape for _, _, p in waiting)
                if len(waiting) == plan.batch or not alike:
                    yield from _measured(job, schedule, waiting, plan, journal, warm)
                waiting.append((key, path, picture))
            yield from _measured(job, schedule, waiting, plan, journal, warm)


def _measured(
    job: "_Job",
    schedule: Schedule | None,
    waiting: list[tuple[str, Path, images.Picture]],
    plan: Plan,
    journal: Journal | None,
    warm: set[str],
) -> Iterator[Row]:
    """The rows of the pictures that wait, which none does afterwards; the first time, warm up."""
    if not waiting:
        return
    pictures = [picture for _, _, picture in waiting]
    if job.model not in warm:
        evaluate(job.network, pictures, job.phi, schedule, plan)
        warm.add(job.model)
    scores = evaluate(job.network, pictures, job.phi, schedule, plan)
    for (key, path, _), (score, seconds) in zip(waiting, scores, strict=True):
        row = Row(
            model=job.model,
            dataset=plan.dataset,
            image=path.name,
            ratio=job.ratio,
            m=job.phi.shape[0],
            ipl="" if schedule is None else str(schedule),
            seed=job.seed,
            psnr=score.psnr,
            ssim=score.ssim,
            lpips=score.lpips,
            seconds=seconds,
            peak_memory=peak_memory(plan.setup.device),
        )
        if journal:
            journal.add(key, asdict(row))
        yield row
    waiting.clear()


def journal_key(job: "_Job", schedule: Schedule | None, image: str, plan: Plan) -> str:
    """All that the figures of a row depend on: weights, Φ, image, schedule, software, hardware."""
    return key_of(
        {
            "weights": job.digest,
            "phi": job.phi.sha256,
            "block": plan.block,
            "image": image,
            "schedule": None if schedule is None else [*schedule.counts, schedule.order],
            "precision": plan.setup.numerics,
            "device": plan.setup.device.type,
            "protocol": plan.protocol,
            "noise_sigma": plan.noise_sigma,
            "csrecon": csrecon.__version__,
            "torch": torch.__version__,
            **({"lpips": True} if plan.lpips else {}),
            **({"batch": plan.batch} if plan.batch > 1 else {}),
        }
    )


@dataclass(frozen=True)
class _Job:
    """A model at a ratio: its network, its Φ, and the schedules to run."""

    model: str
    ratio: float
    seed: int
    network: Reconstructor
    phi: Sampling
    schedules: list[Schedule | None]
    digest: str


def _job(
    name: str,
    ratio: float,
    seed: int,
    phi: Sampling,
    network: Callable[[str, float | None], tuple[Reconstructor, str]],
    ipls: Sequence[int | tuple[int, ...] | None],
) -> _Job:
    known = cards.cards().get(name)
    loaded, digest = network(name, ratio if known and known.per_ratio else None)
    own = depot.own_phi(name, ratio) if known else None
    return _Job(name, ratio, seed, loaded, own or phi, _schedules(loaded, ipls), digest)


def weights_digest(model: Reconstructor) -> str:
    """SHA-256 of everything a network learnt and was built with; the name of a solver."""
    if not isinstance(model, Unfolding):
        return type(model).__name__
    whole = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        whole.update(name.encode())
        whole.update(value.cpu().contiguous().numpy().tobytes())
    built = ("schedule", "limits", "blockwise", "projection", "halved_after", "turning")
    whole.update(repr([getattr(model, name) for name in built]).encode())
    return whole.hexdigest()


def _schedules(
    network: Reconstructor, ipls: Sequence[int | tuple[int, ...] | None]
) -> list[Schedule | None]:
    """The schedules of a network, each once; a classical solver has none and runs once."""
    if not isinstance(network, Unfolding):
        return [None]
    own = network.schedule
    asked = [own if ipl is None else own.with_ipl(ipl) for ipl in ipls]
    for schedule in asked:
        network.check_allowed(schedule)
    return list(dict.fromkeys(asked))


def spread(
    jobs: int,
    models: Sequence[str],
    ratios: Sequence[float],
    ipls: Sequence[int | tuple[int, ...] | None],
    plan: Plan,
    journal: Journal,
) -> Iterator[int]:
    """Let several processes fill the journal, each with its share of the rows of `run`.

    Yields, now and then, how many of them have ended.

    Raises:
        UsageError, InputError, ModelError, ResourceError: as in `run`.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin, (threads,)) as pool:
        shares = [
            pool.submit(_share, models, ratios, ipls, plan, journal.path, (index, jobs))
            for index in range(jobs)
        ]
        for done, share in enumerate(as_completed(shares), start=1):
            share.result()
            yield done
    journal.read()


def _begin(threads: int) -> None:
    """In a process that shares the work: its threads, and no notes, which the first one gives."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    logging.getLogger("csrecon").setLevel(logging.ERROR)


def _share(
    models: Sequence[str],
    ratios: Sequence[float],
    ipls: Sequence[int | tuple[int, ...] | None],
    plan: Plan,
    path: Path,
    share: tuple[int, int],
) -> None:
    for _ in run(models, ratios, ipls, plan, Journal(path), share):
        pass
