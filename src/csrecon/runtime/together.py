"""Items read ahead in a thread, and neighbours with equal batch key processed as one batch."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Generic, Self, TypeVar

from csrecon.errors import CsreconError, is_out_of_memory

Item = TypeVar("Item", bound=Hashable)
Loaded = TypeVar("Loaded")
Done = TypeVar("Done")


class Together(Generic[Item, Loaded, Done]):
    """Processes items in order, in batches of equal batch key, while the next items are read.

    Args:
        items: all items, in the order in which they are taken.
        load: reads one item; runs in a thread while others are processed.
        work: processes a batch of loaded items; one result per item.
        alike: the batch key of a loaded item; None to process it alone.
        most: the largest batch of items like this one.
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
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancel the items that were not taken."""
        self._reader.shutdown(cancel_futures=True)

    def take(self, item: Item) -> tuple[Loaded, Done]:
        """A loaded item and its result.

        Raises:
            CsreconError, OSError: as raised by loading it, or by processing it alone.
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
        """Process an item and its batch, while as many items after them are read."""
        group = self._group(item, loaded)
        if len(group) > 1:
            behind = self._position[item] + len(group)
            for following in self._items[behind : behind + len(group)]:
                self._read(following)
        try:
            results = self._work([self._read(one).result() for one in group])
        except Exception as error:
            failed = isinstance(error, CsreconError) or is_out_of_memory(error)
            if len(group) == 1 or not failed:
                raise
            self._alone.update(group)  # so that each is processed, and may fail, alone
            group, results = [item], self._work([loaded])
        self._done.update(zip(group, results, strict=True))

    def _read(self, item: Item) -> "Future[Loaded]":
        if item not in self._loading:
            self._loading[item] = self._reader.submit(copy_context().run, self._load, item)
        return self._loading[item]

    def _group(self, item: Item, loaded: Loaded) -> list[Item]:
        """The item and its neighbours of equal batch key, up to the largest batch."""
        group, kind = [item], self._alike(loaded)
        if kind is None or item in self._alone:
            return group
        position = self._position[item]
        for other in self._items[position + 1 : position + self._most(loaded)]:
            reading = self._read(other)
            if other in self._alone or reading.exception() is not None:
                break  # its error is raised when it is taken
            if self._alike(reading.result()) != kind:
                break
            group.append(other)
        return group
