"""Closed-loop load by `wrk`, which takes less of the shared cores than a generator in Python would."""

import json
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from benchmarks.paths import SCRATCH, UPLOAD
from benchmarks.workloads import Workload

SCRIPT = Path(__file__).parent / "wrk.lua"
REQUEST_TIMEOUT_S = 30
BOUNDARY = uuid.uuid5(uuid.NAMESPACE_URL, "digits").hex
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


class WrkFailed(Exception):
    """wrk did not run to its end."""


class WrkResult(BaseModel):
    """What wrk measured. `errors` counts socket errors, timeouts, and answers with a status of 400 or more."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int


def upload_body() -> bytes:
    """A multipart body with one 28x28 PNG as `file`."""
    disposition = f'Content-Disposition: form-data; name="file"; filename="{UPLOAD.name}"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: image/png\r\n\r\n"
    return head.encode() + UPLOAD.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


def apply_load(port: int, path: str, workload: Workload, seconds: int, first_seed: int) -> WrkResult:
    """Send requests for `seconds`; each request to generate has the next seed. Raises WrkFailed."""
    if workload.operation == "generate":
        arguments = ["generate", workload.model, str(workload.n), str(first_seed)]
    else:
        body = SCRATCH / "upload.body"
        body.parent.mkdir(parents=True, exist_ok=True)
        body.write_bytes(upload_body())
        arguments = ["upload", str(body), MULTIPART]
    command = wrk_command(port, path, workload.callers, seconds, arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 2 * REQUEST_TIMEOUT_S)
    if done.returncode != 0:
        raise WrkFailed(f"wrk ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return read_result(done.stdout)


def wrk_command(port: int, path: str, callers: int, seconds: int, arguments: Sequence[str]) -> list[str]:
    """The command line of wrk. arguments: those of the script."""
    command = ["wrk", "--threads", "1", "--connections", str(callers), "--duration", f"{seconds}s"]
    command += ["--timeout", f"{REQUEST_TIMEOUT_S}s", "--script", str(SCRIPT)]
    return [*command, f"http://127.0.0.1:{port}{path}", "--", *arguments]


def read_result(output: str) -> WrkResult:
    """Parse the line that the script prints at the end. Raises WrkFailed where there is none."""
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise WrkFailed(f"wrk printed no result: {output.strip()}")
    seen: dict[str, int] = json.loads(line.removeprefix("RESULT "))
    return WrkResult(
        requests=seen["requests"],
        seconds=seen["duration_us"] / 1e6,
        p50_ms=seen["p50_us"] / 1e3,
        p99_ms=seen["p99_us"] / 1e3,
        max_ms=seen["max_us"] / 1e3,
        errors=seen["errors"],
    )
