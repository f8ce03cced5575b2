"""The first tab: an image is measured, reconstructed, and compared with the original."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from csrecon.demo import controls, experiment, offers, pictures
from csrecon.demo.controls import Components, Place, Shown
from csrecon.demo.experiment import Request, Sampled, Subject
from csrecon.evaluation import compare, plot
from csrecon.evaluation.compare import Entry, Outcome
from csrecon.io import images

_ORIGINAL, _BACK, _RESULT, _ERROR = (
    "Original",
    "Back-projection Φᵀy",
    "Reconstruction",
    "Error map",
)
_HEADER = ("", "PSNR (dB)", "SSIM", "seconds", "iterations")


@dataclass(frozen=True)
class Inputs(Components):
    """The controls, in the order in which their values arrive."""

    image: Any
    kind: Any
    ratio: Any
    noise: Any
    model: Any
    ipl: Any
    second: Any
    second_ipl: Any
    side: Any
    seed: Any


@dataclass(frozen=True)
class Outputs(Components):
    """What the tab shows."""

    status: Any
    original: Any
    original_said: Any
    back: Any
    back_said: Any
    result: Any
    result_said: Any
    error: Any
    error_said: Any
    scale: Any
    scores: Any
    film: Any
    slider: Any
    files: Any
    commands: Any


def build(page: Any, place: Place) -> None:
    """Put the tab on a page, and connect its events."""
    with gr.Row(equal_height=False, elem_classes="halves"):
        with gr.Column(scale=1, min_width=300):
            inputs, go, cancel = _inputs()
        with gr.Column(scale=3, min_width=320):
            outputs = _outputs()

    def look(image: str | None, side: int) -> Iterator[Shown]:
        hidden = gr.update(visible=False)
        yield {
            **dict.fromkeys(outputs.all()),
            **_bare(outputs),
            outputs.slider: hidden,
            outputs.commands: hidden,
            outputs.files: hidden,
        }
        subject = experiment.subject(Path(image) if image else None, side)
        yield {
            outputs.status: pictures.notes([f"{subject.note} Press Reconstruct to measure it."]),
            outputs.original: pictures.shown(subject.pixels),
            outputs.original_said: pictures.caption(_ORIGINAL, _size(subject)),
        }

    def work(*values: Any) -> Iterator[Shown]:
        yield from _work(_request(*values), outputs, place)

    looked = controls.guarded(look, outputs.status, place)
    for change in (page.load, inputs.image.change, inputs.side.change):
        change(
            looked,
            [inputs.image, inputs.side],
            outputs.all(),
            show_progress="hidden",
            api_visibility="private",
        )
    event = go.click(
        controls.guarded(work, outputs.status, place),
        inputs.all(),
        outputs.all(),
        show_progress="hidden",
        concurrency_id=controls.COMPUTING,
        concurrency_limit=1,
        api_name="reconstruct",
    )
    controls.cancels(cancel, [event], outputs.status)


def _inputs() -> tuple[Inputs, Any, Any]:
    """The controls, and the buttons that begin and cancel."""
    image = gr.File(
        label="Your image, or none for the bundled photo",
        file_types=[*images.SUFFIXES, ".gif", ".ppm", ".pgm", ".npy"],
        height=150,
        elem_id="image",
    )
    kind = gr.Dropdown(
        list(offers.KINDS_OF_PHI), value="gaussian", label="Kind of Φ", elem_id="kind",
        info="The patterns that measure the image: gaussian as in the papers, hadamard or binary "
        "as in single-pixel cameras, pixels for inpainting, fourier as in MRI.",
    )  # fmt: skip
    ratio = gr.Slider(
        1, 100, 10, step=1, label="Sampling ratio (%)", elem_id="ratio",
        info="How many values are measured for every 100 pixels.",
    )  # fmt: skip
    noise = gr.Slider(
        0, 0.2, 0, step=0.005, label="Noise σ", elem_id="noise",
        info="Standard deviation of the noise on each value; a pixel lies between 0 and 1.",
    )  # fmt: skip
    first = controls.model("first", "Model")
    second = controls.model(
        "second",
        "Compare with",
        "A second model, beside the first with a slider between them.",
        True,
    )
    with gr.Row():
        go = gr.Button("Reconstruct", variant="primary", min_width=120, elem_id="go")
        cancel = gr.Button("Cancel", variant="stop", min_width=90, elem_id="cancel")
    with gr.Accordion("More", open=False):
        side = gr.Dropdown(
            list(experiment.SIDES), value=512, label="Longest side (pixels)",
            info="A larger image is reduced to it, so that it takes seconds.",
        )  # fmt: skip
        seed = gr.Number(
            0, precision=0, minimum=0, label="Seed",
            info="Of Φ and of the noise: the same seed measures the same values.",
        )  # fmt: skip
    made = Inputs(
        image, kind, ratio, noise, first.name, first.ipl, second.name, second.ipl, side, seed
    )
    return made, go, cancel


def _outputs() -> Outputs:
    """The components of the results."""
    status = gr.HTML(elem_id="status")

    def picture(said: str, name: str) -> tuple[Any, Any]:
        caption = gr.HTML(pictures.caption(said), elem_classes="caption")
        image = gr.Image(
            show_label=False, format="png", interactive=False, elem_id=name,
            buttons=["download", "fullscreen"], elem_classes="picture",
        )  # fmt: skip
        return image, caption

    with gr.Row(equal_height=False, elem_classes="pictures"):
        with gr.Column(min_width=150):
            original, original_said = picture(_ORIGINAL, "original")
        with gr.Column(min_width=150):
            back, back_said = picture(_BACK, "back")
        with gr.Column(min_width=150):
            result, result_said = picture(_RESULT, "result")
        with gr.Column(min_width=150):
            error, error_said = picture(_ERROR, "error")
            scale = gr.HTML()
    scores = gr.HTML(elem_id="scores")
    film = gr.HTML(elem_id="film")
    slider = gr.ImageSlider(
        label="Two models", format="png", interactive=False, visible=False, max_height=640,
        buttons=["fullscreen"], elem_id="slider",
    )  # fmt: skip
    commands = gr.Code(
        language="shell", interactive=False, label="The same on the command line, with image.png",
        lines=2, wrap_lines=True, elem_id="commands", visible=False,
    )  # fmt: skip
    files = gr.File(
        label="To keep: the measured image, y with its description, the result",
        interactive=False, elem_id="files", file_count="multiple", visible=False,
    )  # fmt: skip
    return Outputs(
        status,
        original,
        original_said,
        back,
        back_said,
        result,
        result_said,
        error,
        error_said,
        scale,
        scores,
        film,
        slider,
        files,
        commands,
    )


def _request(
    image: str | None,
    kind: str,
    ratio: float,
    noise: float,
    model: str,
    ipl: int,
    second: str,
    second_ipl: int,
    side: int,
    seed: int,
) -> Request:
    """What the values of the controls ask for."""
    known = offers.models()
    entries = [known[model].entry(ipl)]
    if second:
        entries.append(known[second].entry(second_ipl))
    return Request(
        tuple(entries), Path(image) if image else None, side, kind, ratio / 100, noise, seed or 0
    )


def _work(request: Request, outputs: Outputs, place: Place) -> Iterator[Shown]:
    """The experiment, with everything that the page shows of it, as soon as it is known."""
    with (
        controls.warnings() as warned,
        tempfile.TemporaryDirectory(dir=place.folder) as folder,
    ):
        sampled = experiment.measure(request)
        yield _begun(sampled, outputs)
        finished: list[tuple[Outcome, int]] = []
        strips: list[str] = []
        frames: list[str] = []
        for one in experiment.reconstruct(sampled, place.setup):
            busy = f"{one.entry.label}: iteration {one.step.index} of {one.step.total} …"
            news: Shown = {outputs.status: pictures.notes([busy], "busy")}
            if one.outcome is not None:
                frames.append(
                    pictures.frame(
                        one.outcome.image,
                        [str(one.step.index), f"{one.outcome.score.psnr:.2f} dB"],
                    )
                )
                title = f"{one.entry.label}: iterations, from left to right"
                strip = pictures.strip(frames, title)
                news[outputs.film] = "".join([*strips, strip])
                if not finished:
                    news[outputs.result] = pictures.shown(one.outcome.image)
                    news[outputs.result_said] = _caption(_RESULT, one.outcome)
            if one.final and one.outcome is not None:
                finished.append((one.outcome, one.step.index))
                strips.append(strip)
                frames = []
                news |= _errors(sampled, finished[0][0], outputs)
                news[outputs.scores] = _scores(sampled, finished)
            yield news
        yield _ended(sampled, finished, outputs, Path(folder), warned)


def _begun(sampled: Sampled, outputs: Outputs) -> Shown:
    return {
        outputs.status: pictures.notes([f"Measured: {sampled.title}."], "busy"),
        outputs.original: pictures.shown(sampled.subject.pixels),
        outputs.back: pictures.shown(sampled.back.image),
        **_bare(outputs),
        outputs.original_said: pictures.caption(_ORIGINAL, _size(sampled.subject)),
        outputs.back_said: _caption(_BACK, sampled.back),
        outputs.result: None,
        outputs.error: None,
        outputs.scale: "",
        outputs.scores: _scores(sampled, []),
        outputs.film: "",
        outputs.slider: gr.update(visible=False),
        outputs.files: gr.update(visible=False),
        outputs.commands: gr.update(visible=False),
    }


def _caption(said: str, one: Outcome) -> str:
    return pictures.caption(said, f"{one.score.psnr:.2f} dB, SSIM {one.score.ssim:.3f}")


def _size(subject: Subject) -> str:
    return "{}×{} pixels".format(*subject.pixels.shape)


def _bare(outputs: Outputs) -> Shown:
    """The captions of pictures that are not there yet."""
    said = {
        outputs.original_said: _ORIGINAL,
        outputs.back_said: _BACK,
        outputs.result_said: _RESULT,
        outputs.error_said: _ERROR,
    }
    return {component: pictures.caption(text) for component, text in said.items()}


def _scores(sampled: Sampled, finished: Sequence[tuple[Outcome, int]]) -> str:
    entries: Sequence[Entry] = sampled.request.entries
    rows = [(sampled.back.label, sampled.back, "", "")]
    for entry, (outcome, count) in zip(entries, finished, strict=False):
        rows.append((entry.label, outcome, f"{outcome.seconds:.2f}", str(count)))
    return pictures.table(
        _HEADER,
        [
            [label, f"{one.score.psnr:.2f}", f"{one.score.ssim:.4f}", seconds, count]
            for label, one, seconds, count in rows
        ],
        sampled.title,
    )


def _errors(sampled: Sampled, outcome: Outcome, outputs: Outputs) -> Shown:
    """The error map of a reconstruction, with its scale."""
    wrong = compare.error(outcome, sampled.subject.picture).image
    top = plot.brightest(wrong)
    return {
        outputs.error: plot.heat(wrong, top),
        outputs.error_said: pictures.caption(
            _ERROR, f"mean |error| {255 * float(wrong.mean()):.1f} of 255"
        ),
        outputs.scale: pictures.scale(top),
    }


def _ended(
    sampled: Sampled,
    finished: Sequence[tuple[Outcome, int]],
    outputs: Outputs,
    folder: Path,
    warned: Sequence[str],
) -> Shown:
    outcomes = [outcome for outcome, _ in finished]
    result = experiment.keep(sampled, outcomes, folder)
    status = pictures.notes([sampled.subject.note]) + pictures.notes(warned, "warning")
    news: Shown = {
        outputs.status: status,
        outputs.files: gr.update(value=[str(path) for path in result.files], visible=True),
        outputs.commands: gr.update(value="\n".join(result.commands), visible=True),
    }
    if len(outcomes) == 2:
        left, right = (entry.label for entry in sampled.request.entries)
        news[outputs.slider] = gr.update(
            value=tuple(pictures.shown(one.image) for one in outcomes),
            label=f"Left of the handle: {left}. Right: {right}.",
            visible=True,
        )
    return news
