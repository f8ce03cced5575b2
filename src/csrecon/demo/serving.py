"""Serves the page on one address until it is interrupted, and removes its temporary files."""

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csrecon.errors import ResourceError, UsageError
from csrecon.runtime.execution import Setup

_SECONDS = 3  # to finish what is under way
_PREFIX = "csrecon-demo-"


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ResourceError: the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ResourceError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}). Give another "
            "--port, or --port 0 for any that is free."
        ) from error


@contextmanager
def _environment(**settings: str) -> Iterator[None]:
    """Variables that Gradio reads from the environment only, while the page is served."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def serve(host: str, port: int, setup: Setup, ready: Callable[[str], None]) -> None:
    """Serve the page until KeyboardInterrupt, or whatever else a signal raises.

    Uploads and results lie in a new temporary folder, which is removed at the end.

    Args:
        host: address to listen on; only that of this machine, 127.0.0.1, is out of others' reach.
        port: 0 for any that is free.
        setup: device, precision and tiles.
        ready: is told the address of the page as soon as it answers.

    Raises:
        UsageError: Gradio is not installed.
        ResourceError: nothing can listen there.
    """
    with (
        _listening(host, port) as listening,
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as folder,
        _environment(
            GRADIO_TEMP_DIR=str(Path(folder, "gradio")),
            GRADIO_ANALYTICS_ENABLED="False",
            HF_HUB_DISABLE_TELEMETRY="True",
        ),
    ):
        server = _server(setup, Path(folder))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                thread.join(0.05)
            bound = listening.getsockname()[1]
            shown = f"[{host}]" if ":" in host else host
            if server.started:
                ready(f"http://{shown}:{bound}/")
            while thread.is_alive():
                thread.join(0.5)
        finally:
            server.should_exit = True
            thread.join(2 * _SECONDS)
    raise ResourceError("the server ended by itself; -v shows more.")


def _server(setup: Setup, folder: Path) -> Any:
    """The server of the page."""
    try:
        import uvicorn  # noqa: PLC0415 - an extra
        from fastapi import FastAPI  # noqa: PLC0415

        from csrecon.demo import controls, page  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"the page needs Gradio ({error}): pip install 'csrecon[demo]'."
        ) from error
    made = page.build(controls.Place(setup, folder))
    application = page.mounted(made, FastAPI(docs_url=None, redoc_url=None, openapi_url=None))
    return uvicorn.Server(
        uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=_SECONDS)
    )
