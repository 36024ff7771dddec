"""The bytes of requests whose turn has not come, of one connection and of all. Knows no protocol."""

from dataclasses import dataclass

# What may wait behind a request whose answer is not there yet, and behind those of all callers.
MAX_HELD_BYTES, MAX_HELD_BYTES_OF_ALL = 5 * 2**18, 2**26


@dataclass
class Held:
    """Bytes that wait in all connections of a server."""

    count: int = 0


class Backlog:
    """What came on one connection after a request that still waits for the one before it. True while it has bytes."""

    __slots__ = ("_all", "_bytes")

    def __init__(self, all_held: Held) -> None:
        self._all = all_held
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    def hold(self, data: bytes) -> bool:
        """Whether it is kept; where it would be too much, nothing is, nor what was kept before."""
        self._bytes += data
        self._all.count += len(data)
        if len(self._bytes) > MAX_HELD_BYTES or self._all.count > MAX_HELD_BYTES_OF_ALL:
            self.clear()
            return False
        return True

    def take(self, most: int) -> bytes:
        """The first bytes, `most` or what there is; they are held no more."""
        part = bytes(self._bytes[:most])
        del self._bytes[:most]
        self._all.count -= len(part)
        return part

    def clear(self) -> None:
        """Let go of everything."""
        self._all.count -= len(self._bytes)
        self._bytes.clear()
