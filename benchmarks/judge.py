"""What must hold after every command, whatever it was given; a breach is a symptom.

It ends in time, with a documented exit code, without a traceback and without escapes in what it
prints. Its memory stays below a bound. Inputs are unchanged, and so is every other file without
`--overwrite`. What is there afterwards can be read, whole; nothing temporary is left; a success
contains no NaN.
"""

import json
import os
import re
import signal
import warnings
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from cases import Case, Play

from csrecon import zoo
from csrecon.errors import CsreconError, UsageError
from csrecon.io import arrays, files, images
from csrecon.sensing import native

MEMORY = 2 * 2**30
"""Bytes that a command on small files may take."""
_CODES = {0, 2, 3, 4, 5, 6, 7}
_OUTPUTS = {"-o", "--output", "--out", "--dry-run"}
_LAYOUT = {".npy", ".npz"}
_ENDS = {signal.SIGINT: (130,), signal.SIGTERM: (143, -signal.SIGTERM)}


def symptoms(case: Case, play: Play) -> list[str]:
    """Every breach, in words that are the same for the same cause."""
    found = [*_ending(case, play), *_printed(case, play), *_kept(case, play)]
    if not play.done.late:
        found += _made(case, play)
    return [f"{case.command}: {text}" for text in dict.fromkeys(found)]


def _ending(case: Case, play: Play) -> list[str]:
    done = play.done
    if done.late:
        return [f"no end after {case.limits.seconds:g} s"]
    found = []
    if done.memory > MEMORY:
        found.append("memory above 2 GiB")
    allowed = {*_CODES}
    if done.signalled and case.sent:
        allowed |= {*_ENDS.get(signal.Signals(case.sent.number), ())}
    if done.code == 1:
        found.append(f"exit 1: {cause(done.stderr)}")
    elif done.code < 0 and done.code not in allowed:
        found.append(f"died of {signal.Signals(-done.code).name}")
    elif done.code not in allowed:
        found.append(f"exit {done.code}")
    return found


def cause(stderr: str) -> str:
    """The error of a message or a traceback, without its details, and where it was raised."""
    errors = re.findall(r"^(?:error: )?((?:\w+\.)*\w+(?:Error|Exception)\b)(.*)", stderr, re.M)
    places = re.findall(r'File ".*/csrecon/(.*)", line \d+, in (\w+)', stderr)
    if errors and places:
        return f"{errors[-1][0]} in {places[-1][0]} {places[-1][1]}"
    lines = ["".join(error) for error in errors] or stderr.strip().splitlines() or ["nothing said"]
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*", "…", lines[-1].partition(" This is a bug")[0])
    return re.sub(r"-?\b(0x[0-9a-f]+|\d[\d.e+-]*)", "#", text)[:80]


def _printed(case: Case, play: Play) -> list[str]:
    done, found = play.done, []
    for text in (done.stdout, done.stderr):
        if (
            ("Traceback" in text or "Exception ignored" in text)
            and not done.late
            and done.code != 1
        ):
            found.append(f"a traceback: {cause(text)}")
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b\u202e]", text):
            found.append("control characters in what it prints")
    if (
        done.code == 0
        and not case.limits.full_output
        and "--json" in case.arguments
        and "--version" not in case.arguments
    ):
        try:
            json.loads(done.stdout, parse_constant=_refuse)
        except ValueError:
            found.append("--json prints no JSON")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _inputs(case: Case, play: Play) -> set[str]:
    """The files that the command line gives as inputs, with their sidecars, links followed."""
    named = set()
    for group in case.words:
        if group[0] in _OUTPUTS:
            continue
        for word in group:
            with_parts = (word, word.rpartition(":")[0])
            for text in with_parts:
                if text and len(text) < 256 and "\0" not in text:
                    named.add(os.path.relpath(os.path.realpath(play.place / text), play.place))
    found = {path for path in play.before for name in named if _within(path, name)}
    stems = {path.rpartition(".")[0] for path in found}
    partners = {path for path in case.files if path.rpartition(".")[0] in stems}
    return found | {path for path in partners if Path(path).suffix in (".json", ".npy")}


def _within(path: str, name: str) -> bool:
    return path == name or (name != "." and path.startswith(f"{name}/"))


def _kept(case: Case, play: Play) -> list[str]:
    """What changed that must not."""
    inputs = _inputs(case, play)
    found = []
    for path, content in play.before.items():
        if path.startswith("cache/") or play.after.get(path) == content:
            continue
        resumed = case.command == "train" and {"--resume", "--overwrite"} & {*case.arguments}
        if path in inputs and not (resumed and path.startswith(("run/", "photos/"))):
            found.append("an input is changed")
        elif not resumed and "--overwrite" not in case.arguments:
            found.append("a file is changed without --overwrite")
    return found


def _made(case: Case, play: Play) -> list[str]:
    """Faults of the files that are new or changed."""
    found = []
    for path, content in play.after.items():
        if play.before.get(path) == content or not isinstance(content, bytes):
            continue
        name = Path(path).name
        lock = name.endswith(".lock") and path.startswith("cache/")
        if not lock and (name.startswith(".") or path.startswith("../../tmp/")):
            found.append(f"left over: {Path(name).suffix or name}")
        elif not lock:
            found += _unreadable(play, path)
    return found


def _unreadable(play: Play, path: str) -> list[str]:
    place = play.place / path
    suffix = place.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = _values(place)
    except UsageError:  # it needs its Φ
        return []
    except (CsreconError, OSError, ValueError, RuntimeError) as error:
        return [f"an unreadable {suffix}: {cause(f'error: {type(error).__name__}: {error}')}"]
    masked = re.search(r"not measured|unmeasured|missing", play.done.stdout)  # NaN by design
    known = np.isinf if masked or play.done.code else lambda value: ~np.isfinite(value)
    if any(known(value).any() for value in values):
        return [f"NaN or infinity in {suffix}"]
    return []


def _values(place: Path) -> list[Any]:
    """Read a file that a command wrote; the numbers in it."""
    suffix = place.suffix.lower()
    if suffix == ".npy" and place.with_suffix(".json").exists():
        return [native.load(place).y.numpy()]
    if suffix in _LAYOUT:
        if suffix == ".npz" and native.describes_itself(place):
            return [native.load(place).y.numpy()]
        return [value for value in arrays.read(place).values() if value.dtype.kind in "fc"]
    if suffix in images.SUFFIXES:
        images.read(place)
    elif suffix == ".safetensors":
        zoo.load(str(place))
    elif suffix == ".pt":
        torch.load(place, map_location="cpu", weights_only=True)
    elif suffix == ".json":
        json.loads(place.read_text(encoding="utf-8"), parse_constant=_refuse)
    elif suffix == ".jsonl":
        for line in place.read_text(encoding="utf-8").splitlines():
            json.loads(line, parse_constant=_refuse)
    elif not place.stat().st_size:
        files.require_file(place)
    return []
