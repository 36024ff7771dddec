"""Read what a service answers: images, arrays, labels, problems and metrics."""

import base64
import io
import re
from typing import Any

import numpy as np
from httpx import Client, Response
from numpy.typing import NDArray
from PIL import Image

from app.errors import CAUSES

Pixels = NDArray[np.uint8]

PNG = {"Accept": "image/png"}
APNG = {"Accept": "image/apng"}
NPZ = {"Accept": "application/x-npz"}


def image(content: bytes) -> Pixels:
    """A gray image file as an array `(height, width)`."""
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.mode == "L"
        return np.asarray(opened)


def png_file(picture: Pixels | Image.Image) -> bytes:
    """A picture of Pillow, or an array `(height, width)`, as a PNG file."""
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, "PNG")
    return buffer.getvalue()


def side_by_side(*contents: bytes) -> bytes:
    """Gray image files of one height side by side on a dark ground, enlarged, as one PNG file."""
    pixels = np.pad(np.hstack([image(content) for content in contents]), 10)
    return png_file(pixels.repeat(4, 0).repeat(4, 1))


def frames(content: bytes) -> list[Pixels]:
    """The frames of an animation."""
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


def npz_of(answer: Response) -> dict[str, NDArray[Any]]:
    """The arrays of an npz answer."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-npz"
    return arrays(answer.content)


def unbase64(png: str) -> Pixels:
    """A base64 PNG of an answer as an array."""
    return image(base64.b64decode(png, validate=True))


def pixels_of(answer: Response) -> list[Pixels]:
    """The images of a JSON answer, in order."""
    assert answer.status_code == 200, answer.text
    return [unbase64(item["png"]) for item in answer.json()["images"]]


def labels_of(answer: Response, name: str = "images") -> list[str | None]:
    """The labels of the items of a JSON answer, in order."""
    assert answer.status_code == 200, answer.text
    return [item["label"] for item in answer.json()[name]]


def problem_of(answer: Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error answer, which must have the documented form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    if status == 503:
        assert answer.headers["retry-after"] in {"1", "2", "3"}
    return body


def assert_refused_naming(answer: Response, model: str, code: str = "capability_missing") -> None:
    """The answer is an error whose detail names `model` as one that can do what was requested."""
    words = re.findall(r"[\w-]+", problem_of(answer, 422, code)["detail"])
    assert model in words, words


def assert_named(answer: Response, model: str) -> None:
    """The headers of the answer name its origin."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model"] == model
    assert len(answer.headers["x-model-digest"]) == 64
    assert len(answer.headers["x-runtime"]) == 16
    assert answer.headers["vary"] == "Accept"


def metric(text: str, name: str, **labels: str) -> float:
    """The value of a series on the metrics page, 0 if it does not exist."""
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if found and dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")) == labels:
            return float(found[2])
    return 0.0


def measured(client: Client, name: str, **labels: str) -> float:
    """The value of a series of a service now."""
    return metric(client.get("/metrics").text, f"digits_{name}", **labels)


def errors(client: Client, code: str) -> float:
    """How many requests ended with an error of this code."""
    return measured(client, "request_errors_total", code=code, cause=CAUSES[code])


def series(text: str) -> set[str]:
    """The names and labels of all series on the metrics page."""
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")}
