"""Fuzz csrecon: every reader and the whole command line.

    python benchmarks/fuzz.py --minutes 60 --seed 0 --keep faults --json faults.json
    python benchmarks/fuzz.py --replay faults
    python benchmarks/fuzz.py --modes readers,damage --minutes 5

Seven modes: readers (damaged files, thirty to a child), options (extreme and nonsensical values),
damage (ordinary commands on damaged files), signals (SIGINT, SIGTERM), disk (almost full), memory
(almost none), downloads (from a server that misbehaves). What must hold after each case is in
judge.py. The first case of every symptom is minimised and kept in a folder, with its files and what
the command printed; `--replay` plays such cases again. The exit code is 1 if there is any fault.
"""

import argparse
import collections
import itertools
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import corpus
import judge
import loopback
import minimise
import readers
from cases import Case, Play, Stage, plain, stored
from forked import Forked
from modes import READER, WEIGHTS, Modes

_LATE_TRIALS = 10  # of a case that does not end
_TRIES = 3  # of a case with a signal, whose moment varies
_NO_NETWORK = "http://127.0.0.1:9"
_ENVIRONMENT = {
    "CSRECON_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_ENDPOINT": _NO_NETWORK,
    "HTTPS_PROXY": _NO_NETWORK,
    "NO_PROXY": "127.0.0.1",
}


