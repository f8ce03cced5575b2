"""Kill csrecon at random moments: nothing lost, nothing mixed, always readable.

    python benchmarks/kill.py --times 200 --seed 0 --json kill.json
    python benchmarks/kill.py --commands sample,train --times 20

Each of sample, reconstruct, import, train, download and bench is killed (SIGKILL) until it has died
so many times: at moments uniform over its duration, and in the moments after it first writes.
After each kill its inputs must be unchanged, and its result is read: the old one, the new one or,
where there was none, none. Then the command is given again, and its result must be that of a
command that was never killed. At every fifth trial a reader looks all the while and must never see
anything but old or new. The exit code is 1 if anything was lost.
"""

import argparse
import collections
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import loopback
import plans
from cases import plain
from forked import Done, Forked, Limits, Signal
from plans import COMMANDS, Command, Loss, Plan, State

from csrecon.errors import CsreconError

_LIMITS = Limits(seconds=120)
_READ_EVERY = 5
_PAUSE = 0.002  # seconds between two pieces of a download
_MOST_TRIALS = 4  # per kill that is asked for


@dataclass(frozen=True)
class Prepared:
    """A plan with its folder before the command, and what an undisturbed command makes of it."""

    plan: Plan
    folder: Path
    seconds: float
    old: State
    new: State
    end: State
    names: frozenset[str]


@dataclass
class Tally:
    """What the kills of a command led to."""

    kills: int = 0
    trials: int = 0
    found: collections.Counter[str] = field(default_factory=collections.Counter)
    hidden: int = 0
    losses: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """It as JSON can hold it."""
        return {
            "kills": self.kills,
            "trials": self.trials,
            "found": dict(self.found),
            "hidden files left": self.hidden,
            "losses": self.losses,
            "seconds": round(self.seconds, 1),
        }


class Killer:
    """Runs and kills commands in folders of its own.

    Args:
        forked: runs the commands.
        root: where the folders are.
        url: of the server for downloads.
        keep: a folder for what a loss leaves behind.
    """

    def __init__(self, forked: Forked, root: Path, url: str, keep: Path) -> None:
        self._forked, self._root, self._keep = forked, root, keep
        self._environment = {"CSRECON_OFFLINE": "1", "CSRECON_MIRROR": url}
        self._inputs = root / "inputs"
        self._inputs.mkdir()
        plans.inputs(self._inputs)
        self._unchanged = _contents(self._inputs)

    def command(self, name: str, times: int, draw: random.Random) -> Tally:
        """Kill a command so many times."""
        command, tally = COMMANDS[name], Tally()
        start = time.monotonic()
        prepared = [
            self._prepared(plan, self._root / f"{name}-{index}", command.environment)
            for index, plan in enumerate(command.plans)
        ]
        while tally.kills < times and tally.trials < _MOST_TRIALS * times:
            ready = prepared[tally.trials % len(prepared)]
            watched = tally.trials // len(prepared) % _READ_EVERY == 0
            tally.trials += 1
            place = self._root / "trial"
            shutil.copytree(ready.folder, place)
            try:
                self._trial(ready, command, place, tally, draw, watched)
            except (Loss, CsreconError, ValueError, LookupError, RuntimeError) as error:
                text = f"{plain(ready.plan.command)}: {type(error).__name__}: {error}"
                tally.losses.append(text)
                print(text, file=sys.stderr, flush=True)
                shutil.copytree(place, self._keep / f"{name}-{len(tally.losses)}", symlinks=True)
            shutil.rmtree(place)
        tally.seconds = time.monotonic() - start
        return tally

    def _prepared(self, plan: Plan, folder: Path, extra: Mapping[str, str]) -> Prepared:
        shutil.copytree(self._inputs, folder)
        for words in plan.before:
            self._succeeds(words, folder, extra)
        old = plan.state(folder)
        undisturbed = self._root / "undisturbed"
        shutil.copytree(folder, undisturbed)
        took = self._succeeds(plan.command, undisturbed, extra).seconds
        new = plan.state(undisturbed)
        end = (plan.final or plan.state)(undisturbed)
        names = frozenset(name for name in _contents(undisturbed) if not _is_hidden(name))
        shutil.rmtree(undisturbed)
        return Prepared(plan, folder, took, old, new, end, names)

    def _trial(
        self,
        ready: Prepared,
        command: Command,
        place: Path,
        tally: Tally,
        draw: random.Random,
        watched: bool,
    ) -> None:
        plan = ready.plan
        look = (lambda: _check(ready, plan.state(place), "meanwhile")) if watched else None
        done = self._run(
            plan.command, place, command.environment, _moment(ready, place, draw), look
        )
        if done.code not in (0, -signal.SIGKILL):
            raise Loss(f"exit {done.code} before the kill: {done.stderr[-300:]}")
        tally.kills += done.signalled
        tally.hidden += sum(_is_hidden(name) for name in _contents(place))
        found = plan.state(place)
        tally.found[_check(ready, found, "after the kill")] += 1
        self._check_inputs(place)
        finished = plan.final is None and found == ready.new
        self._again(plan, place, command.environment, finished)
        self._check_inputs(place)
        end = (plan.final or plan.state)(place)
        if end != ready.end:
            raise Loss(f"done again it is {end}, undisturbed it is {ready.end}")
        names = {name for name in _contents(place) if not _is_hidden(name)}
        if names != ready.names:
            raise Loss(f"other files than undisturbed: {sorted(names ^ ready.names)}")

    def _again(self, plan: Plan, place: Path, extra: Mapping[str, str], finished: bool) -> None:
        """Give the command again as a user would."""
        extras = [[word] for word in plan.again if word not in plan.command]
        for words in ([*plan.command, *extra_words] for extra_words in ([], *extras)):
            done = self._run(words, place, extra)
            if done.code == 0 or (finished and done.code == 2 and words == [*plan.command]):
                return
        raise Loss(f"exit {done.code} when done again: {done.stderr[-300:]}")

    def _check_inputs(self, place: Path) -> None:
        found = _contents(place)
        for name, content in self._unchanged.items():
            if found.get(name) != content:
                raise Loss(f"the input {name} is changed")

    def _succeeds(self, words: Any, folder: Path, extra: Mapping[str, str]) -> Done:
        done = self._run(words, folder, extra)
        if done.code:
            raise RuntimeError(f"{plain(words)}: exit {done.code}: {done.stderr}")
        return done

    def _run(
        self,
        words: Any,
        folder: Path,
        extra: Mapping[str, str],
        sent: Signal | None = None,
        meanwhile: Any = None,
    ) -> Done:
        environment = {**self._environment, "CSRECON_CACHE": str(folder / "cache"), **extra}
        return self._forked.run(words, folder, environment, _LIMITS, sent, meanwhile)


