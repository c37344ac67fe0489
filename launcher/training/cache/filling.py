"""How a list of keys is divided among processes, and writing behind the encoding."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

#: Batches that may wait to be written while the next ones are encoded.
_WAITING = 2


def divide(count: int, world_size: int, batch_size: int, limit: int) -> list[range]:
    """Divide `count` keys into units; process r of N takes every Nth, beginning with number r.

    As few as the limit allows, in a multiple of the number of processes, all of one size but the
    last, and of whole batches: no process has much more to do than another. What is there already
    plays no role, nor does the size of an entry, so a run that was killed divides the same way.

    Args:
        limit: entries in a unit.
    """
    if not count:
        return []
    limit = max(limit // batch_size, 1) * batch_size
    rounds = _ceil(count, limit * world_size)
    size = _ceil(_ceil(count, rounds * world_size), batch_size) * batch_size
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


class Behind:
    """Runs jobs in a thread, one after the other, while the caller goes on.

    with Behind() as behind:
        behind.do(writer.add, rows)     # waits only if too many are waiting

    At the end of the block all jobs are done. What one raises is raised by a later `do`, or at
    the end. An error in the block loses none of them, an interrupt those that have not begun.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cache-writer")
        self._jobs: deque[Future[Any]] = deque()

    def do(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Run a job after those before it."""
        while len(self._jobs) >= _WAITING:
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(job, *arguments))

    def wait(self) -> None:
        """Until all jobs are done."""
        while self._jobs:
            self._jobs.popleft().result()

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            interrupted = error is not None and not isinstance(error, Exception)
            self._pool.shutdown(wait=True, cancel_futures=interrupted)
