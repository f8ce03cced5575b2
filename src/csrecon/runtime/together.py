"""Items read ahead in a thread, and neighbours that are alike worked on at once."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Generic, Self, TypeVar

from csrecon.errors import CsreconError

Item = TypeVar("Item", bound=Hashable)
Loaded = TypeVar("Loaded")
Done = TypeVar("Done")


class Together(Generic[Item, Loaded, Done]):
    """Takes items in their order; what is alike is worked on at once, and the next is read then.

    Args:
        items: all that will be taken.
        load: reads one; runs in a thread, while others are worked on.
        work: makes something of each of several that are alike.
        alike: what alike ones have in common; None for what is worked on alone.
        most: how many may be worked on at once, of the kind of this one.
    """

    def __init__(
        self,
        items: Sequence[Item],
        load: Callable[[Item], Loaded],
        work: Callable[[Sequence[Loaded]], Sequence[Done]],
        alike: Callable[[Loaded], Hashable | None],
        most: Callable[[Loaded], int],
    ) -> None:
        self._items = items
        self._load, self._work, self._alike, self._most = load, work, alike, most
        self._position = {item: index for index, item in enumerate(items)}
        self._loading: dict[Item, Future[Loaded]] = {}
        self._done: dict[Item, Done] = {}
        self._alone: set[Item] = set()
        self._reader = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forget what was not taken."""
        self._reader.shutdown(cancel_futures=True)

    def take(self, item: Item) -> tuple[Loaded, Done]:
        """An item loaded, and what the work made of it.

        Raises:
            CsreconError, OSError: what loading it, or working on it alone, raises.
        """
        try:
            loaded = self._read(item).result()
            if item not in self._done:
                self._work_on(item, loaded)
            return loaded, self._done[item]
        finally:
            self._loading.pop(item, None)
            self._done.pop(item, None)
            self._alone.discard(item)

    def _work_on(self, item: Item, loaded: Loaded) -> None:
        """Work on an item and its neighbours, while as many behind them are read."""
        group = self._group(item, loaded)
        if len(group) > 1:
            behind = self._position[item] + len(group)
            for following in self._items[behind : behind + len(group)]:
                self._read(following)
        try:
            results = self._work([self._read(one).result() for one in group])
        except CsreconError:
            if len(group) == 1:
                raise
            self._alone.update(group)  # each fails, or not, on its own
            group, results = [item], self._work([loaded])
        self._done.update(zip(group, results, strict=True))

    def _read(self, item: Item) -> "Future[Loaded]":
        if item not in self._loading:
            self._loading[item] = self._reader.submit(copy_context().run, self._load, item)
        return self._loading[item]

    def _group(self, item: Item, loaded: Loaded) -> list[Item]:
        """The item and its neighbours that are alike, as many as may be worked on at once."""
        group, kind = [item], self._alike(loaded)
        if kind is None or item in self._alone:
            return group
        position = self._position[item]
        for other in self._items[position + 1 : position + self._most(loaded)]:
            reading = self._read(other)
            if other in self._alone or reading.exception() is not None:
                break  # which is told when its turn comes
            if self._alike(reading.result()) != kind:
                break
            group.append(other)
        return group
