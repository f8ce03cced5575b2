"""Pictures and tables for a page: as arrays of bytes, and as HTML without any script."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

_THUMBNAIL = 132  # pixels of the longer side, drawn at that size at most
_STOPS = 9  # colours of the scale


def shown(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image in [0, 1], (H, W) or (H, W, 3), as a screen shows it: clipped, 8 bits."""
    pixels: NDArray[np.uint8] = np.round(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    return pixels


def frame(image: NDArray[np.float32], caption: Sequence[str]) -> str:
    """A frame of the film strip: a small picture above lines of text."""
    small = Image.fromarray(shown(image))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    content = io.BytesIO()
    small.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode("ascii")
    text = "<br>".join(map(html.escape, caption))
    alternative = html.escape(" ".join(caption))
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{alternative}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def strip(frames: Iterable[str], title: str) -> str:
    """A film strip under a title; it scrolls within itself where it is too long."""
    return (
        f'<div class="strip-title">{html.escape(title)}</div>'
        f'<div class="strip" tabindex="0">{"".join(frames)}</div>'
    )


def scale(top: float) -> str:
    """The scale of error maps: colours from 0 to `top`, with numbers in gray levels of 255."""
    places = np.linspace(0, 1, _STOPS)
    colours = colormaps["inferno"](places, bytes=True)[:, :3]
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in colours.tolist())
    marks = "".join(f"<span>{255 * top * place:.3g}</span>" for place in (0, 0.25, 0.5, 0.75, 1))
    return (
        f'<div class="scale"><div style="background:linear-gradient(to right, {stops})"></div>'
        f'<div class="marks">{marks}</div>'
        '<div class="unit">|error| in gray levels of 255; larger ones are drawn like the last'
        "</div></div>"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table; the first column is left-aligned, the others right."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scores"><table>{above}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def caption(title: str, text: str = "") -> str:
    """Two lines above a picture: its title, and what is said of it."""
    return f"<b>{html.escape(title)}</b>{html.escape(text) or '&nbsp;'}"


def notes(lines: Iterable[str], kind: str = "note") -> str:
    """Lines of text in a box each; `kind` is note, warning, error or busy."""
    return "".join(f'<p class="said {kind}">{html.escape(line)}</p>' for line in lines)
