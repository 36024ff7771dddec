"""An upload to the row a model sees. Knows no operation."""

import numpy as np
from numpy.typing import NDArray

from app.api.deadlines import in_time
from app.api.dependencies import Call, ImageWorkers, while_connected
from app.checkpoints.manifest import ImageForm
from app.errors import InvalidImage
from app.images.decode import count_pixels, decode_image
from app.images.encode import to_uint8
from app.images.normalize import fit, normalize
from app.settings import Settings


async def decoded(call: Call, contents: list[bytes], form: ImageForm, *, normalized: bool) -> NDArray[np.float32]:
    """Files to rows as `read_images` has them, as long as the caller is there and its time is not over.

    Raises InvalidImage, CallerGone, DeadlineExceeded.
    """
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
    picture = decode_image(content, max_side=max_side)
    size = form.shape[1]
    if normalized and form.normalization is not None:
        row = normalize(picture, size=size, box=form.normalization.box)
    else:
        row = fit(picture, size=size)
    return to_unit(to_uint8(row))


def to_unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit images of any shape to float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)
