"""What the C library keeps of the memory that was given back to it. Knows nothing of who did."""

import ctypes
import sys
from collections.abc import Callable
from typing import cast


def trim() -> None:
    """Give to the system what the allocator holds free, of all threads, where it is glibc's or one that takes this.

    glibc's hands what a thread frees to that thread, and to the system seldom.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def _find() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    return cast(Callable[[int], int] | None, getattr(ctypes.CDLL(None), "malloc_trim", None))  # musl has none


_malloc_trim = _find()
