"""What to tell a user whose device has no memory left.

MindSpore says so by a RuntimeError, after which it goes on working: what failed has given its
memory back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from launcher.training.errors import UserError

#: Of the messages of MindSpore 2.10, on an NPU (its backends `ms_backend` and `ge_backend`) and on
#: the CPU.
_EXHAUSTED = re.compile(
    r"memory (not|isn't) enough|alloc\w* (\w+ )?memory failed|out of memory", re.IGNORECASE
)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that there is no memory left."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and _EXHAUSTED.search(str(error)) is not None


@contextmanager
def needed_for(task: str, way_out: str) -> Iterator[None]:
    """Say in a paragraph when the memory does not suffice for what the block does.

    Args:
        task: what it does: `a training step`.
        way_out: what the user can do, in sentences.

    Raises:
        UserError: it does not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_exhausted(error):
            raise
        raise UserError(
            f"there is not enough memory for {task}{_detail(error)}. {way_out}"
        ) from error


def _detail(error: BaseException) -> str:
    """What MindSpore says of it, behind a colon; its headings are left out."""
    for line in str(error).splitlines():
        if _EXHAUSTED.search(line) and not line.startswith("- "):
            return f": {line.strip().rstrip('.')}"
    return ""
