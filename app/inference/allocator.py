"""What the C library keeps of the memory that was given back to it. Knows nothing of who did."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def trim() -> None:
    """Give to the system what the allocator holds free, of all threads; nothing where that is not glibc's.

    glibc keeps what a thread has freed for that thread, and gives little of it to the system by itself.
    """
    if (malloc_trim := find_malloc_trim()) is not None:
        malloc_trim(0)


@cache
def find_malloc_trim() -> Callable[[int], int] | None:
    """The function of glibc's that gives back all but so many bytes; None for any other C library."""
    function = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if function is not None:
        function.argtypes = [ctypes.c_size_t]
    return function
