"""What decoding and normalizing an upload takes of one core: honest files, and the costliest that are accepted."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf
from statistics import median
from time import process_time

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import BaseModel

from app.errors import InvalidImage
from app.images.cost import affordable_side
from app.images.decode import decode_image, estimate_cost
from app.images.normalization import normalize
from benchmarks.paths import FIXTURES
from tests.corpus.files import SIGNATURE, built, chunk, empty_blocks, header, saved, scanned

Grey = NDArray[np.uint8]

SIDES = (128, 1024)
ROUNDS = 5
ACCEPTED_MS = 50  # by default


class Cost(BaseModel):
    """Milliseconds of one core over the files of a kind; of each file the median of the rounds.

    largest_bytes: the size of the largest file.
    estimate_ms: the highest estimate, which the service bounds.
    """

    kind: str
    files: int
    largest_bytes: int
    estimate_ms: float
    median_ms: float
    worst_ms: float


def measure(rounds: int = ROUNDS) -> Iterator[Cost]:
    """Yields each kind as it is measured. A blank picture counts; a file that is refused earlier is an error."""
    for kind, contents in kinds().items():
        files = contents()
        times = [median(_milliseconds(content) for _ in range(rounds)) for content in files]
        yield Cost(
            kind=kind,
            files=len(files),
            largest_bytes=max(map(len, files)),
            estimate_ms=max(map(estimate_cost, files)),
            median_ms=median(times),
            worst_ms=max(times),
        )


def kinds() -> dict[str, Callable[[], list[bytes]]]:
    """The files of each kind, made when they are measured."""
    found: dict[str, Callable[[], list[bytes]]] = {
        "MNIST digits, 28 x 28": lambda: _fixtures("mnist"),
        "drawings and photos of the tests": lambda: _fixtures("drawings"),
    }
    for side in SIDES:
        found[f"line drawings, {side} x {side}"] = partial(_lines, side)
        found[f"noise, gradients, checkerboards, {side} x {side}"] = partial(_patterns, side)
    return found | {
        "transparent drawings, 1024 x 1024": lambda: [_transparent(seed) for seed in range(8)],
        "photos, 12 megapixels, baseline JPEG": lambda: [_photo(4000, 3000, seed) for seed in range(4)],
        "photos, 2 megapixels, progressive JPEG": lambda: [
            _photo(1600, 1200, seed, progressive=True) for seed in range(4)
        ],
        "hostile PNGs at the bound": _pngs,
        "hostile JPEGs at the bound": lambda: [make(_largest(make)) for make in _jpegs()],
    }


def markdown(costs: list[Cost]) -> str:
    """A table with a row a kind."""
    lines = ["| files | number | largest, KiB | estimate, ms | median, ms | worst, ms |", "| --- " * 6 + "|"]
    for cost in costs:
        figures = f"{cost.largest_bytes / 1024:,.1f} | {cost.estimate_ms:.1f} | {cost.median_ms:.1f}"
        lines.append(f"| {cost.kind} | {cost.files} | {figures} | {cost.worst_ms:.1f} |")
    return "\n".join(lines)


def _milliseconds(content: bytes) -> float:
    """The time of all threads: where NumPy multiplies matrices on several, all of them count."""
    started = process_time()
    picture = decode_image(content)
    with suppress(InvalidImage):  # a blank picture, which is found at the end
        normalize(picture)
    return 1000 * (process_time() - started)


def _fixtures(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((FIXTURES / folder).iterdir())]


def _drawing(side: int, seed: int) -> Image.Image:
    """A polyline of one to eight lines in a pen of one to eight pixels."""
    random = np.random.default_rng(seed)
    image = Image.new("1", (side, side), 1)
    points = random.integers(0, side, (int(random.integers(2, 10)), 2))
    ImageDraw.Draw(image).line([(int(x), int(y)) for x, y in points], fill=0, width=int(random.integers(1, 9)))
    return image


def _lines(side: int) -> list[bytes]:
    return [saved(_drawing(side, seed), "PNG") for seed in range(64)]


def _patterns(side: int) -> list[bytes]:
    random = np.random.default_rng(0)
    places = np.indices((side, side))
    pictures = [random.integers(0, 16, (side, side)) * 17, np.where(random.random((side, side)) < 0.02, 0, 255)]
    pictures += [places[1] * 255 // side, places.sum(axis=0) * 127 // side, places[0] // 4 % 2 * 255]
    pictures += [(places // cell).sum(axis=0) % 2 * 255 for cell in (1, 2, 3, 8, side // 8)]
    return [saved(Image.fromarray(picture.astype(np.uint8)), "PNG") for picture in pictures]


def _transparent(seed: int) -> bytes:
    ink = ~np.asarray(_drawing(1024, seed).convert("L"))
    return saved(Image.fromarray(np.dstack([np.zeros((1024, 1024, 3), np.uint8), ink])), "PNG")


def _photo(width: int, height: int, seed: int, **options: object) -> bytes:
    """A drawing on paper that is lit from one side, with the grain of a camera."""
    random = np.random.default_rng(seed)
    ink = np.asarray(_drawing(64, seed).convert("L").resize((width, height)), dtype=np.float32)
    light = np.linspace(1, 0.5, width, dtype=np.float32)
    grain = random.normal(0, 10, (height, width, 1)) + random.normal(0, 4, (height, width, 3))
    pixels = ((60 + ink * 0.6) * light)[:, :, None] + grain
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return saved(image, "JPEG", quality=88, **options)


def _largest(make: Callable[[int], bytes], side: int = 4096) -> int:
    """Nearly the longest side, at most this one, at which the file is accepted."""
    while (cost := estimate_cost(make(side), max_cost_ms=inf)) > ACCEPTED_MS:
        side = affordable_side(side, cost, ACCEPTED_MS)
    return side


def _pngs() -> list[bytes]:
    """Rows that take long to unpack, and to predict by the Paeth filter, in each form of pixels."""
    palette, transparent = chunk(b"PLTE", bytes(3) + b"\xff" * 3), chunk(b"tRNS", b"\0\1")
    forms = [(1, 0, 1, b""), (1, 0, 1, transparent), (1, 3, 1, palette), (8, 0, 8, b""), (8, 0, 8, transparent)]
    forms += [(8, 2, 24, b""), (8, 6, 32, b""), (16, 0, 16, b""), (16, 6, 64, b"")]
    interlaced = [(1, 0, 1, b"", 1), (8, 0, 8, b"", 1), (8, 6, 32, b"", 1)]
    forms += [(16, 0, 16, chunk(b"tRNS", b"\0\1"))]
    return [*(_png(*form) for form in forms), *(_png(*form) for form in interlaced), _empty_blocks()]


def _empty_blocks() -> bytes:
    """As many blocks without pixels as are accepted."""
    rows, count = bytes(65 * 64), 200_000

    def make() -> bytes:
        return SIGNATURE + header(64, 64) + chunk(b"IDAT", empty_blocks(count, rows)) + chunk(b"IEND")

    while estimate_cost(make(), max_cost_ms=inf) > ACCEPTED_MS:
        count = count * 19 // 20
    return make()


def _png(depth: int, colour: int, bits: int, extra: bytes, interlace: int = 0) -> bytes:
    def make(side: int) -> bytes:
        random = np.random.default_rng(0)
        rows = np.full((side, 1 + (side * bits + 7) // 8), 4, dtype=np.uint8)
        samples = random.integers(0, 256, (3, *rows[:, 1:].shape), dtype=np.uint8)
        rows[:, 1:] = samples[0] & samples[1] & samples[2]
        if interlace:  # the rows of seven smaller pictures, with more filter bytes
            return built(header(side, side, depth, colour, interlace), bytes(rows.size + 16 * side), extra)
        return built(header(side, side, depth, colour), rows.tobytes(), extra)

    # First by the header alone, as the rows of a large picture take long to make.
    side = _largest(lambda side: built(header(side, side, depth, colour, interlace), b"", extra))
    return make(_largest(make, side))


def _jpegs() -> Iterator[Callable[[int], bytes]]:
    """Much data for each pixel, many scans, and four planes of full resolution."""
    yield lambda side: saved(_noise(side), "JPEG", quality=60)
    yield lambda side: saved(_noise(side), "JPEG", quality=60, subsampling=0)
    yield lambda side: saved(_noise(side), "JPEG", quality=60, progressive=True)
    yield lambda side: saved(_noise(side).convert("CMYK"), "JPEG", quality=60)
    yield lambda side: scanned(_noise(side), 20)
    yield lambda side: scanned(Image.new("RGB", (side, side), (1, 200, 3)), 20)


def _noise(side: int) -> Image.Image:
    tile: Grey = np.random.default_rng(0).normal(128, 40, (256, 256, 3)).clip(0, 255).astype(np.uint8)
    times = -(-side // 256)
    return Image.fromarray(np.tile(tile, (times, times, 1))[:side, :side])
