"""Plain FastAPI, batched by hand: the event loop parses and queues, a worker thread does the rest once a batch."""

import asyncio
import multiprocessing
import signal
import socket
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, Response
from pydantic import BaseModel
from torch import Tensor

from benchmarks.peers import rows


class GenerateRequest(BaseModel):
    """Images of a seed."""

    model: str
    n: int
    seed: int


class Batches:
    """Requests wait while the worker thread computes a batch; the next batch has all of them."""

    def __init__(self) -> None:
        self._models = rows.load_archives()
        self._worker = ThreadPoolExecutor(1)
        self._waiting: list[tuple[GenerateRequest | bytes, asyncio.Future[bytes]]] = []
        self._busy = False

    async def answer(self, asked: GenerateRequest | bytes) -> Response:
        """Images of a seed, or the reconstruction of an upload."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        self._start()
        return Response(await future, media_type="application/json")

    def _start(self) -> None:
        if self._busy or not self._waiting:
            return
        self._busy = True
        size = rows.knobs()["max_batch_size"]
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        computing = asyncio.get_running_loop().run_in_executor(self._worker, self._compute, [one for one, _ in batch])
        computing.add_done_callback(partial(self._finish, [future for _, future in batch]))

    def _compute(self, batch: list[GenerateRequest | bytes]) -> list[bytes]:
        return [rows.to_json(images) for images in rows.run_batch(self._models, [*map(read, batch)])]

    def _finish(self, futures: list[asyncio.Future[bytes]], computed: asyncio.Future[list[bytes]]) -> None:
        self._busy = False
        self._start()
        for future, body in zip(futures, computed.result(), strict=True):
            if not future.done():
                future.set_result(body)


def read(asked: GenerateRequest | bytes) -> tuple[str, Tensor]:
    """A request as `rows.run_batch` takes it."""
    if isinstance(asked, bytes):
        return rows.RECONSTRUCT, rows.read_image(asked)
    return asked.model, rows.draw_latents(asked.model, asked.n, asked.seed)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the models once, before the first request."""
    app.state.batches = Batches()
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/ready")
async def ready() -> dict[str, str]:
    """Readiness."""
    return {"status": "ok"}


@app.post("/generate")
async def generate(request: GenerateRequest) -> Response:
    """Images of a seed, by a batch."""
    batches: Batches = app.state.batches
    return await batches.answer(request)


@app.post("/reconstruct")
async def reconstruct(file: Annotated[bytes, File()]) -> Response:
    """A reconstruction, by a batch."""
    batches: Batches = app.state.batches
    return await batches.answer(file)


def serve() -> None:
    """One process. Linux spreads connections over the listeners of all; one shared listener would favour a process."""
    sys.setswitchinterval(5e-5)  # the event loop waits less for the worker thread
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", rows.port()))
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


def main() -> None:
    """Serve until told to end; daemonic processes end with this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    processes = [multiprocessing.Process(target=serve, daemon=True) for _ in range(rows.knobs()["workers"])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
