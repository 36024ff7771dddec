"""An upload to the row a model sees. Knows no operation."""

import numpy as np
from numpy.typing import NDArray

from app.api.deadlines import in_time
from app.api.dependencies import Call, ImageWorkers, while_connected
from app.checkpoints.manifest import ImageForm
from app.errors import InvalidImage
from app.images.decode import Picture, count_pixels, decode_image
from app.images.encode import to_uint8
from app.images.normalize import fit, has_form, normalize
from app.images.png import SIGNATURE as PNG_SIGNATURE
from app.settings import Settings

# An upload that is decoded on the event loop, and so many of them at once: some 200 us each.
TINY_BYTES, TINY_PIXELS, FEW = 2048, 32 * 32, 2


async def decoded(call: Call, contents: list[bytes], form: ImageForm, *, normalized: bool) -> NDArray[np.float32]:
    """Files to rows as `read_images` has them, as long as the caller is there and its time is not over.

    Raises InvalidImage, CallerGone, DeadlineExceeded.
    """
    if len(contents) <= FEW and all(map(is_tiny, contents)):
        # Less than a millisecond: a thread would cost more, and nobody hangs up meanwhile.
        pictures = [decode_image(content, max_side=call.settings.max_image_side) for content in contents]
        if not normalized or all(has_form(picture, form.shape[1]) for picture in pictures):
            return np.stack([to_row(picture, form, normalized=normalized) for picture in pictures])
    reading = read_images(contents, form, call.workers, call.settings, normalized=normalized)
    return await while_connected(call.request, in_time(reading, call.deadline))


async def read_images(
    contents: list[bytes], form: ImageForm, workers: ImageWorkers, settings: Settings, *, normalized: bool
) -> NDArray[np.float32]:
    """Files to rows `(n, 1, height, width)` in [0, 1], in the order given. Raises InvalidImage and Overloaded."""
    if len(contents) > 1:  # one is never over the limit, as settings are checked
        await workers.decode(check_pixels, contents, settings.max_image_side, settings.max_upload_pixels)
    rows = [
        await workers.decode(read_image, content, form, settings.max_image_side, normalized) for content in contents
    ]
    return np.stack(rows)


def check_pixels(contents: list[bytes], max_side: int, max_pixels: int) -> None:
    """Raises InvalidImage for files of more pixels in all, by their headers, before one of them is decoded.

    A megabyte holds hundreds of large pictures of one colour, each of which costs as much as a photo.
    """
    if sum(count_pixels(content, max_side=max_side) for content in contents) > max_pixels:
        raise InvalidImage(f"The images of a request may have {max_pixels} pixels in all; send fewer or smaller ones.")


def read_image(content: bytes, form: ImageForm, max_side: int, normalized: bool) -> NDArray[np.float32]:
    """One file to `(1, height, width)` in [0, 1], brought to the model's form unless told otherwise.

    The row is rounded to 8 bits: what the model sees is what a PNG of it shows. Raises InvalidImage.
    """
    return to_row(decode_image(content, max_side=max_side), form, normalized=normalized)


def is_tiny(content: bytes) -> bool:
    """Whether this can be nothing but a PNG of a few pixels, by its length and its header, or no image at all."""
    if len(content) > TINY_BYTES or not content.startswith(PNG_SIGNATURE):
        return False
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    return width * height <= TINY_PIXELS


def to_row(picture: Picture, form: ImageForm, *, normalized: bool) -> NDArray[np.float32]:
    """A picture to `(1, height, width)` in [0, 1], as `read_image` has it. Raises InvalidImage."""
    size = form.shape[1]
    if normalized and form.normalization is not None:
        row = normalize(picture, size=size, box=form.normalization.box)
    else:
        row = fit(picture, size=size)
    return to_unit(to_uint8(row))


def to_unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit images of any shape to float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)
