"""The CPU time of decoding and normalizing an image file, estimated before it is decoded.

The constants are upper bounds of what `python -m benchmarks normalize` measures on one core. An estimate does not
depend on the machine, so that a file is accepted everywhere or nowhere.
"""

# A decoded picture whose longer side is above this is reduced to at most this.
REDUCED_SIDE = 1024
# Milliseconds for the work that does not grow with a file, most of it normalizing.
FILE_MS = 5.5
# Nanoseconds for each byte of a PNG; for each compressed byte, as blocks may hold nothing but their tables; for each
# byte of the unpacked rows; and for each pixel without and with alpha, and more if it is interlaced.
PNG_BYTE_NS, COMPRESSED_NS, UNPACKED_NS, PIXEL_NS, ALPHA_NS, INTERLACED_NS = 3.0, 40.0, 7.2, 4.0, 10.0, 6.0
# Nanoseconds for each byte of a JPEG of one scan, which is decoded as it is read, and for each of its samples.
JPEG_BYTE_NS, JPEG_SAMPLE_NS = 8.5, 0.1
# The same for a JPEG that libjpeg keeps in memory, two bytes a sample, until its last scan; and for each sample in
# each scan.
KEPT_BYTE_NS, KEPT_SAMPLE_NS, SCAN_NS = 32.0, 4.0, 0.2
# Nanoseconds for each sample after the reduction.
REDUCED_NS = 3.0


def png_cost(size: int, compressed: int, unpacked: int, pixels: int, *, has_alpha: bool, interlaced: bool) -> float:
    """Milliseconds for a PNG of `size` bytes, `compressed` of which are pixels."""
    pixel_ns = (ALPHA_NS if has_alpha else PIXEL_NS) + INTERLACED_NS * interlaced
    return FILE_MS + 1e-6 * (
        PNG_BYTE_NS * size + COMPRESSED_NS * compressed + UNPACKED_NS * unpacked + pixel_ns * pixels
    )


def jpeg_cost(size: int, width: int, height: int, samples_per_pixel: float, kept_scans: int) -> float:
    """Milliseconds for a JPEG of `size` bytes.

    samples_per_pixel: 1.5 where colour has half the resolution.
    kept_scans: 0 for a file that is decoded as it is read.
    """
    samples = width * height * samples_per_pixel
    nanoseconds = REDUCED_NS * samples / jpeg_scale(width, height) ** 2
    if kept_scans:
        nanoseconds += KEPT_BYTE_NS * size + (KEPT_SAMPLE_NS + SCAN_NS * kept_scans) * samples
    else:
        nanoseconds += JPEG_BYTE_NS * size + JPEG_SAMPLE_NS * samples
    return FILE_MS + 1e-6 * nanoseconds


def jpeg_scale(width: int, height: int) -> int:
    """The factor, 1, 2, 4 or 8, by which a JPEG is reduced while it is decoded."""
    return next((scale for scale in (8, 4, 2) if max(width, height) > scale * REDUCED_SIDE // 2), 1)


def affordable_side(side: int, cost_ms: float, max_cost_ms: float) -> int:
    """The longer side at which a file of this side and cost would cost a little less than the maximum."""
    share = max(0, max_cost_ms - FILE_MS) / (cost_ms - FILE_MS)
    return max(1, int(0.95 * share**0.5 * side))
