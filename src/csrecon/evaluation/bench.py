"""Benchmark: models × conditions × ratios × IPLs on a set of images -> rows."""

import itertools
import logging
import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path

import torch

from csrecon import metrics, zoo
from csrecon.evaluation import meter, perceptual, workers
from csrecon.evaluation.cache import ResultCache, key_of
from csrecon.evaluation.rows import PAPER_CONDITION, Row
from csrecon.io import arrays, downloads, files, images
from csrecon.metrics import Protocol, Score
from csrecon.reconstructors.base import Reconstructor
from csrecon.reconstructors.solvers.frame import Solver
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing import sample as sampling
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.noise import Noise
from csrecon.sensing.operators import Domain, SamplingOptions, make_operator
from csrecon.sensing.operators.kinds import default_block
from csrecon.zoo import cards, store

log = logging.getLogger(__name__)

_CPU = torch.device("cpu")

Ipls = Sequence[int | tuple[int, ...] | None]
"""Iterations per layer; None for the model's own."""


@dataclass(frozen=True)
class Plan:
    """What a benchmark runs on, and under which conditions.

    Attributes:
        dataset: name of the set in the rows.
        paths: the image files; their luma is sampled and scored.
        setup: the device and the precision.
        seeds: of the operators; all of them are run.
        protocol: scoring protocol, a name of metrics.PROTOCOLS.
        noise_sigmas: standard deviations of Gaussian noise on y.
        kinds: kinds of Φ, or kinds of operator.
        blocks: sides of a block in pixels; None for the default of the kind of Φ.
        lpips: whether to score with LPIPS too.
        batch: number of images of one shape per batch; each has an equal share of the seconds.
            Classical solvers take one: their stopping rules and strengths look at all of y.
        masks: files of k-space masks by ratio, for the kind `fourier`; empty to draw them.
    """

    dataset: str
    paths: Sequence[Path]
    setup: execution.Setup
    seeds: Sequence[int] = (0,)
    protocol: Protocol = "paper"
    noise_sigmas: Sequence[float] = (0.0,)
    kinds: Sequence[str] = ("gaussian",)
    blocks: Sequence[int | None] = (None,)
    lpips: bool = False
    batch: int = 1
    masks: Mapping[float, Path] = field(default_factory=dict)

    def conditions(self) -> list[tuple[str, int | None, float]]:
        """Kind of Φ or operator, side of a block, and noise σ of every condition."""
        return list(
            dict.fromkeys(
                (kind, None if side == default_block(kind)[0] else side, sigma)
                for kind, side, sigma in itertools.product(
                    self.kinds, self.blocks, self.noise_sigmas
                )
            )
        )

    @property
    def published(self) -> Protocol | None:
        """The protocol of the published results for these conditions; None if there are none."""
        return self.protocol if PAPER_CONDITION in self.conditions() else None

    def batch_of(self, network: Reconstructor) -> int:
        """The images per batch of a model."""
        return 1 if isinstance(network, Solver) else self.batch


@dataclass(frozen=True)
class Job:
    """A model under one condition at a ratio."""

    model: str
    ratio: float
    noise: Noise
    options: SamplingOptions
    network: Reconstructor
    identity: str
    ipl: str

    def operator_digest(self, domain: Domain) -> str:
        """The spec of the operator for images of this domain, as JSON."""
        digest = _operator_digest if self.options.mask is None else _computed_digest
        return digest(domain, self.options)


def evaluate(
    job: Job, pictures: Sequence[images.Picture], plan: Plan
) -> list[tuple[Score, float, int]]:
    """Sample pictures of one shape, reconstruct them as one batch, and score each.

    Returns:
        The score, the seconds and the number m of measurements of each.

    Raises:
        UsageError: several pictures, and noise or an operator that cannot be stacked.
    """
    measured = [sampling.sample(picture, job.options, job.noise) for picture in pictures]
    stacked = Measurement.stacked(measured)
    planes, seconds = meter.timed(
        lambda: execution.image(job.network, stacked, plan.setup),
        plan.setup.device,
    )
    found = []
    for image, picture in zip(torch.split(planes, 1), pictures, strict=True):
        score = metrics.score(image, picture.planes, plan.protocol)
        if plan.lpips:
            shown = metrics.shown(image, plan.protocol).float()
            distance = perceptual.lpips(shown, picture.planes.transpose(0, 1))
            score = replace(score, lpips=float(distance))
        operator = stacked.operator
        m = int(getattr(operator, "m", torch.Size(operator.y_shape).numel()))
        found.append((score, seconds / len(pictures), m))
    return found


