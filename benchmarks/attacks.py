"""Attacks on the service, each from a process of its own that sends prepared bytes over many connections.

`python -m benchmarks.attacks NAME CONNECTIONS SECONDS PORT` prints `ready`, attacks, and prints what it saw as JSON.
"""

import asyncio
import json
import socket
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageDraw

# All connections together, so that attackers take little of the cores that they share with the service.
MAX_PAYLOADS_PER_S = 1000
# The bounds of the service by default: of an upload, of the sides of an image, and the last index of a seed.
MIB, SIDE, LAST_INDEX = 2**20, 1024, 2**53 - 1
# 256 images of 28x28 at this scale are just below the bound on the pixels of an answer.
SCALE = 9
BOUNDARY = "B" * 70
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass(frozen=True)
class Attack:
    """What each connection sends, as often as it can.

    payload: made once, and sent at once. trickle: sent after it, a byte a second. hangs_up: closes after the payload
    rather than at the end of the answers. reads_slowly: reads a byte a second.
    """

    name: str
    payload: Callable[[], bytes]
    trickle: bytes = b""
    hangs_up: bool = False
    reads_slowly: bool = False


def request(
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    declared: int | None = None,
    times: int = 1,
) -> bytes:
    """A request, or several in a pipeline; the last answer closes the connection.

    declared: the length that the head declares, if it is not that of the body.
    """
    fields = {"Host": "localhost", "Content-Type": "application/json"} | (headers or {})
    if "Transfer-Encoding" not in fields:
        fields["Content-Length"] = str(len(body) if declared is None else declared)
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return (times - 1) * (f"{head}\r\n".encode() + body) + f"{head}Connection: close\r\n\r\n".encode() + body


def post(target: str, headers: dict[str, str] | None = None, *, times: int = 1, **fields: object) -> bytes:
    """A request with a JSON body."""
    return request(target, json.dumps(fields, separators=(",", ":")).encode(), headers, times=times)


def upload(target: str, *files: bytes) -> bytes:
    """A request with a multipart form."""
    head = b'--%b\r\nContent-Disposition: form-data; name="files"; filename="f"\r\n\r\n' % BOUNDARY.encode()
    end = f"--{BOUNDARY}--\r\n".encode()
    return request(target, b"".join(head + content + b"\r\n" for content in files) + end, FORM)


