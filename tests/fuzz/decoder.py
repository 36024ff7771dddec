"""The decoder under atheris: bytes of libFuzzer's making, which learns from the branches that they reach.

A process of its own, as libFuzzer ends the one it runs in. Anything but a picture or a refusal ends it as a crash; what
took longest is written down, as times are for a person to judge.
"""

import argparse
import json
import sys
import tempfile
import zlib
from pathlib import Path
from time import perf_counter

import atheris

with atheris.instrument_imports(include=["app.images", "PIL"]):
    from app.errors import InvalidImage
    from app.images.decode import decode_image

from tests.corpus import files

MAX_BYTES = 2**20


class Slowest:
    """How many inputs there were, and which took longest."""

    def __init__(self, report: Path) -> None:
        self.report, self.runs, self.seconds = report, 0, 0.0

    def take(self, content: bytes, seconds: float) -> None:
        """Count an input; the slowest one is kept beside the report."""
        self.runs += 1
        if seconds > self.seconds:
            self.seconds = seconds
            self.report.with_suffix(".slowest").write_bytes(content)
        if self.runs % 500 == 0 or seconds >= self.seconds:
            self.write()

    def write(self) -> None:
        """The figures so far."""
        self.report.write_text(json.dumps({"inputs": self.runs, "slowest_s": self.seconds}))


def mended(content: bytes) -> bytes:
    """A PNG whose checksums are right, which those of mutations never are: without this none gets past them."""
    parts, start = [content[:8]], 8
    while start + 12 <= len(content):
        length = int.from_bytes(content[start : start + 4])
        body = content[start + 4 : start + 8 + length]
        parts += [content[start : start + 4], body, zlib.crc32(body).to_bytes(4)]
        start += 12 + length
    return b"".join(parts)


def main() -> None:
    """Fuzz for so many seconds from the corpus on; the exit status is libFuzzer's, 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.decoder")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=-1, help="end after so many inputs, too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, required=True, help="file that the figures are written to, as JSON")
    given = parser.parse_args()
    slowest = Slowest(given.report)

    def one(content: bytes) -> None:
        decode(content)
        if content.startswith(files.SIGNATURE):
            decode(mended(content))

    def decode(content: bytes) -> None:
        started = perf_counter()
        try:
            picture = decode_image(content)
        except InvalidImage:
            pass
        else:
            assert 0 < max(picture.luminance.shape) <= 1024
            assert 0 <= picture.luminance.min() <= picture.luminance.max() <= 1
        slowest.take(content, perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder:
        beginnings = {**files.BAD, **files.ODD, **files.BROKEN_EXIF, "png": files.PNG, "jpeg": files.JPEG}
        beginnings |= {path.name: path.read_bytes() for path in sorted(files.FIXTURES.rglob("*.*"))}
        for number, content in enumerate(content for content in beginnings.values() if len(content) <= MAX_BYTES):
            (Path(folder) / f"{number:04}").write_bytes(content)
        options = {
            "max_total_time": given.seconds,
            "runs": given.runs,
            "seed": given.seed,
            "max_len": MAX_BYTES,
            "timeout": 30,
            "rss_limit_mb": 2048,
            "verbosity": 0,
            "artifact_prefix": f"{given.report}.",
        }
        atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), folder], one)
        slowest.write()
        atheris.Fuzz()


if __name__ == "__main__":
    main()
