"""What both tabs of the page share: the choice of a model, messages, and events that may fail."""

import functools
import html
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr

from csrecon.demo import offers, pictures
from csrecon.errors import CsreconError, is_out_of_memory, out_of_memory
from csrecon.runtime.execution import Setup

Shown = dict[Any, Any]
"""New values of some of the components."""
Work = Callable[..., Iterator[Shown]]

COMPUTING = "computing"
"""Name of the queue of all long work: one at a time."""
_READ_SECONDS = 20.0  # how long a message stays
_log = logging.getLogger(__name__)
_package = logging.getLogger("csrecon")


@dataclass(frozen=True)
class Place:
    """Where the page computes.

    Attributes:
        setup: device, precision and tiles.
        folder: of temporary files; uploads lie below it.
    """

    setup: Setup
    folder: Path

    def message(self, error: BaseException) -> str:
        """What the page says of an error: its message, with bare names of uploaded files."""
        if is_out_of_memory(error) and not isinstance(error, CsreconError):
            error = out_of_memory(error)
        said = re.sub(rf"{re.escape(str(self.folder))}/(?:[^\s/]+/)*", "", str(error))
        if isinstance(error, CsreconError):
            return said
        if isinstance(error, OSError):
            return f"operating system error: {said}."
        _log.error("%s: %s", type(error).__name__, said, exc_info=error)
        return f"{type(error).__name__}: {said}. This is a bug in csrecon: please report it."


@dataclass(frozen=True)
class Components:
    """Components of a page, one field each."""

    def all(self) -> list[Any]:
        """Every component, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class Model:
    """The controls that choose a model and its IPL."""

    name: Any
    ipl: Any


def model(prefix: str, label: str, info: str = "", optional: bool = False) -> Model:
    """The choice of a model, the default one first; `optional` begins with none, and has `info`.

    The ids of the two controls on the page begin with the prefix.
    """
    known = offers.models()
    first = next(iter(known.values()))
    name = gr.Dropdown(
        [("none", ""), *known] if optional else list(known),
        value="" if optional else first.name,
        label=label,
        info=info or first.about,
        elem_id=f"{prefix}-model",
    )
    ipl = gr.Slider(
        1, first.most, first.ipl, step=1, label="Iterations per layer (IPL)",
        info=_said_of_ipl(first), visible=not optional, elem_id=f"{prefix}-ipl",
    )  # fmt: skip

    def chosen(value: str) -> tuple[Any, Any]:
        if not value:
            return gr.update(info=info), gr.update(visible=False)
        one = known[value]
        news = {"value": one.ipl or 1, "info": _said_of_ipl(one), "interactive": one.most > 1}
        most = max(one.most, 2)  # a slider needs two ends
        return gr.update(info=one.about), gr.update(maximum=most, visible=True, **news)

    name.change(chosen, name, [name, ipl], show_progress="hidden", api_visibility="private")
    return Model(name, ipl)


def _said_of_ipl(one: offers.Offer) -> str:
    """What a model does with its IPL."""
    if one.ipl is None:
        return f"{one.name} is a classical solver: no layers; it stops by its own rule."
    layers = "its layer" if one.layers == 1 else f"each of its {one.layers} layers"
    if one.most == 1:
        return f"{one.name} applies {layers} once."
    return f"{one.name} applies {layers} so often: few for speed, more for quality."


@contextmanager
def warnings() -> Iterator[list[str]]:
    """Collect what csrecon warns of and notes meanwhile; one computation at a time does so."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (said := record.getMessage()) not in found:
                found.append(said)

    handler = Collector(logging.INFO)
    _package.addHandler(handler)
    try:
        yield found
    finally:
        _package.removeHandler(handler)


def guarded(work: Work, status: Any, place: Place) -> Work:
    """An event whose errors are shown on the page, in `status` and as a message, and end nothing.

    Args:
        work: yields new values of components.
        status: the component of messages.
        place: knows how an error is told.
    """

    @functools.wraps(work)
    def run(*values: Any) -> Iterator[Shown]:
        try:
            yield from work(*values)
        except Exception as error:
            said = place.message(error)
            yield {status: pictures.notes([said], "error")}
            raise gr.Error(
                html.escape(said), _READ_SECONDS, title="That did not work", print_exception=False
            ) from error

    return run


def cancels(button: Any, events: list[Any], status: Any) -> None:
    """Let a button end events between two iterations."""

    def said() -> str:
        return pictures.notes(["Cancelled. What is shown was finished before."], "warning")

    button.click(said, None, status, cancels=events, queue=False, api_visibility="private")