class Fuzzer:
    """Plays cases and collects their symptoms.

    Args:
        setups: Python files that the forking process runs first.
        folder: for what it needs.
    """

    def __init__(self, setups: Sequence[Path], folder: Path) -> None:
        bodies = {f"{index}.png": corpus.png(30 + index) for index in range(3)}
        self._server = loopback.Loopback(bodies)
        self._forked = Forked(setups, loopback.lists(folder / "lists", bodies))
        self.items: list[corpus.Item] = []
        self._stage = Stage(self._forked, _ENVIRONMENT)

    def __enter__(self) -> "Fuzzer":
        """Start."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stage.__exit__()
        self._forked.__exit__()
        self._server.__exit__()

    def seed(self, modes: Sequence[str]) -> None:
        """Make the corpus that these modes start from."""
        self.items = corpus.make(self._forked, brief=[*modes] == ["readers"])

    def play(self, case: Case) -> tuple[Play, list[str]]:
        """Play a case; what happened, and its symptoms."""
        played = self._play(case)
        if played.done.code == 1 and case.words[0] != READER:
            played = self._traced(case, played)
        return played, judge.symptoms(case, played)

    def _play(self, case: Case) -> Play:
        self._server.misdeed = case.misdeed or "none"
        online = {"CSRECON_OFFLINE": "0", "CSRECON_MIRROR": self._server.url}
        return self._stage.play(case, online if case.misdeed else {})

    def _traced(self, case: Case, played: Play) -> Play:
        """The same with the traceback of its error, if it fails again."""
        again = self._play(replace(case, words=(*case.words, ("--debug",))))
        return again if again.done.code == 1 else played

    def shows(self, case: Case, symptom: str) -> bool:
        """Whether a case has a symptom, in one of some tries if it depends on a moment."""
        tries = _TRIES if case.sent else 1
        return any(symptom in self.play(case)[1] for _ in range(tries))

    def single(self, case: Case, play: Play) -> Case:
        """The case of the one file that a reader failed on."""
        name = (play.done.stdout.splitlines() or [case.words[1][0]])[-1]
        item = next(i for i in self.items if name in (i.name, *i.files))
        files = {path: content for path, content in case.files.items() if path in item.files}
        damage = {path: edits for path, edits in case.damage.items() if path in files}
        return replace(case, words=(READER, (name,)), files=files, damage=damage)


@dataclass
class Found:
    """What a run found.

    Attributes:
        cases: mode -> command -> number of cases.
        codes: exit code -> number of cases.
        faults: symptom -> number of cases, the command line of the minimal one, its folder.
    """

    cases: dict[str, collections.Counter[str]] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    codes: collections.Counter[int] = field(default_factory=collections.Counter)
    faults: dict[str, dict[str, Any]] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """It as JSON can hold it."""
        cases = {mode: dict(sorted(counts.items())) for mode, counts in sorted(self.cases.items())}
        return {
            "cases": sum(sum(counts.values()) for counts in cases.values()),
            "by mode": cases,
            "exit codes": {str(code): n for code, n in sorted(self.codes.items())},
            "faults": self.faults,
        }


def fuzz(fuzzer: Fuzzer, options: argparse.Namespace) -> Found:
    """Draw and play cases until the time is up, or so many are played."""
    draw = random.Random(options.seed)
    chosen = options.modes.split(",") if options.modes else [*WEIGHTS]
    fuzzer.seed(chosen)
    modes = Modes(fuzzer.items)
    found = Found()
    end = time.monotonic() + 60 * options.minutes
    for _ in range(options.cases) if options.cases else itertools.count():
        if time.monotonic() > end:
            break
        case = modes.draw(draw, chosen)
        play, symptoms = fuzzer.play(case)
        if case.mode == "readers":
            found.cases["readers"]["read"] += len(play.done.stdout.splitlines())
            if symptoms and _is_crash(play):
                symptoms = []
        else:
            found.cases[case.mode][case.command] += 1
        found.codes[play.done.code] += 1
        for symptom in symptoms:
            _record(fuzzer, found, options, case, play, symptom)
    return found


def _is_crash(play: Play) -> bool:
    """Whether a library crashed in the child, which csrecon keeps in a process of its own."""
    last = (play.done.stdout.splitlines() or [""])[-1]
    return play.done.code < 0 and not play.done.late and Path(last).suffix in readers.CRASHES


def _record(
    fuzzer: Fuzzer, found: Found, options: argparse.Namespace, case: Case, play: Play, symptom: str
) -> None:
    if symptom in found.faults:
        found.faults[symptom]["count"] += 1
        return
    print(f"{symptom}\n    {plain(case.arguments)}", file=sys.stderr, flush=True)
    first = fuzzer.single(case, play) if case.mode == "readers" else case
    trials = options.minimise if fuzzer.shows(first, symptom) else 0
    if play.done.late:
        trials = min(trials, _LATE_TRIALS)
    least = minimise.minimise(first, lambda other: fuzzer.shows(other, symptom), trials)
    name = re.sub(r"\W+", "-", symptom.lower())[:60].strip("-")
    folder = options.keep / f"{len(found.faults) + 1:03d}-{name}"
    least.store(folder)
    (folder / "symptom.txt").write_text(symptom + "\n")
    (folder / "stdout.txt").write_text(play.done.stdout, errors="backslashreplace")
    (folder / "stderr.txt").write_text(play.done.stderr, errors="backslashreplace")
    found.faults[symptom] = {
        "count": 1,
        "mode": case.mode,
        "command": plain(least.arguments),
        "again": bool(trials),
        "kept": str(folder),
    }
    print(f"    least: {plain(least.arguments)} -> {folder}", file=sys.stderr, flush=True)


def replay(fuzzer: Fuzzer, folder: Path) -> dict[str, Any]:
    """Play every kept case below a folder again."""
    results = {}
    for path in sorted(folder.rglob("case.json")):
        symptom = path.with_name("symptom.txt").read_text().strip()
        play, symptoms = fuzzer.play(stored(path.parent))
        results[str(path.parent)] = {
            "symptom": symptom,
            "now": symptoms,
            "code": play.done.code,
            "said": play.done.stderr[-300:],
        }
    return results


def main() -> int:
    """Fuzz, or replay; print a summary as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--cases", type=int, help="end after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", help="separated by commas; all by default")
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="folder of the faults")
    parser.add_argument("--replay", type=Path, help="play the cases of this folder again")
    parser.add_argument("--json", type=Path, help="also write the summary to this file")
    parser.add_argument("--minimise", type=int, default=150, help="trials for each symptom")
    parser.add_argument(
        "--setup", type=Path, action="append", default=[], help="a Python file to run first"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its folders are removed
    with tempfile.TemporaryDirectory() as name, Fuzzer(options.setup, Path(name)) as fuzzer:
        return _main(fuzzer, options)


def _main(fuzzer: Fuzzer, options: argparse.Namespace) -> int:
    if options.replay:
        results = replay(fuzzer, options.replay)
        print(json.dumps(results, indent=2))
        return int(any(result["now"] for result in results.values()))
    found = fuzz(fuzzer, options)
    summary = {"seed": options.seed, "minutes": options.minutes, **found.summary()}
    text = json.dumps(summary, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)
    return int(bool(found.faults))


if __name__ == "__main__":
    sys.exit(main())