def _moment(ready: Prepared, place: Path, draw: random.Random) -> Signal:
    """When to kill: at any time, or soon after the first write."""
    if draw.random() < 0.5:
        return Signal(signal.SIGKILL, draw.uniform(0, ready.seconds))
    after = draw.choice((0.0, draw.uniform(0, 0.005), draw.uniform(0, 0.3 * ready.seconds)))
    return Signal(signal.SIGKILL, after, watched=str(place))


def _check(ready: Prepared, found: State, when: str) -> str:
    """Whether the units are old, new or none; raise Loss if one is anything else."""
    kinds = set()
    for unit in {*ready.old, *ready.new, *found}:
        value = found.get(unit)
        if value == ready.new.get(unit) != ready.old.get(unit):
            kinds.add("new")
        elif value == ready.old.get(unit):
            kinds.add("old" if value else "none")
        else:
            raise Loss(f"{unit} {when} is {value}, neither old nor new")
    return kinds.pop() if len(kinds) == 1 else "some of each"


def _contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def main() -> int:
    """Kill the commands; print a table as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", default=",".join(COMMANDS), help="separated by commas")
    parser.add_argument("--times", type=int, default=200, help="kills of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("losses"), help="folder of the losses")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument(
        "--setup", type=Path, action="append", default=[], help="a Python file to run first"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its folders are removed
    draw = random.Random(options.seed)
    results = {}
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=fast) as name,
        loopback.Loopback(plans.bodies()) as server,
        Forked(options.setup, loopback.lists(Path(name) / "lists", plans.bodies())) as forked,
    ):
        server.pause = _PAUSE
        killer = Killer(forked, Path(name), server.url, options.keep)
        for command in options.commands.split(","):
            results[command] = killer.command(command, options.times, draw).facts()
            print(f"{command}: {json.dumps(results[command])}", file=sys.stderr, flush=True)
    losses = sum(len(result["losses"]) for result in results.values())
    summary = {"seed": options.seed, "losses": losses, "commands": results}
    text = json.dumps(summary, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)
    return int(losses > 0)


if __name__ == "__main__":
    sys.exit(main())
