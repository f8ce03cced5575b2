"""`csrecon demo`: a page in the browser, to try csrecon on an image or on a file of values."""

import webbrowser
from typing import Annotated

import typer

from csrecon.cli.command import Device, Precision, Tile, log, say
from csrecon.errors import UsageError

_LOCAL, _PORT = "127.0.0.1", 7860


def demo(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = _LOCAL,
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 for any that is free.", min=0, max=65535)
    ] = _PORT,
    open_: Annotated[
        bool, typer.Option("--open", help="Also open the page in the browser.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
) -> None:
    """Serve a page on this machine: measure an image, or read your own file, and reconstruct.

    Needs the extra `demo` (`pip install 'csrecon[demo]'`), no network and no GPU. Only this machine
    can open the page, unless --host says otherwise. Files that are given, up to 64 MiB each, and
    results lie in a temporary folder, which is removed at the end. Ctrl-C ends it.

    **Examples**

        csrecon demo
        csrecon demo --port 0 --open
    """
    from csrecon.demo import serving
    from csrecon.runtime import execution

    if not host.strip():
        raise UsageError(f"--host {host!r}: expected an address, as {_LOCAL}.")
    setup = execution.choose(device, precision, tile)
    if host not in (_LOCAL, "localhost", "::1"):
        log.warning(
            "--host %s: everybody who can reach this machine can use the page, without a password.",
            host,
        )

    def ready(address: str) -> None:
        say(f"{address} (Ctrl-C ends it)")
        if open_:
            webbrowser.open(address)

    try:
        serving.serve(host, port, setup, ready)
    except KeyboardInterrupt:
        log.info("ended; the temporary files are removed.")
