"""The image decoder under atheris, a Python interface to libFuzzer.

`python -m tests.fuzz.decoder FOLDER [-option=value ...]` takes options of libFuzzer and keeps the inputs that reach new
branches in the folder. An input passes if it gives a valid picture or InvalidImage. The exit status is 0 if all passed.
"""

import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["app.images", "PIL"]):
    from app.errors import InvalidImage
    from app.images.decode import decode_image

from tests.corpus import files

MAX_BYTES = 2**20
# No limit on memory by default: libFuzzer reads the process's highest memory use (ru_maxrss), which includes that of
# the parent before exec.
OPTIONS = [f"-max_len={MAX_BYTES}", "-timeout=30", "-rss_limit_mb=0", "-print_final_stats=1", "-seed=1"]


def main() -> None:
    """Fuzz, starting from the corpus of files and the fixtures. Does not return: libFuzzer ends the process."""
    folder = Path(sys.argv[1])
    valid = [files.PNG, files.JPEG, *(path.read_bytes() for path in sorted(files.FIXTURES.rglob("*.*")))]
    for number, content in enumerate([*(files.BAD | files.ODD | files.BROKEN_EXIF).values(), *valid]):
        if len(content) <= MAX_BYTES:
            (folder / f"{number:04}").write_bytes(content)
    atheris.Setup([sys.argv[0], *OPTIONS, *sys.argv[2:], str(folder)], check)
    atheris.Fuzz()


def check(content: bytes) -> None:
    """Decode an input; a PNG also with its checksums corrected, without which no mutation would pass them."""
    decode(content)
    if content.startswith(files.SIGNATURE):
        decode(with_checksums(content))


def decode(content: bytes) -> None:
    """Raises whatever is neither a picture nor a refusal."""
    try:
        picture = decode_image(content)
    except InvalidImage:
        return
    assert 0 < max(picture.luminance.shape) <= 1024
    assert 0 <= picture.luminance.min() <= picture.luminance.max() <= 1


def with_checksums(content: bytes) -> bytes:
    """A PNG with the checksum of each chunk corrected."""
    parts, start = [content[:8]], 8
    while start + 12 <= len(content):
        length = int.from_bytes(content[start : start + 4])
        body = content[start + 4 : start + 8 + length]
        parts += [content[start : start + 4], body, zlib.crc32(body).to_bytes(4)]
        start += 12 + length
    return b"".join(parts)


if __name__ == "__main__":
    main()
