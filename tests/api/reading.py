"""What tests read out of answers."""

import base64
import io
from typing import Any

import numpy as np
from httpx import Response
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def image(content: bytes) -> Pixels:
    """A grey image file as an array `(height, width)`."""
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.mode == "L"
        return np.asarray(opened)


def frames(content: bytes) -> list[Pixels]:
    """Every frame of an animation."""
    with Image.open(io.BytesIO(content)) as opened:
        taken = []
        for number in range(getattr(opened, "n_frames", 1)):
            opened.seek(number)
            taken.append(np.asarray(opened.convert("L")))
        return taken


def arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


def unbase64(png: str) -> Pixels:
    """A base64 PNG of an answer as an array."""
    return image(base64.b64decode(png, validate=True))


def pixels_of(answer: Response) -> list[Pixels]:
    """The images of a JSON answer, in order."""
    assert answer.status_code == 200, answer.text
    return [unbase64(item["png"]) for item in answer.json()["images"]]


def problem_of(answer: Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error answer, once its form was checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


def assert_named(answer: Response, model: str) -> None:
    """Every answer names model, digest and runtime in its headers."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model"] == model
    assert len(answer.headers["x-model-digest"]) == 64
    assert len(answer.headers["x-runtime"]) == 16
    assert answer.headers["vary"] == "Accept"