def run(
    models: Sequence[str],
    ratios: Sequence[float],
    ipls: Ipls,
    plan: Plan,
    results: ResultCache | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Row]:
    """Reconstruct every image with every model, condition, ratio and IPL; yield a row for each.

    For a seed and a ratio all models and images have the same operator, except networks that work
    with one Φ only. Duplicates run once. All images are read and all iteration counts checked
    before the first reconstruction. Every model first runs once as a warm-up, which is not timed.

    Args:
        models: names of the zoo or paths of .safetensors files.
        ratios: m/n in (0, 1].
        ipls: iterations per layer.
        plan: the images and the conditions.
        results: the result cache; figures in it are yielded unchanged, new rows are added to it.
        share: (i, n) computes only every n-th row, from the i-th; cached rows are not computed.

    Raises:
        UsageError, InputError, ModelError, ResourceError: as in `reconstruct`.
    """
    alone = replace(plan.setup, fallback=None)  # all rows must come from one device
    plan = replace(plan, setup=alone)
    if plan.lpips:
        perceptual.network(_CPU)
    jobs = list(_jobs(models, ratios, ipls, plan))
    described = {
        path: (files.sha256_file(path), sampling.domain_of(images.read(path)))
        for path in plan.paths
    }
    for job in jobs:
        for _, domain in described.values():
            if workers.ended():
                return
            job.operator_digest(domain)  # invalid options fail before any work
    warm: set[str] = set()
    index = -1
    for job in jobs:
        waiting: list[tuple[str, Path, images.Picture]] = []
        for path in plan.paths:
            if workers.ended():
                return
            index += 1
            digest, domain = described[path]
            key = row_key(job, digest, domain, plan)
            kept = results.get(key) if results else None
            row = _row(job, path, plan).with_figures(kept) if kept is not None else None
            if row is not None:
                yield from _measured(job, waiting, plan, results, warm)
                yield row
                continue
            if index % share[1] != share[0]:
                continue
            picture = images.read(path)
            alike = all(p.planes.shape == picture.planes.shape for _, _, p in waiting)
            if len(waiting) == plan.batch_of(job.network) or not alike:
                yield from _measured(job, waiting, plan, results, warm)
            waiting.append((key, path, picture))
        yield from _measured(job, waiting, plan, results, warm)


def _measured(
    job: Job,
    waiting: list[tuple[str, Path, images.Picture]],
    plan: Plan,
    results: ResultCache | None,
    warm: set[str],
) -> Iterator[Row]:
    """The rows of the waiting pictures, which are cleared; warm up the first time."""
    if not waiting:
        return
    pictures = [picture for _, _, picture in waiting]
    if job.model not in warm:
        evaluate(job, pictures, plan)
        warm.add(job.model)
    scores = evaluate(job, pictures, plan)
    for (key, path, _), (score, seconds, m) in zip(waiting, scores, strict=True):
        row = replace(
            _row(job, path, plan),
            m=m,
            psnr=score.psnr,
            ssim=score.ssim,
            lpips=score.lpips,
            seconds=seconds,
            peak_memory=meter.peak_memory(plan.setup.device),
        )
        if results:
            results.add(key, asdict(row))
        yield row
    waiting.clear()


def _row(job: Job, path: Path, plan: Plan) -> Row:
    """A row as it is asked for, its figures still unknown."""
    block = job.options.block
    return Row(
        model=job.model,
        dataset=plan.dataset,
        image=path.name,
        ratio=job.ratio,
        m=0,
        ipl=job.ipl,
        seed=job.options.seed,
        psnr=math.nan,
        ssim=math.nan,
        seconds=math.nan,
        peak_memory=None,
        kind=job.options.kind,
        block=block[0] if block else None,
        noise_sigma=job.noise.sigma,
    )


