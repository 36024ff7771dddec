"""ZIP and IDX files, written front to back while the caller reads them.

`zipfile` keeps an object of several hundred bytes for each entry and writes one entry at a time. Here workers write the
entries of a whole batch, and a stream keeps 46 bytes and the name of each for the directory at the end.

Sources: APPNOTE.TXT, .ZIP File Format Specification, version 6.3.10, PKWARE 2022; Y. LeCun et al., "The MNIST database
of handwritten digits" (IDX).
"""

import struct
import zlib
from urllib.parse import quote

# The headers of sections 4.3.7, 4.3.12, 4.3.14, 4.3.15 and 4.3.16.
LOCAL = struct.Struct("<4sHHHHHIIIHH")
CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
END_64 = struct.Struct("<4sQHHIIQQQQ")
LOCATOR_64 = struct.Struct("<4sIQI")
END = struct.Struct("<4sHHHHIIH")
VERSION, VERSION_64 = 20, 45
UTF_8_NAME = 1 << 11
STORED = 0  # a PNG is compressed
TIME, DATE = 0, 0x21  # 1980-01-01, so that the same images have the same bytes
MAX_16, MAX_32 = 2**16 - 1, 2**32 - 1

IDX_UINT8 = 0x08
MAX_IDX_CLASSES = 256


def zip_entry(name: str, content: bytes) -> bytes:
    """A file of an archive: its header and its content."""
    encoded = name.encode()
    header = LOCAL.pack(
        b"PK\x03\x04",
        VERSION,
        UTF_8_NAME,
        STORED,
        TIME,
        DATE,
        zlib.crc32(content),
        len(content),
        len(content),
        len(encoded),
        0,
    )
    return header + encoded + content


class ZipDirectory:
    """The directory at the end of an archive, from the entries that were written before it."""

    def __init__(self, offset: int = 0) -> None:
        """offset: bytes of the file before the first entry."""
        self._records = bytearray()
        self._count = 0
        self._offset = offset  # of the next entry

    def add(self, entries: bytes) -> None:
        """Add entries made by `zip_entry` to the directory. They follow those added before."""
        position = 0
        while position < len(entries):
            (_, version, flags, method, time, date, crc, size, _, length, _) = LOCAL.unpack_from(entries, position)
            start = position + LOCAL.size
            offset = self._offset + position
            # Section 4.5.3: an offset beyond 4 GiB is an extra field.
            extra = struct.pack("<HHQ", 1, 8, offset) if offset >= MAX_32 else b""
            sizes = crc, size, size, length, len(extra)
            fields = VERSION_64 if extra else version, flags, method, time, date, *sizes, 0, 0, 0, 0
            self._records += CENTRAL.pack(b"PK\x01\x02", VERSION, *fields, min(offset, MAX_32))
            self._records += entries[start : start + length] + extra
            self._count += 1
            position = start + length + size
        self._offset += len(entries)

    def end(self) -> bytes:
        """The directory."""
        count, size, offset = self._count, len(self._records), self._offset
        end = END.pack(b"PK\x05\x06", 0, 0, *[min(count, MAX_16)] * 2, min(size, MAX_32), min(offset, MAX_32), 0)
        if count >= MAX_16 or offset + size >= MAX_32:
            place = count, count, size, offset
            end_64 = END_64.pack(b"PK\x06\x06", END_64.size - 12, VERSION_64, VERSION_64, 0, 0, *place)
            end = end_64 + LOCATOR_64.pack(b"PK\x06\x07", 0, offset + size, 1) + end
        return bytes(self._records) + end


def folder_name(name: str) -> str:
    """A class name as the name of a folder, without slashes or a dot in front: `T-shirt%2Ftop`."""
    quoted = quote(name, safe=" ()&'!+")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def idx_header(*shape: int) -> bytes:
    """The header of an IDX file of bytes in an array of this shape; the bytes follow it."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, IDX_UINT8, len(shape), *shape)
