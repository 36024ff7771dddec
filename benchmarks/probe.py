"""One request of a cell, its answer looked at for real, before any load."""

import base64
import binascii
import http.client
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.cells import Cell
from benchmarks.load import MULTIPART, upload_body
from benchmarks.places import UPLOAD

TIMEOUT_S = 60
SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDE = 28
LEAST_LIKENESS = 0.6  # correlation of a reconstruction with its original


class ProbeFailed(Exception):
    """The answer is not what was asked for."""


def probe(port: int, path: str, cell: Cell) -> None:
    """Raises ProbeFailed unless the server does what the cell is about."""
    if cell.operation == "reconstruct":
        check_reconstruction(images_of(ask(port, path, MULTIPART, upload_body())))
        return
    answers = [
        images_of(ask(port, path, "application/json", json.dumps(body).encode()))
        for body in ({"model": cell.model, "n": cell.n, "seed": seed} for seed in (1, 2))
    ]
    check_generated(answers, cell.n)


def ask(port: int, path: str, content_type: str, body: bytes) -> Any:
    """The JSON of the answer. Raises ProbeFailed for any other status than 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise ProbeFailed(f"status {answer.status}: {content[:500]!r}")
        return json.loads(content)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ProbeFailed(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def images_of(answer: Any) -> list[NDArray[np.uint8]]:
    """Every PNG of an answer, wherever in its JSON."""
    images = []
    for content in _pngs(answer):
        with Image.open(io.BytesIO(content)) as opened:
            if opened.size != (SIDE, SIDE):
                raise ProbeFailed(f"an image is {opened.size}")
            images.append(np.asarray(opened.convert("L")))
    return images


def check_generated(answers: list[list[NDArray[np.uint8]]], n: int) -> None:
    """`n` images an answer, with ink, not one and the same."""
    for images in answers:
        if len(images) != n:
            raise ProbeFailed(f"{len(images)} images, {n} were asked for")
        if any(image.max() < 64 for image in images):
            raise ProbeFailed("an image without ink")
    if len({image.tobytes() for images in answers for image in images}) != n * len(answers):
        raise ProbeFailed("images of different latents are equal")


def check_reconstruction(images: list[NDArray[np.uint8]]) -> None:
    """The last image is like the one that was sent."""
    if not images:
        raise ProbeFailed("no image")
    with Image.open(UPLOAD) as opened:
        original = np.asarray(opened.convert("L"))
    likeness = float(np.corrcoef(original.flatten(), images[-1].flatten())[0, 1])
    if not likeness >= LEAST_LIKENESS:
        raise ProbeFailed(f"the reconstruction is unlike the original: correlation {likeness:.2f}")


def _pngs(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _pngs(item)
    elif isinstance(value, str):
        try:
            content = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return
        if content.startswith(SIGNATURE):
            yield content