def row_key(job: Job, image: str, domain: Domain, plan: Plan) -> str:
    """The key of a row in the result cache: everything that its results depend on.

    Args:
        job: the model and the operator.
        image: SHA-256 of the image file.
        domain: C, H, W of the image.
        plan: how it is run and scored.
    """
    return key_of(
        {
            "model": job.identity,
            "ipl": job.ipl,
            "operator": job.operator_digest(domain),
            "noise": [job.noise.sigma, job.options.seed],
            "image": image,
            "precision": plan.setup.numerics,
            "device": plan.setup.device.type,
            "torch": torch.__version__,
            "protocol": plan.protocol,
            "lpips": plan.lpips,
            "batch": plan.batch_of(job.network),
        }
    )


def _computed_digest(domain: Domain, options: SamplingOptions) -> str:
    return make_operator(domain, options).spec().model_dump_json()


_operator_digest = lru_cache(maxsize=1024)(_computed_digest)  # a mask is an array, not hashable


def _jobs(models: Sequence[str], ratios: Sequence[float], ipls: Ipls, plan: Plan) -> Iterator[Job]:
    """All jobs, in order."""

    @cache
    def loaded(name: str, ratio: float | None) -> tuple[Reconstructor, str]:
        network = zoo.load(name, ratio)
        return network, key_of(zoo.identity(network))

    for name, seed, (kind, side, sigma), ratio in itertools.product(
        dict.fromkeys(models), dict.fromkeys(plan.seeds), plan.conditions(), dict.fromkeys(ratios)
    ):
        card = cards.cards().get(name)
        network, identity = loaded(name, ratio if card and card.per_ratio else None)
        own = store.own_phi(name, ratio) if card else None
        options = SamplingOptions(
            kind=kind, ratio=ratio, seed=seed, block=(side, side) if side else None
        )
        if own is not None:
            options = replace(options, phi=own, ratio=None, kind="gaussian", block=None)
        if ratio in plan.masks:
            options = replace(options, mask=arrays.pick(plan.masks[ratio]), ratio=None)
        for view in _views(network, ipls):
            ipl = str(view.schedule) if isinstance(view, Unfolding) else ""
            yield Job(name, ratio, Noise(sigma), options, view, identity, ipl)


def _views(network: Reconstructor, ipls: Ipls) -> list[Reconstructor]:
    """A network at every IPL that it allows, each once; a classical solver has no IPL."""
    if not isinstance(network, Unfolding):
        return [network]
    views = [network if ipl is None else network.at(ipl) for ipl in ipls]
    allowed = {view.recursion.schedule: view for view in views if view.allowed}
    min(views, key=lambda view: max(view.recursion.schedule)).check_allowed()
    if above := [str(view.schedule) for view in views if not view.allowed]:
        log.info("left out: IPL %s, above %d.", ", ".join(above), network.trained.max_ipl)
    return list(allowed.values())


def spread(
    jobs: int,
    models: Sequence[str],
    ratios: Sequence[float],
    ipls: Ipls,
    plan: Plan,
    results: ResultCache,
) -> Iterator[int]:
    """Fill the result cache with several processes, each with its share of the rows of `run`.

    Yields the number of finished processes whenever one finishes.

    Raises:
        UsageError, InputError, ModelError, ResourceError: as in `run`.
    """
    jobs = workers.count(jobs)
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    initial = (threads, downloads.offline(), stop)
    with ProcessPoolExecutor(jobs, context, workers.begin, initial) as pool:
        try:
            shares = [
                pool.submit(_share, models, ratios, ipls, plan, results.path, (index, jobs))
                for index in range(jobs)
            ]
            for done, share in enumerate(as_completed(shares), start=1):
                share.result()
                yield done
        except BaseException:
            stop.set()  # leaving the pool waits for its processes
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    results.read()


def _share(
    models: Sequence[str],
    ratios: Sequence[float],
    ipls: Ipls,
    plan: Plan,
    path: Path,
    share: tuple[int, int],
) -> None:
    for _ in run(models, ratios, ipls, plan, ResultCache(path), share):
        pass
