"""Work through the training queue unattended: python training/run_queue.py --budget 25m --out DIR

Every entry of queue.yaml gets its share of the budget, in order, and a folder DIR/NAME with its
run. Trained are the weights of the entry that it comes after, those in EARLIER/NAME with --earlier
EARLIER, or else the bundled ones. Started
again with the same DIR, an interrupted queue goes on where it was. At the end there is a table of
all entries in DIR/report.md and DIR/report.json. The exit code is 6 if an entry failed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from csrecon.errors import CsreconError
from csrecon.evaluation.table import Table
from csrecon.io import files
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.training.recipe import recipe
from csrecon.zoo import datasets, load

_LARGEST = 16 * 2**20  # bytes of a file that is carried away
_FILES = ("weights.safetensors", "checkpoint.pt")
_VALIDATED = 3  # images of Set11
_INTERRUPTED = (130, 143, -2, -15)
_PARTLY_FAILED = 6


class Entry(BaseModel):
    """One training: the recipe MODEL-RECIPE with some settings, for a share of the budget.

    It begins with the weights of the entry that it comes `after`, if it comes after one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w][\w.-]*$")
    model: str
    recipe: str | None = None
    share: float = Field(default=1.0, gt=0)
    settings: dict[str, Any] = {}
    after: str | None = None


class Outcome(BaseModel):
    """What became of an entry; PSNR in dB by ratio and IPL, before and after."""

    name: str
    state: str
    steps: int = 0
    seconds: float = 0.0
    before: dict[str, dict[str, float]] = {}
    after: dict[str, dict[str, float]] = {}
    note: str = ""


def seconds(text: str) -> float:
    """90s, 25m or 2h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 90s, 25m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def scores(entry: Entry, init: str | None, options: argparse.Namespace) -> Any:
    """PSNR of the initial weights on the validation images; nothing without them."""
    plan = recipe(entry.model, entry.recipe)
    scored = plan.task.validation
    if init is None or not datasets.at_hand(scored, options.data_dir):
        return {}
    network = load(init, 0.1)
    assert isinstance(network, Unfolding)
    setup = execution.Setup(execution.choose_device(options.device), plan.optimiser.precision)
    images = datasets.images(scored, options.data_dir)[:_VALIDATED]
    return plan.task.begin(plan.seed).validate(network, images, setup)


def train(entry: Entry, limit: float, options: argparse.Namespace) -> Outcome:
    """Train an entry, or continue its run, for at most so many seconds in all."""
    out = options.out / entry.name
    before = options.out / entry.after / _FILES[0] if entry.after else None
    earlier = options.earlier / entry.name / _FILES[0] if options.earlier else None
    found = [str(path) for path in (before, earlier) if path and path.exists()]
    init = found[0] if found else recipe(entry.model, entry.recipe).init
    command = [sys.executable, "-m", "csrecon", "train", entry.model, "--out", str(out), "--json"]
    command += ["--max-time", f"{max(1, round(limit))}s", "--fit", "--device", options.device]
    command += ["--recipe", entry.recipe] if entry.recipe else []
    command += ["--init", init] if init else []
    command += ["--data-dir", str(options.data_dir)] if options.data_dir else []
    command += ["--threads", str(options.threads)] if options.threads else []
    for field, value in entry.settings.items():
        command += ["--set", f"{field}={json.dumps(value)}"]
    initial = scores(entry, init, options)
    if (out / _FILES[1]).exists():
        command.append("--resume")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode in _INTERRUPTED:
        raise KeyboardInterrupt
    if done.returncode:
        return Outcome(name=entry.name, state="failed", note=f"exit code {done.returncode}")
    facts = json.loads(done.stdout)
    large = [name for name in _FILES if (out / name).stat().st_size > _LARGEST]
    return Outcome(
        name=entry.name,
        state="done",
        steps=facts["step"],
        seconds=facts["seconds"],
        before=initial,
        after=facts["validation"],
        note=f"larger than 16 MiB: {', '.join(large)}" if large else "",
    )


def report(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write DIR/report.json and DIR/report.md, and print the table."""
    rows = []
    for outcome in outcomes:
        gains = [
            f"{ratio}: {_best(outcome.before.get(ratio))} → {_best(after)}"
            for ratio, after in outcome.after.items()
        ]
        facts = outcome.name, outcome.state, str(outcome.steps), f"{outcome.seconds:.0f}"
        rows.append((*facts, "; ".join(gains), outcome.note))
    header = ("entry", "state", "steps", "seconds", "Set11 (dB)", "note")
    table = Table(header, tuple(rows)).markdown()
    content = json.dumps([outcome.model_dump() for outcome in outcomes], indent=2) + "\n"
    paths = folder / "report.json", folder / "report.md"
    with files.new_files(*paths, overwrite=True) as (as_json, as_markdown):
        as_json.write_text(content, encoding="utf-8")
        as_markdown.write_text(table, encoding="utf-8")
    print(table)


def _best(scores: dict[str, float] | None) -> str:
    return f"{max(scores.values()):.2f}" if scores else "?"


def known(folder: Path) -> dict[str, Outcome]:
    """The entries that an earlier start of this queue finished."""
    path = folder / "report.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    outcomes = [Outcome.model_validate(fields) for fields in content]
    return {outcome.name: outcome for outcome in outcomes if outcome.state == "done"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Work through the queue; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=seconds, required=True, help="training time: 25m")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--earlier", type=Path, help="--out of an earlier queue, to go on from")
    parser.add_argument("--only", nargs="+", help="names of entries")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--data-dir", type=Path, help="folder of the image sets")
    parser.add_argument("--queue", type=Path, default=Path(__file__).with_name("queue.yaml"))
    options = parser.parse_args(arguments)
    text = options.queue.read_text(encoding="utf-8")
    entries = [Entry.model_validate(fields) for fields in yaml.safe_load(text)]
    if unknown := set(options.only or []) - {entry.name for entry in entries}:
        parser.error(f"--only {', '.join(sorted(unknown))}: no such entry in {options.queue}")
    entries = [entry for entry in entries if not options.only or entry.name in options.only]
    options.out.mkdir(parents=True, exist_ok=True)
    shares = sum(entry.share for entry in entries)
    outcomes = known(options.out)
    for entry in entries:
        if entry.name in outcomes:
            continue
        print(f"{entry.name}: {entry.share / shares * options.budget:.0f} s", file=sys.stderr)
        try:
            limit = entry.share / shares * options.budget
            outcomes[entry.name] = train(entry, limit, options)
        except CsreconError as error:
            outcomes[entry.name] = Outcome(name=entry.name, state="failed", note=str(error))
        except KeyboardInterrupt:
            print("interrupted: the same command goes on from here.", file=sys.stderr)
            return 130
        report(list(outcomes.values()), options.out)
    failed = any(outcome.state == "failed" for outcome in outcomes.values())
    return _PARTLY_FAILED if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
