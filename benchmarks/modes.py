"""The modes of the fuzzer: how a case is drawn in each."""

import random
import signal
from collections.abc import Sequence
from dataclasses import replace

from cases import Case, Edit, Words, with_items
from corpus import Item
from forked import Limits, Signal
from grammar import Grammar
from loopback import MISDEEDS, SET

LIMITS = Limits(seconds=60, memory=5 * 2**30)
READER = ("call", "readers.py", "read")
WEIGHTS = {
    "readers": 2,
    "options": 6,
    "damage": 4,
    "signals": 2,
    "disk": 2,
    "memory": 1,
    "downloads": 1,
}
"""Mode -> how often it is drawn."""
_AT_ONCE = 30  # files that one child reads
_DOWNLOADS: tuple[Words, ...] = (
    (("data", "download", SET), ("--json",)),
    (("data", "download", SET, SET),),
    (("data", "verify", SET), ("--json",)),
    (("bench", "--model", "tv:iterations=1", "--ratio", "0.5", "--dataset", SET),),
    (("models", "download", "rcoast-paper"),),
    (("reconstruct", "--model", "hf:owner/name"), ("m.npy",), ("-o", "o.png")),
)


class Modes:
    """Draws the cases of every mode over a corpus."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._grammar = Grammar(items)
        self._items = list(items)
        self._files = {item.name: item.files for item in items}

    def draw(self, draw: random.Random, chosen: Sequence[str]) -> Case:
        """A case of one of the chosen modes."""
        mode = draw.choices(chosen, [WEIGHTS[name] for name in chosen])[0]
        case: Case = getattr(self, f"_{mode}")(draw)
        return case

    def _readers(self, draw: random.Random) -> Case:
        chosen = draw.sample(
            [i for i in self._items if i.name != "run" or draw.random() < 0.2], _AT_ONCE
        )
        files: dict[str, bytes] = {}
        damage: dict[str, tuple[Edit, ...]] = {}
        names = []
        for item in chosen:
            files |= item.files
            path = draw.choice([*item.files])
            damage[path] = edits(item.files[path], draw)
            names.append(path if item.name not in item.files else item.name)
        return Case("readers", (READER, *((name,) for name in names)), files, damage, limits=LIMITS)

    def _options(self, draw: random.Random) -> Case:
        case = self._case("options", self._grammar.odd(draw))
        outputs = [group[-1] for group in case.words if group[0] in ("-o", "--output", "--out")]
        taken = {path.partition("/")[0] for path in case.files} | {*case.links, *case.fifos}
        free = [name for name in outputs if _is_name(name) and name not in {*taken, *case.folders}]
        old = {name: b"old" for name in free if draw.random() < 0.3}
        return replace(case, files={**old, **case.files})

    def _damage(self, draw: random.Random) -> Case:
        case = self._case("damage", self._grammar.ordinary(draw))
        chosen = draw.sample([*case.files], min(len(case.files), draw.choice((1, 1, 2))))
        return replace(case, damage={path: edits(case.files[path], draw) for path in chosen})

    def _signals(self, draw: random.Random) -> Case:
        case = self._overwriting("signals", draw)
        number = draw.choice((signal.SIGINT, signal.SIGTERM))
        if draw.random() < 0.5:
            sent = Signal(number, draw.uniform(0, 0.4))
        else:
            sent = Signal(number, draw.choice((0, draw.uniform(0, 0.01))), watched="place")
        return replace(case, sent=replace(sent, everyone=number == signal.SIGINT))

    def _disk(self, draw: random.Random) -> Case:
        case = self._overwriting("disk", draw)
        room = int(2 ** draw.uniform(0, 22))
        way = draw.random()
        if way < 0.1:
            return replace(case, limits=replace(case.limits, full_output=True))
        if way < 0.4:
            return replace(case, limits=replace(case.limits, file_size=room))
        return replace(case, room=room)

    def _memory(self, draw: random.Random) -> Case:
        case = self._overwriting("memory", draw)
        return replace(case, limits=replace(LIMITS, memory=int(2 ** draw.uniform(16, 28))))

    def _downloads(self, draw: random.Random) -> Case:
        case = replace(
            self._case("downloads", draw.choice(_DOWNLOADS)),
            misdeed=draw.choice(MISDEEDS),
            limits=replace(LIMITS, seconds=90),
        )
        if draw.random() < 0.3:
            number = draw.choice((signal.SIGINT, signal.SIGTERM))
            case = replace(case, sent=Signal(number, draw.uniform(0, 1)))
        return case

    def _overwriting(self, mode: str, draw: random.Random) -> Case:
        """An ordinary case, at times with old outputs and --overwrite."""
        words = self._grammar.ordinary(draw)
        case = self._case(mode, words)
        outputs = [g[1] for g in words if g[0] == "-o" and _is_name(g[1]) and "." in g[1]]
        if not outputs or draw.random() < 0.5:
            return case
        old = {name: self._old(name) for name in outputs}
        if "--overwrite" not in case.arguments:
            words = (*words, ("--overwrite",))
        return replace(case, words=words, files={**old, **case.files})

    def _old(self, name: str) -> bytes:
        """The content of a valid file of the same format."""
        suffix = name[name.rfind(".") :]
        return next((i.files[i.name] for i in self._items if i.name.endswith(suffix)), b"old")

    def _case(self, mode: str, words: Words) -> Case:
        named = {word for group in words for word in group}
        links = {"link.png": "color.png", "loop": "loop", "dangling": "nowhere"}
        extra = tuple(("color.png",) for _ in named & {"link.png"})
        return Case(
            mode,
            words,
            with_items((*words, *extra), self._files),
            links={name: target for name, target in links.items() if name in named},
            fifos=tuple({"fifo"} & named),
            folders=tuple({"folder"} & named),
            limits=LIMITS,
        )


def _is_name(text: str) -> bool:
    return (
        0 < len(text) < 100
        and text.isascii()
        and text.isprintable()
        and "/" not in text
        and text.strip(".") != ""
    )


def edits(whole: bytes, draw: random.Random) -> tuple[Edit, ...]:
    """One to eight random changes of a file; the first bytes are as likely as all the others."""
    found = []
    length = len(whole)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        reach = min(length, 256) if draw.random() < 0.5 else length
        where = draw.randrange(reach + 1)
        size = draw.randint(1, 1 + length // 8)
        match draw.randrange(6):
            case 0:
                edit = Edit(where, where + 1, bytes([draw.randrange(256)]))
            case 1:
                edit = Edit(where, where + size)
            case 2:
                edit = Edit(where, where, whole[where : where + size])
            case 3:
                edit = Edit(where, where, draw.randbytes(min(size, 64)))
            case 4:
                edit = Edit(where, length)
            case _:
                fill = (b"\0", b"\xff", b"9", b"[", b"-", b"e")
                width = draw.choice((1, 2, 4, 8))
                edit = Edit(where, where + width, draw.choice(fill) * width)
        found.append(edit)
        length += len(edit.new) - max(0, min(edit.stop, length) - edit.start)
        length = max(0, length)
    return tuple(found)
