"""Delta debugging: the smallest case that still shows a symptom.

Fewer words, fewer files, fewer changed bytes, shorter files, in this order, in so many trials.
Source: Zeller and Hildebrandt, IEEE Transactions on Software Engineering 2002.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from cases import Case

S = TypeVar("S", tuple, bytes)  # type: ignore[type-arg]
_SMALL = 16  # bytes; shorter pieces are left out only of what is short already


class _Enough(Exception):  # noqa: N818 - not an error
    pass


def minimise(case: Case, shows: Callable[[Case], bool], trials: int) -> Case:
    """The smallest case found in some trials.

    Args:
        case: it shows the symptom.
        shows: whether another one does.
        trials: at most.
    """
    best, left = case, trials

    def better(other: Case) -> bool:
        nonlocal best, left
        if not left:
            raise _Enough
        left -= 1
        if not shows(other):
            return False
        best = other
        return True

    try:
        _fewer(
            tuple(best.words[1:]), lambda kept: better(replace(best, words=(best.words[0], *kept)))
        )
        for change in (
            {"sent": None},
            {"room": None},
            {"links": {}},
            {"fifos": ()},
            {"folders": ()},
        ):
            if any(getattr(best, name) != empty for name, empty in change.items()):
                better(replace(best, **change))  # type: ignore[arg-type]
        _fewer(tuple(best.files), lambda kept: better(_with_files(best, kept)))
        for path in [*best.damage]:
            _fewer(tuple(best.damage[path]), lambda kept, at=path: better(_damaged(best, at, kept)))
        best = replace(best, files={p: best.content(p) for p in best.files}, damage={})
        for path in sorted(best.files, key=lambda p: -len(best.files[p])):
            content = best.files[path]
            _fewer(content, lambda kept, at=path: better(_containing(best, at, kept)), _SMALL)
    except _Enough:
        pass
    return best


def _with_files(case: Case, kept: Sequence[str]) -> Case:
    damage = {path: edits for path, edits in case.damage.items() if path in kept}
    return replace(case, files={path: case.files[path] for path in kept}, damage=damage)


def _damaged(case: Case, path: str, kept: Sequence) -> Case:  # type: ignore[type-arg]
    damage = {**case.damage, path: tuple(kept)}
    return replace(case, damage={p: edits for p, edits in damage.items() if edits})


def _containing(case: Case, path: str, content: bytes) -> Case:
    return replace(case, files={**case.files, path: content})


def _fewer(kept: S, shows: Callable[[S], bool], least: int = 1) -> None:
    """Leave out as many items or bytes as possible: halves first, then smaller parts.

    Parts smaller than `least` are tried only where not much is left.
    """
    size = len(kept)
    while size and (size >= least or len(kept) <= 8 * least):
        start = 0
        while start < len(kept):
            fewer = kept[:start] + kept[start + size :]
            if shows(fewer):
                kept = fewer
            else:
                start += size
        size //= 2
