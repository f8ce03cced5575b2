"""`csrecon doctor`: versions, devices, cache, and a self-test of this machine."""

import os
import platform
from importlib import metadata
from typing import Any

from csrecon.cli.command import Device, Json, say, say_json
from csrecon.errors import CheckError

_PACKAGES = ("torch", "numpy", "pillow", "safetensors", "huggingface-hub", "typer", "matplotlib")


def doctor(device: Device = "auto", as_json: Json = False) -> None:
    """Show versions, devices and folders, and test the bundled model against stored values.

    The self-test generates Φ from its seed, measures a synthetic image, reconstructs it with
    `rcoast`, and compares each stage with values stored in the package. Exit code 7 if one
    differs.

    **Example**

        csrecon doctor
    """
    import torch

    from csrecon._version import __version__
    from csrecon.evaluation import selftest
    from csrecon.io import downloads
    from csrecon.runtime import execution

    setup = execution.choose(device)
    cache = downloads.cache_dir()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts: dict[str, Any] = {
        "csrecon": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in _PACKAGES},
        "devices": ", ".join(["cpu", *gpus, *(["mps"] * torch.backends.mps.is_available())]),
        "chosen": str(setup),
        "threads": torch.get_num_threads(),
        "cache": f"{cache} ({'there' if cache.is_dir() else 'not made yet'})",
        "CSRECON_DATA": os.environ.get("CSRECON_DATA", "not set"),
    }
    checks = selftest.run(setup.device)
    if as_json:
        stages = [
            {"stage": c.stage, "difference": c.difference, "allowed": c.allowed, "ok": c.ok}
            for c in checks
        ]
        say_json({**facts, "selftest": stages})
    else:
        for key, value in facts.items():
            say(f"{key:<16}{value}")
        for c in checks:
            say(
                f"{'self-test':<16}{'ok  ' if c.ok else 'FAIL'} {c.stage}: differs by "
                f"{c.difference:.1e}, allowed {c.allowed:.0e}"
            )
    wrong = [c.stage for c in checks if not c.ok]
    if wrong:
        raise CheckError(
            f"the self-test failed at: {', '.join(wrong)}. Results of this machine "
            f"({setup.device}) cannot be trusted; try --device cpu, and reinstall csrecon and "
            "torch."
        )
