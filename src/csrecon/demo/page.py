"""The page: a heading and two tabs, with fonts of the system and nothing from another host."""

from pathlib import Path
from typing import Any

import gradio as gr

from csrecon.demo import image_tab, lab_tab
from csrecon.demo.controls import Place

LARGEST_UPLOAD = 64 * 2**20
"""Bytes of a file that is given."""
_AGE = (300, 3600)  # seconds: how often old temporary files are looked for, and how old
_WAITING = 16  # requests
_HEAD = """# csrecon
An image is measured with far fewer values than it has pixels, y = Φx, and computed back from them.
Everything happens on the machine that runs this page."""
_CSS = Path(__file__).with_name("page.css")


def build(place: Place) -> Any:
    """The page, as Gradio's Blocks."""
    with gr.Blocks(title="csrecon", analytics_enabled=False, delete_cache=_AGE) as page:
        gr.Markdown(_HEAD, elem_id="head")
        with gr.Tab("An image"):
            image_tab.build(page, place)
        with gr.Tab("Your own measurements"):
            lab_tab.build(place)
    page.queue(default_concurrency_limit=4, max_size=_WAITING)
    return page


def mounted(page: Any, application: Any) -> Any:
    """An application of FastAPI with the page at its root."""
    mono = ("ui-monospace", "Consolas", "monospace")
    theme = gr.themes.Default(
        primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=mono, text_size="md"
    )
    return gr.mount_gradio_app(
        application,
        page,
        "/",
        footer_links=[],
        run_history=False,
        max_file_size=LARGEST_UPLOAD,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=_CSS.read_text(encoding="utf-8"),
    )
