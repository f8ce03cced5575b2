"""The second tab: a laboratory's own file, what it holds, its order, and its image."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from csrecon.demo import controls, laboratory, offers, pictures
from csrecon.demo.controls import Components, Place, Shown
from csrecon.demo.laboratory import Findings, LabRequest
from csrecon.errors import UsageError
from csrecon.evaluation import arrangements
from csrecon.evaluation.arrangements import Candidate
from csrecon.io import arrays
from csrecon.sensing.contents import COLUMNS

_ORDERS = [("row by row (C)", "C"), ("column by column (F, MATLAB)", "F")]


@dataclass(frozen=True)
class Inputs(Components):
    """The controls, in the order in which their values arrive."""

    uploads: Any
    values: Any
    phi: Any
    height: Any
    width: Any
    pixel_order: Any
    block_order: Any
    gain: Any
    differential: Any
    model: Any
    ipl: Any


@dataclass(frozen=True)
class Outputs(Components):
    """What the tab shows."""

    status: Any
    contents: Any
    orders: Any
    result: Any
    film: Any
    files: Any
    commands: Any


def build(place: Place) -> None:
    """Put the tab on a page, and connect its events."""
    with gr.Row(equal_height=False, elem_classes="halves"):
        with gr.Column(scale=1, min_width=300):
            inputs, go, order, cancel = _inputs()
        with gr.Column(scale=3, min_width=320):
            outputs = _outputs()

    def look(uploads: list[str] | None) -> Iterator[Shown]:
        yield from _look(uploads, inputs, outputs, place)

    def rank(*values: Any) -> Iterator[Shown]:
        yield from _rank(values, inputs, outputs, place)

    def work(*values: Any) -> Iterator[Shown]:
        yield from _work(values, outputs, place)

    inputs.uploads.change(
        controls.guarded(look, outputs.status, place),
        inputs.uploads,
        [*outputs.all(), inputs.values, inputs.phi],
        show_progress="hidden",
        api_name="inspect",
    )
    ranked = order.click(
        controls.guarded(rank, outputs.status, place),
        inputs.all(),
        [outputs.status, outputs.orders, inputs.pixel_order, inputs.block_order, inputs.gain],
        show_progress="hidden",
        concurrency_id=controls.COMPUTING,
        concurrency_limit=1,
        api_name="order",
    )
    event = go.click(
        controls.guarded(work, outputs.status, place),
        inputs.all(),
        [outputs.status, outputs.result, outputs.film, outputs.files, outputs.commands],
        show_progress="hidden",
        concurrency_id=controls.COMPUTING,
        concurrency_limit=1,
        api_name="reconstruct_file",
    )
    controls.cancels(cancel, [ranked, event], outputs.status)


def _inputs() -> tuple[Inputs, Any, Any, Any]:
    """The controls, and the buttons that reconstruct, find the order, and cancel."""
    uploads = gr.File(
        label="Your files: the values, and Φ if it is in another one",
        file_count="multiple", file_types=[*arrays.READERS, ".json"], height=140,
        elem_id="uploads",
    )  # fmt: skip
    values = gr.Dropdown(
        [], label="Values", allow_custom_value=False, elem_id="values",
        info="The array of the measured values, or a measurement of csrecon.",
    )  # fmt: skip
    phi = gr.Dropdown(
        [], label="Φ", info="The matrix of the patterns; a file of csrecon knows its own.",
        elem_id="phi",
    )  # fmt: skip
    with gr.Row():
        height = gr.Number(
            None, precision=0, minimum=1, label="Height", min_width=100,
            info="Of the image, in pixels.", elem_id="height",
        )  # fmt: skip
        width = gr.Number(
            None, precision=0, minimum=1, label="Width", min_width=100,
            info="Of the image, in pixels.", elem_id="width",
        )  # fmt: skip
    pixel_order = gr.Radio(
        _ORDERS, value="C", label="Order of pixels", info="Of a block, in the columns of Φ."
    )
    block_order = gr.Radio(
        _ORDERS, value="C", label="Order of blocks", info="Of the image, in the file."
    )
    gain = gr.Textbox(
        "1", label="Gain", info="Of the camera, gain · Φx + offset; auto estimates both."
    )
    differential = gr.Checkbox(
        False, label="Differential", info="Every pattern is followed by its complement."
    )
    order = gr.Button("Find order and gain", elem_id="lab-order")
    model = controls.model("lab", "Model")
    with gr.Row():
        go = gr.Button("Reconstruct", variant="primary", min_width=120, elem_id="lab-go")
        cancel = gr.Button("Cancel", variant="stop", min_width=90)
    made = Inputs(
        uploads, values, phi, height, width, pixel_order, block_order, gain, differential,
        model.name, model.ipl,
    )  # fmt: skip
    return made, go, order, cancel


def _outputs() -> Outputs:
    """The components of the results."""
    start = (
        "Give the files of a measurement: .npy, .npz, .mat, .h5, .csv or .txt. They are shown as "
        "`csrecon inspect` shows them, and stay on the machine that runs this page."
    )
    status = gr.HTML(pictures.notes([start]), elem_id="lab-status")
    contents = gr.HTML(elem_id="contents")
    orders = gr.HTML(elem_id="orders")
    result = gr.Image(
        label="Reconstruction", format="png", interactive=False, height=420,
        buttons=["download", "fullscreen"], elem_id="lab-result",
    )  # fmt: skip
    film = gr.HTML(elem_id="lab-film")
    commands = gr.Code(
        language="shell", interactive=False, label="The same on the command line, beside the files",
        lines=1, wrap_lines=True, elem_id="lab-commands",
        visible=False,
    )  # fmt: skip
    files = gr.File(
        label="To keep: the result",
        interactive=False,
        elem_id="lab-files",
        file_count="multiple",
        visible=False,
    )
    return Outputs(status, contents, orders, result, film, files, commands)


@contextmanager
def _gathered(uploads: Sequence[str] | None, place: Place) -> Iterator[Path]:
    """A folder of its own with the files, while they are used."""
    with tempfile.TemporaryDirectory(dir=place.folder) as folder:
        laboratory.gather(map(Path, uploads or ()), Path(folder))
        yield Path(folder)


def _look(
    uploads: Sequence[str] | None, inputs: Inputs, outputs: Outputs, place: Place
) -> Iterator[Shown]:
    """What the files hold, as soon as they are there."""
    nothing = gr.update(choices=[], value=None)
    yield {
        **dict.fromkeys(outputs.all()),
        **_hidden(outputs),
        inputs.values: nothing,
        inputs.phi: nothing,
    }
    if not uploads:
        return
    with controls.warnings() as warned, _gathered(uploads, place) as folder:
        found = laboratory.inspect(folder)
    names = [*found.arrays]
    choices = [*([found.values] if found.own and found.values else []), *names]
    yield {
        outputs.status: pictures.notes(found.lines) + pictures.notes(warned, "warning"),
        outputs.contents: _contents(found),
        inputs.values: gr.update(choices=choices, value=found.values),
        inputs.phi: gr.update(choices=names, value=found.phi),
    }


def _hidden(outputs: Outputs) -> Shown:
    """Files and command, before there are any."""
    return dict.fromkeys((outputs.files, outputs.commands), gr.update(visible=False))


def _contents(found: Findings) -> str:
    if not found.arrays:
        return ""
    return pictures.table(
        COLUMNS,
        [one.row(name) for name, one in found.arrays.items()],
        "What the files hold",
    )


def _request(values: Sequence[Any], folder: Path) -> LabRequest:
    """What the values of the controls ask for, without the files."""
    array, phi, height, width, pixels, blocks, gain, differential, model, ipl = values[1:]
    if not array:
        raise UsageError("choose the array of the measured values.")
    return LabRequest(
        folder,
        array,
        offers.models()[model].entry(ipl),
        phi or None,
        (height, width) if height and width else None,
        pixels,
        blocks,
        gain.strip(),
        differential,
    )


def _rank(values: Sequence[Any], inputs: Inputs, outputs: Outputs, place: Place) -> Iterator[Shown]:
    """The orders of the values, the best of which is chosen."""
    with controls.warnings() as warned, _gathered(values[0], place) as folder:
        request = _request(values, folder)
        yield {outputs.status: pictures.notes(["Every order is tried …"], "busy")}
        ranked = laboratory.orders(request, place.setup)
    best = ranked[0]
    said = "The first order of the table is chosen now: press Reconstruct."
    doubts = [*arrangements.doubts(ranked), *warned]
    yield {
        outputs.status: pictures.notes([said]) + pictures.notes(doubts, "warning"),
        outputs.orders: _orders(ranked),
        inputs.pixel_order: best.arrangement.pixel_order,
        inputs.block_order: best.arrangement.block_order,
        inputs.gain: best.gain,
    }


def _orders(ranked: Sequence[Candidate]) -> str:
    return pictures.table(
        ["pixels", "blocks", "gain", "held-out error (dB)", "not predicted"],
        [one.row for one in ranked],
        "Orders, the best first: how well each predicts values that were held out",
    )


def _work(values: Sequence[Any], outputs: Outputs, place: Place) -> Iterator[Shown]:
    """The reconstruction, with its iterates as they come."""
    with controls.warnings() as warned, _gathered(values[0], place) as folder:
        request = _request(values, folder)
        ready = laboratory.read(request)
        yield {outputs.result: None, outputs.film: "", **_hidden(outputs)}
        frames: list[str] = []
        pixels = np.zeros((1, 1), np.float32)
        for one in laboratory.reconstruct(ready, place.setup):
            said = f"{request.entry.label}: iteration {one.step.index} of {one.step.total} …"
            news: Shown = {outputs.status: pictures.notes([said], "busy")}
            if one.image is not None:
                pixels = one.image
                frames.append(pictures.frame(pixels, [str(one.step.index)]))
                title = f"{request.entry.label}: iterations, from left to right"
                news[outputs.film] = pictures.strip(frames, title)
                news[outputs.result] = pictures.shown(pixels)
            yield news
        made = laboratory.keep(ready, pixels, folder)
        notes = [ready.note] if ready.note else ["Done."]
        yield {
            outputs.status: pictures.notes(notes) + pictures.notes(warned, "warning"),
            outputs.files: gr.update(value=[str(path) for path in made.files], visible=True),
            outputs.commands: gr.update(value="\n".join(made.commands), visible=True),
        }