def image(content: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A request whose body is one image."""
    return request("/reconstruct", content, {"Content-Type": "image/png"} | (headers or {}))


def picture(mode: str, side: int, form: str = "PNG", *, noise: int = 0, **options: object) -> bytes:
    """A drawing of a line; with noise, one that looks like a photo."""
    grey = Image.new("L", (side, side), 220)
    ImageDraw.Draw(grey).line((side // 4, side // 5, side // 2, 4 * side // 5), 30, side // 20)
    if noise:
        grey = Image.blend(grey, Image.effect_noise((side, side), noise), 0.3)
    file = BytesIO()
    grey.convert(mode).save(file, form, **options)
    return file.getvalue()


def scanned() -> bytes:
    """A progressive JPEG with the highest number of scans, the last of them repeated."""
    content = picture("L", SIDE, "JPEG", noise=10, progressive=True, quality=80)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * (20 - content.count(b"\xff\xda")) + content[-2:]


def chunked() -> bytes:
    """A PNG of nearly a megabyte, most of it empty chunks."""
    content, empty = picture("L", 28), bytes(4) + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4)
    return content[:33] + 80_000 * empty + content[33:]  # behind the header


def latent_tensors() -> bytes:
    """A request of the Open Inference Protocol with half a megabyte of numbers."""
    latent = {"name": "latent", "datatype": "FP32", "shape": [256, 100], "data": 256 * 100 * [-0.1234567890123456]}
    label = {"name": "label", "datatype": "INT64", "shape": [256], "data": 256 * [8]}
    return post("/v2/models/cgan.generate/infer", inputs=[latent, label])


def query(path: str, parts: Iterable[str], separator: str) -> bytes:
    """A GET request with as much query as a head can hold."""
    return request(f"{path}?" + separator.join(parts)[:64_500], method="GET")


ATTACKS = [
    Attack("idle connections", lambda: b""),
    Attack("64 line drawings scored", lambda: upload("/score?model=gan", *64 * [picture("L", 128, optimize=True)])),
    Attack(
        "a form of near-boundaries",
        lambda: request("/reconstruct", MIB // 75 * f"\r\n--{BOUNDARY[1:]}-".encode(), FORM),
    ),
    Attack("uploads of 1 MiB, never sent", lambda: request("/score", headers=FORM, declared=MIB)),
    Attack("uploads of 1 MiB, a byte a second", lambda: request("/score", headers=FORM, declared=MIB), MIB * b"a"),
    Attack("heads, a byte a second", lambda: b"GET /livez HTTP/1.1\r\n", MIB * b"a"),
    Attack("/livez with 64,500 bytes of query", lambda: query("/livez", 64_500 * ["a"], "")),
    Attack("a query of 30,000 names", lambda: query("/interpolate", 32_000 * ["a"], "&")),
    Attack("a query with long latents", lambda: query("/interpolate", ["from_latent=1", *32_000 * ["1"]], ",")),
    Attack("9,000 header lines", lambda: request("/livez", headers={f"{i:x}": "" for i in range(9000)}, method="GET")),
    Attack(
        "a body in chunks of one byte",
        lambda: image(MIB // 4 * b"1\r\na\r\n" + b"0\r\n\r\n", {"Transfer-Encoding": "chunked"}),
    ),
    Attack("a body with 4,000 faults", lambda: post("/generate", latents=[4000 * [""]])),
    Attack("256 latents in a body", lambda: post("/generate", model="vae", latents=256 * [16 * [1]])),
    Attack(
        "256 images at the last index, npz",
        lambda: post("/generate", {"Accept": "application/x-npz"}, model="gan", n=256, first=LAST_INDEX - 255),
    ),
    Attack(
        "256 images at the pixel bound, PNG",
        lambda: post("/generate", {"Accept": "image/png"}, n=256, scale=SCALE, label="balanced"),
    ),
    Attack(
        "256 steps at the pixel bound, APNG",
        lambda: post("/interpolate", {"Accept": "image/apng"}, steps=256, scale=SCALE),
    ),
    Attack("256 images generated and scored", lambda: post("/score", model="gan-deep", generator="vae", n=256)),
    Attack("photos of 1024x1024", lambda: image(picture("L", SIDE, noise=20))),
    Attack("4 RGBA drawings of 1024x1024", lambda: upload("/score?model=gan", *4 * [picture("RGBA", SIDE)])),
    Attack("JPEGs of 20 scans", lambda: image(scanned())),
    Attack("PNGs of 80,000 chunks", lambda: image(chunked())),
    Attack("answers read a byte a second", lambda: post("/generate", n=256, scale=SCALE, times=16), reads_slowly=True),
    Attack(
        "streams of 100,000 images",
        lambda: post("/generate", {"Accept": "application/zip"}, model="cgan", n=100_000),
    ),
    Attack(
        "streams read a byte a second",
        lambda: post("/generate", {"Accept": "application/x-idx"}, model="cgan", n=100_000),
        reads_slowly=True,
    ),
    Attack("256 latents as JSON tensors", latent_tensors),
    Attack("callers that hang up", lambda: post("/generate", n=256, scale=SCALE), hangs_up=True),
    Attack("deadlines of 1 ms", lambda: post("/generate", {"X-Request-Timeout": "0.001"}, n=256, scale=SCALE)),
    Attack("16 pipelined images", lambda: post("/generate", times=16)),
    Attack("connections closed at once", lambda: b"", hangs_up=True),
    Attack("unknown paths, pipelined", lambda: request("/unknown", method="HEAD", times=16)),
    Attack("HEAD of a large file, pipelined", lambda: request("/docs/swagger-ui-bundle.js", method="HEAD", times=16)),
    Attack("/openapi.json, pipelined", lambda: request("/openapi.json", method="GET", times=16)),
    Attack("/metrics, pipelined", lambda: request("/metrics", method="GET", times=16)),
]


async def attack(chosen: Attack, connections: int, seconds: float, port: int) -> dict[str, object]:
    """What the attackers saw: payloads sent, first answers by status, and the cores that they took."""
    payload, answers = chosen.payload(), Counter[str]()
    print("ready", flush=True)
    started = time.process_time()

    async def connect_again_and_again(number: int) -> None:
        await asyncio.sleep(number / MAX_PAYLOADS_PER_S)  # attackers know nothing of each other
        while True:
            with suppress(OSError):
                answers[await send(chosen, payload, port)] += 1
            await asyncio.sleep(connections / MAX_PAYLOADS_PER_S)

    tasks = [asyncio.create_task(connect_again_and_again(number)) for number in range(connections)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"answers": dict(sorted(answers.items())), "cores": (time.process_time() - started) / seconds}


async def send(chosen: Attack, payload: bytes, port: int) -> str:
    """One connection, until the service or the attack closes it; the status of the first answer. Raises OSError."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        if chosen.reads_slowly:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the system has a minimum
        await loop.sock_connect(connection, ("127.0.0.1", port))
        await loop.sock_sendall(connection, payload)
        for byte in chosen.trickle:
            await asyncio.sleep(1)
            await loop.sock_sendall(connection, bytes([byte]))
        if chosen.hangs_up:
            return "none"
        first = piece = await loop.sock_recv(connection, 12)
        while piece:
            if chosen.reads_slowly:
                await asyncio.sleep(1)
            piece = await loop.sock_recv(connection, 1 if chosen.reads_slowly else 2**18)
        return first[9:].decode() or "none"


if __name__ == "__main__":
    name, connections, seconds, port = sys.argv[1:]
    (chosen,) = (each for each in ATTACKS if each.name == name)
    print(json.dumps(asyncio.run(attack(chosen, int(connections), float(seconds), int(port)))))
