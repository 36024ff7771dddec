"""Checks that a server does the work of a workload, before any load."""

import base64
import io
import json
from http.client import HTTPException
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.paths import UPLOAD
from benchmarks.processes import ServerProcess
from benchmarks.workloads import Workload
from benchmarks.wrk import MULTIPART, upload_body

LEAST_INK = 64  # of 255, the brightest pixel
LEAST_CORRELATION = 0.6  # of a reconstruction with its original
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n")[:10].decode()


class AnswerWrong(Exception):
    """The answer is not what was asked for."""


def check_answers(server: ServerProcess, path: str, workload: Workload) -> None:
    """Raises AnswerWrong unless `n` different images a seed, or a reconstruction of the upload, come back."""
    if workload.operation == "reconstruct":
        images = post(server, path, upload_body(), MULTIPART)
        with Image.open(UPLOAD) as opened:
            original = np.asarray(opened.convert("L"))
        if not images or np.corrcoef(original.ravel(), images[-1].ravel())[0, 1] < LEAST_CORRELATION:
            raise AnswerWrong("the reconstruction is unlike the upload")
        return
    images = []
    for seed in (1, 2):
        body = {"model": workload.model, "n": workload.n, "seed": seed}
        images += post(server, path, json.dumps(body).encode(), "application/json")
    if len(images) != 2 * workload.n:
        raise AnswerWrong(f"{len(images)} images for two requests of {workload.n}")
    if min(image.max() for image in images) < LEAST_INK or len({image.tobytes() for image in images}) < len(images):
        raise AnswerWrong("images are empty or equal")


def post(server: ServerProcess, path: str, body: bytes, content_type: str) -> list[NDArray[np.uint8]]:
    """The images of an answer. Raises AnswerWrong for any status other than 200."""
    try:
        status, _, content = server.ask(path, body, content_type)
        if status != 200:
            raise AnswerWrong(f"status {status}: {content[:500]!r}")
        return images_of(json.loads(content))
    except (OSError, HTTPException, ValueError) as error:
        raise AnswerWrong(f"{type(error).__name__}: {error}") from error


def images_of(answer: Any) -> list[NDArray[np.uint8]]:
    """Every base64 PNG in a JSON value, in order, as `(28, 28)`. Raises AnswerWrong for images of another size."""
    if isinstance(answer, dict | list):
        values = answer.values() if isinstance(answer, dict) else answer
        return [image for value in values for image in images_of(value)]
    if not isinstance(answer, str) or not answer.startswith(PNG):
        return []
    with Image.open(io.BytesIO(base64.b64decode(answer))) as opened:
        if opened.size != (28, 28):
            raise AnswerWrong(f"an image of {opened.size} pixels")
        return [np.asarray(opened.convert("L"))]
