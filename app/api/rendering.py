"""Generated images rendered as JSON, npz, animated PNG or a PNG grid, on workers.

`images.encode` draws the grid and writes the files.
"""

from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.api.negotiation import APNG, JSON, NPZ
from app.api.responses import json_with_list, to_json
from app.images import encode
from app.images.encode import Pixels
from app.inference.model import Provenance
from app.inference.runtime import Labels

NO_FIELDS: Mapping[str, Sequence[Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RenderedImages:
    """Consecutive images of a response, the result of one chunk."""

    pixels: Pixels  # (n, H, W)
    arrays: Mapping[str, NDArray[Any]]  # the other arrays of an npz, each (n, ...)
    items: bytes  # the JSON items of the images, if the response is JSON


@dataclass(frozen=True, slots=True)
class ImageRenderer:
    """Renders the images of one response."""

    media_type: str
    provenance: Provenance
    classes: tuple[str, ...]
    scale: int
    columns: int | None  # of a PNG grid; None: square

    def part(
        self,
        pixels: Pixels,
        labels: Labels | None,
        first: int,
        fields: Mapping[str, Sequence[Any]] = NO_FIELDS,
        **arrays: NDArray[Any],
    ) -> RenderedImages:
        """The part with images `(n, H, W)`, whose first one has the index `first`.

        labels: `(n,)`, -1 for an image without one; None if none has one. fields: as in `json_items`. arrays: of an
        npz besides images, index and labels, each `(n, ...)`.
        """
        items = b""
        if self.media_type == JSON:
            items = b",".join(json_items(pixels, labels, first, self.classes, self.scale, fields))
        arrays["index"] = np.arange(first, first + len(pixels), dtype=np.int64)
        if labels is not None:
            arrays["labels"] = labels
        return RenderedImages(pixels, arrays, items)

    def content(self, parts: Sequence[RenderedImages], fields: dict[str, Any]) -> bytes:
        """The body of the response. fields: of JSON, before the images."""
        if self.media_type == JSON:
            return json_with_list(self.provenance, fields, "images", b",".join(part.items for part in parts))
        pixels = np.concatenate([part.pixels for part in parts])
        if self.media_type == NPZ:
            arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
            return encode.npz(images=pixels, **arrays)
        if self.media_type == APNG:
            return encode.apng(pixels, scale=self.scale)
        return encode.png(encode.grid(pixels, self.columns), scale=self.scale)


def json_items(
    pixels: Pixels,
    labels: Labels | None,
    first: int,
    classes: tuple[str, ...],
    scale: int,
    fields: Mapping[str, Sequence[Any]] = NO_FIELDS,
) -> list[bytes]:
    """The JSON item of each image `(n, H, W)`, whose first one has the index `first`.

    labels: as in `ImageRenderer`. fields: further fields of the items by name, a value for each image.
    """
    names = [b"null"] * len(pixels)
    if labels is not None:
        names = [b"null" if label < 0 else _json_name(classes[label]) for label in labels.tolist()]
    more = [
        b"".join(b',"%b":%b' % (name.encode(), to_json(values[i]).encode()) for name, values in fields.items())
        for i in range(len(pixels))
    ]
    return [
        b'{"index":%d,"label":%b,"png":"%b"%b}' % (first + i, name, base64_png(image, scale), rest)
        for i, (name, image, rest) in enumerate(zip(names, pixels, more, strict=True))
    ]


@lru_cache(maxsize=4096)
def _json_name(name: str) -> bytes:
    return to_json(name).encode()


def base64_png(image: Pixels, scale: int) -> bytes:
    """An image `(H, W)` as a PNG in base64."""
    return b2a_base64(encode.png(image, scale=scale), newline=False)
