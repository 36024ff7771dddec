"""What one request costs inside the process, part by part, without a server: microseconds of one thread."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from statistics import median
from time import perf_counter, sleep
from typing import Any, NamedTuple

from pydantic import SecretStr

from app.api.answers import base64_png, json_answer
from app.api.requests import GenerateRequest
from app.images.encode import to_uint8
from app.inference.engine import Engine, Provenance
from app.inference.latents import normal_rows
from app.inference.sampling import Choices, draw
from app.main import create_app
from app.readiness import Readiness
from app.settings import Settings
from benchmarks.machine import facts
from benchmarks.places import RESULTS, ROOT

BODY = b'{"model":"vae","n":1,"seed":7}'
KEY = "a-key-for-the-benchmark"
REPEATS, CALLS = 9, 200


class Part(NamedTuple):
    """The median over some hundreds of calls."""

    name: str
    microseconds: float


async def measure() -> list[Part]:
    """The parts of `POST /generate` of one image of the VAE, then the whole of it."""
    logging.disable()
    parts = [*await _parts(), Part("the same by way of the router, where a key is asked for", await _with_a_key())]
    logging.disable(logging.NOTSET)
    return parts


async def _parts() -> list[Part]:
    app = create_app(Settings(models_dir=ROOT / "models", device="cpu"), readiness=(readiness := Loaded()))
    async with app.router.lifespan_context(app) as state:
        engine = await readiness.wait()
        model = engine.models["vae"]
        latents = normal_rows(7, 0, 1, model.manifest.latent_dim)
        network = model.networks["generate"]
        ((images,),) = network.compute([latents])
        pixels = to_uint8(images[:, 0])
        origin = Provenance("vae", "0" * 64, "float32", "0" * 16)
        return [
            Part("drawing noise and label", _median(lambda: draw(model.manifest, Choices(), 7, 0, 1))),
            Part("the forward pass, one row", _median(lambda: network.compute([latents]))),
            Part("the same after 5 ms of rest", _rested(lambda: network.compute([latents]))),
            Part("8-bit pixels", _median(lambda: to_uint8(images[:, 0]))),
            Part("PNG and base64", _median(lambda: base64_png(pixels[0], 1))),
            Part("checking the body", _median(lambda: GenerateRequest.model_validate_json(BODY))),
            Part("JSON of the answer", _median(lambda: json_answer(origin, {"seed": 7}, b"[]"))),
            Part(
                "`GET /livez`: middleware, router and FastAPI",
                await _median_of(lambda: _ask(app, state, "GET", "/livez")),
            ),
            Part("`POST /generate`: all of it", await _median_of(lambda: _ask(app, state, "POST", "/generate", BODY))),
        ]


async def _with_a_key() -> float:
    settings = Settings(models_dir=ROOT / "models", device="cpu", api_key=SecretStr(KEY))
    app = create_app(settings, readiness=(readiness := Loaded()))
    async with app.router.lifespan_context(app) as state:
        await readiness.wait()
        return await _median_of(lambda: _ask(app, state, "POST", "/generate", BODY))


class Loaded(Readiness):
    """Tells when the models are there."""

    def __init__(self) -> None:
        super().__init__()
        self._event = asyncio.Event()

    def loaded(self, engine: Engine) -> None:
        """Called by the app."""
        super().loaded(engine)
        self._event.set()

    async def wait(self) -> Engine:
        """The engine, once there is one."""
        await self._event.wait()
        return self.engine()


async def _ask(app: Any, state: Any, method: str, path: str, body: bytes = b"") -> None:
    """One request to the app as a server would pass it on. Raises RuntimeError for any status but 200."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    status = 0

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1"}
    scope |= {"method": method, "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http"}
    key = b"Bearer " + KEY.encode()  # which nobody looks at where none is asked for
    scope |= {"headers": [(b"content-type", b"application/json"), (b"authorization", key)]}
    scope |= {"server": None, "client": None}
    await app(scope | {"state": dict(state)}, receive, send)
    if status != 200:
        raise RuntimeError(f"{method} {path} gave {status}")


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        started = perf_counter()
        for _ in range(CALLS):
            call()
        times.append((perf_counter() - started) / CALLS)
    return 1e6 * median(times)


def _rested(call: Callable[[], object]) -> float:
    """As between the requests of one caller: a core that rested has cold caches."""
    times = []
    for _ in range(CALLS):
        sleep(0.005)
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return 1e6 * median(times)


async def _median_of(call: Callable[[], Coroutine[Any, Any, None]]) -> float:
    times = []
    for _ in range(REPEATS):
        started = perf_counter()
        for _ in range(CALLS):
            await call()
        times.append((perf_counter() - started) / CALLS)
    return 1e6 * median(times)


def markdown(parts: list[Part]) -> str:
    """A table of the parts."""
    lines = ["| part | microseconds |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {part.name} | {part.microseconds:.0f} |" for part in parts)])


def write(parts: list[Part]) -> None:
    """Keep the figures with the facts of the machine."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"machine": facts("none"), "parts": [part._asdict() for part in parts]}
    (RESULTS / "parts.json").write_text(json.dumps(content, indent=1) + "\n")


def read() -> list[Part]:
    """What `write` kept."""
    return [Part(**part) for part in json.loads((RESULTS / "parts.json").read_text())["parts"]]
