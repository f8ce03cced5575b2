"""Commands of csrecon in children forked from one process that has imported everything.

Importing PyTorch takes a second or two, a fork some milliseconds. The forking process imports but
never computes, so it has no threads that a fork could lose; it is a process of its own, which takes
one request per line on stdin and answers with one line. A child runs `csrecon ARGUMENTS` as the
console script does, in its own process group and folder, with limits on memory and on the size of
files, and may be sent a signal at a given moment.

    with Forked() as forked:
        done = forked.run(["sample", "img.png", "--ratio", "0.1"], folder)

Linux only. `python benchmarks/forked.py` alone is that process.
"""

import atexit
import contextlib
import faulthandler
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_IMPORTED = (
    *(f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Png", "Ppm", "Tiff", "WebP")),
    *("cv2", "h5py", "requests", "scipy.io", "scipy.ndimage", "scipy.sparse"),
    *("encodings.cp437", "encodings.idna", "encodings.utf_8_sig", "pydantic.type_adapter"),
    *(
        "matplotlib.backends.backend_agg",
        "matplotlib.pyplot",
        "rich._emoji_codes",
        "huggingface_hub",
    ),
    *("typer._adapters", "typer._click.decorators", "typer.rich_utils", "unittest.mock"),
)
_OUTPUT = 2**20  # bytes that a command may print; a pipe holds them until it ends
_POLL = 0.0002  # seconds between two looks at a folder


@dataclass(frozen=True)
class Signal:
    """A signal to a running command.

    Attributes:
        number: of the signal.
        after: seconds from the start, or from the first change of `watched`.
        watched: a folder; the time runs from its first change.
        everyone: to the command and its own processes, as Ctrl-C does.
    """

    number: int
    after: float = 0.0
    watched: str | None = None
    everyone: bool = False


@dataclass(frozen=True)
class Limits:
    """What a command may use.

    Attributes:
        seconds: of time; then it is killed.
        memory: bytes of address space above what the imports take.
        file_size: bytes of one file.
        full_output: whether stdout is on a full disk.
    """

    seconds: float = 60.0
    memory: int | None = 6 * 2**30
    file_size: int | None = None
    full_output: bool = False


@dataclass(frozen=True)
class Done:
    """The end of a command.

    Attributes:
        code: the exit code; minus the signal that ended it.
        seconds: it took.
        processor: seconds of processor time that it took.
        memory: bytes of resident memory at the peak, of itself or of a process it started.
        late: it was killed because its time was up.
        signalled: the signal was sent while it ran.
        stdout, stderr: what it wrote.
    """

    code: int
    seconds: float
    processor: float
    memory: int
    late: bool
    signalled: bool
    stdout: str = field(default="", repr=False)
    stderr: str = field(default="", repr=False)


class Forked:
    """The forking process, as seen by whoever gives it commands.

    Args:
        setups: Python files that it runs once before the first command.
        lists: a folder of digest lists (NAME.txt), whose names become image sets.
    """

    def __init__(self, setups: Sequence[Path] = (), lists: Path | None = None) -> None:
        environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "MPLBACKEND": "agg"}
        request = {"setups": [str(path) for path in setups], "lists": str(lists) if lists else None}
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._answer()

    def __enter__(self) -> "Forked":
        """Start."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: dict[str, str] | None = None,
        limits: Limits = Limits(),
        sent: Signal | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Done:
        """Run `csrecon ARGUMENTS` in a folder.

        Args:
            arguments: of the command line; `call FILE FUNCTION …` calls a function of a Python
                file (relative to this one's folder) with the rest, and its result is the exit code.
            folder: the working directory.
            environment: changes to the environment.
            limits: of the child.
            sent: a signal, or None.
            meanwhile: called again and again while the command runs.
        """
        request = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": environment or {},
            "limits": asdict(limits),
            "sent": asdict(sent) if sent else None,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        try:
            while meanwhile and not select.select([self._process.stdout], [], [], 0)[0]:
                meanwhile()
        finally:
            answer = self._answer()  # whatever was seen, the child ends before the next one
        return Done(**answer)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the forking process has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _serve(setup: dict[str, Any], requests: IO[bytes], answers: IO[bytes]) -> None:
    """Import everything, then fork for every request."""
    _prepare()
    if setup["lists"]:
        _plant_sets(Path(setup["lists"]))
    for path in setup["setups"]:
        runpy.run_path(path)
    gc.freeze()
    answers.write(b"{}\n")
    answers.flush()
    for line in requests:
        request = json.loads(line)
        if request["arguments"][:1] == ["train"]:
            importlib.import_module("torch._dynamo")  # some seconds, which optimisers need
        pipes = [os.pipe(), os.pipe()]
        for reading, _ in pipes:
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _OUTPUT)
            os.set_blocking(reading, False)
        child = os.fork()
        if not child:
            requests.close()
            answers.close()
            _child(request, [writing for _, writing in pipes])
        with contextlib.suppress(OSError):
            os.setpgid(child, child)  # here too: whoever is first
        for _, writing in pipes:
            os.close(writing)
        answer = _watched(child, request)
        for name, (reading, _) in zip(("stdout", "stderr"), pipes, strict=True):
            with os.fdopen(reading, "rb") as stream:
                answer[name] = (stream.read() or b"").decode(errors="backslashreplace")
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _prepare() -> None:
    """Import what any command imports; compute nothing."""
    for name in _IMPORTED:
        importlib.import_module(name)
    import torch  # noqa: PLC0415
    import typer  # noqa: PLC0415

    import csrecon  # noqa: PLC0415

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(csrecon.__path__, "csrecon."):
        if not module.name.endswith(("__main__", "deepinverse")):
            importlib.import_module(module.name)
    from csrecon.cli import app  # noqa: PLC0415
    from csrecon.training import recipe  # noqa: PLC0415
    from csrecon.zoo import cards  # noqa: PLC0415

    cards.cards()
    recipe.recipes()
    app.app = typer.main.get_command(app.app)  # type: ignore[assignment]


def _plant_sets(lists: Path) -> None:
    from csrecon.io import downloads  # noqa: PLC0415
    from csrecon.zoo import datasets  # noqa: PLC0415

    for path in lists.glob("*.txt"):
        count = len(path.read_text(encoding="utf-8").splitlines())
        datasets.DATASETS[path.stem] = datasets.DatasetCard(
            "a set of the benchmark", count, "test", "owner/name", "0" * 40, "images"
        )
    datasets._LISTS = lists
    downloads.DELAYS = (0.01, 0.02, 0.03)


def _watched(child: int, request: dict[str, Any]) -> dict[str, Any]:
    """Wait for a child; send the signal, and end it when its time is up."""
    start = time.monotonic()
    sent, limit = request["sent"], request["limits"]["seconds"]
    ended = select.poll()
    handle = os.pidfd_open(child)
    ended.register(handle, select.POLLIN)
    signalled = late = False
    alive = True
    if sent:
        moment = start
        if sent["watched"]:
            alive = _changed(sent["watched"], ended, start + limit)
            moment = time.monotonic()
        alive = alive and not ended.poll(max(0.0, moment + sent["after"] - time.monotonic()) * 1000)
        if alive:
            (os.killpg if sent["everyone"] else os.kill)(child, sent["number"])
            signalled = True
    if alive and not ended.poll(max(0.0, start + limit - time.monotonic()) * 1000):
        late = True
        os.killpg(child, signal.SIGKILL)
    os.close(handle)
    _, status, usage = os.wait4(child, 0)
    seconds = time.monotonic() - start
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # whatever it started
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "processor": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * 1024,
        "late": late,
        "signalled": signalled,
    }


def _state(folder: str) -> list[tuple[str, int, int]]:
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = f"{place}/{name}"
            with contextlib.suppress(OSError):
                facts = os.stat(path)  # noqa: PTH116 - speed
                found.append((path, facts.st_size, facts.st_mtime_ns))
    return sorted(found)


def _changed(folder: str, ended: select.poll, end: float) -> bool:
    """Wait for the first change of a folder; whether the child is still running."""
    before = _state(folder)
    while time.monotonic() < end:
        if _state(folder) != before:
            return True
        if ended.poll(_POLL * 1000):
            return False
    return True


def _child(request: dict[str, Any], outputs: list[int]) -> None:
    """Become the command; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(request["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if request["limits"]["full_output"]:
            outputs[0] = os.open("/dev/full", os.O_WRONLY)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, "utf-8", "backslashreplace", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(request["environment"])
        tempfile.tempdir = None
        limits = request["limits"]
        faulthandler.dump_traceback_later(0.9 * limits["seconds"])
        _limit(limits)
        code = _command(request["arguments"])
        threading._shutdown()  # type: ignore[attr-defined]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        faulthandler.cancel_dump_traceback_later()
        atexit._run_exitfuncs()
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _limit(limits: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits["memory"] is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limits["memory"],) * 2)
    if limits["file_size"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_size"],) * 2)


def _command(arguments: list[str]) -> int:
    if arguments[:1] == ["call"]:
        script = Path(__file__).parent / arguments[1]
        return int(runpy.run_path(str(script))[arguments[2]](*arguments[3:]))
    from csrecon.cli import main  # noqa: PLC0415

    sys.argv = ["csrecon", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    protocol = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with os.fdopen(os.dup(0), "rb", buffering=0) as lines:
        _serve(json.loads(sys.argv[1]), lines, protocol)
