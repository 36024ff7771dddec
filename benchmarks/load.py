"""Load on one cell by `wrk`: closed loop, keep-alive, one thread. Knows no server."""

import json
import subprocess
import uuid

from pydantic import BaseModel, ConfigDict

from benchmarks.cells import Cell
from benchmarks.places import LOAD_SCRIPT, SCRATCH, UPLOAD

REQUEST_TIMEOUT_S = 30
BOUNDARY = uuid.uuid5(uuid.NAMESPACE_URL, "digits").hex
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


class LoadFailed(Exception):
    """wrk did not run to its end."""


class Load(BaseModel):
    """What wrk saw. Seconds, and milliseconds of latency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    bytes: int
    duration_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    socket_errors: int
    bad_statuses: int

    @property
    def problem(self) -> str | None:
        """Why the figures do not count."""
        if self.socket_errors or self.bad_statuses:
            return f"{self.socket_errors} socket errors, {self.bad_statuses} answers of 400 or more"
        return None if self.requests else "no answer at all"


def upload_body() -> bytes:
    """The multipart body with one 28x28 PNG as `file`."""
    head = (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{UPLOAD.name}"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + UPLOAD.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


def apply_load(port: int, path: str, cell: Cell, seconds: int, first_seed: int) -> Load:
    """Ask for `seconds`; every request to generate has the next seed. Raises LoadFailed."""
    if cell.operation == "generate":
        arguments = ["generate", cell.model, str(cell.n), str(first_seed)]
    else:
        body = SCRATCH / "upload.body"
        body.parent.mkdir(parents=True, exist_ok=True)
        body.write_bytes(upload_body())
        arguments = ["upload", str(body), MULTIPART]
    command = ["wrk", "--threads", "1", "--connections", str(cell.callers), "--duration", f"{seconds}s"]
    command += ["--timeout", f"{REQUEST_TIMEOUT_S}s", "--script", str(LOAD_SCRIPT)]
    command += [f"http://127.0.0.1:{port}{path}", "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 2 * REQUEST_TIMEOUT_S)
    if done.returncode != 0:
        raise LoadFailed(f"wrk ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return read_result(done.stdout)


def read_result(output: str) -> Load:
    """The line that the script prints at the end. Raises LoadFailed where there is none."""
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise LoadFailed(f"wrk printed no result: {output.strip()}")
    seen: dict[str, int] = json.loads(line.removeprefix("RESULT "))
    return Load(
        requests=seen["requests"],
        bytes=seen["bytes"],
        duration_s=seen["duration_us"] / 1e6,
        **{f"{name}_ms": seen[f"{name}_us"] / 1e3 for name in ("p50", "p90", "p99", "max")},
        socket_errors=sum(seen[name] for name in ("connect", "read", "write", "timeout")),
        bad_statuses=seen["status"],
    )
