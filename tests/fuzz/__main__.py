"""`python -m tests.fuzz`: the decoder under atheris, the service under the corpus and schemathesis; prints figures.

The exit status is 1 where anything crashed or a request had a 5xx other than 503 and 504.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from tests.contract.process import running
from tests.fuzz import service

KEEP = Path("fuzz")


def main() -> int:
    """Half of the time for the decoder, a quarter each for raw requests and for schemathesis."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    KEEP.mkdir(exist_ok=True)
    results = [decoder(given.seconds // 2, given.seed), requests(given.seconds // 4, given.seed)]
    return int(not all(results))


def decoder(seconds: int, seed: int) -> bool:
    """Fuzz the decoder; whether nothing was found."""
    report = KEEP / "decoder.json"
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.decoder",
        f"--seconds={seconds}",
        f"--seed={seed}",
        f"--report={report}",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    figures = json.loads(report.read_text())
    print(f"decoder: {figures['inputs']} inputs, slowest {figures['slowest_s']:.3f} s, exit status {done.returncode}")
    if done.returncode != 0:
        print(done.stderr[-4000:])
    return done.returncode == 0


def requests(seconds: int, seed: int) -> bool:
    """Fuzz a service of its own; whether nothing failed."""
    with running(receive_timeout_s="0.3") as served:
        url = httpx.URL(served.url)
        seen = service.fuzz((url.host, url.port or 80), seconds, seed)
        statuses = ", ".join(f"{count} x {status or 'closed'}" for status, count in seen.statuses.most_common())
        print(f"requests: {seen.statuses.total()} ({statuses})")
        print(f"requests: slowest {seen.slowest_s:.3f} s, faults {len(seen.faults)}")
        (KEEP / "request.slowest").write_bytes(seen.slowest)
        for number, fault in enumerate(seen.faults[:20]):
            (KEEP / f"request.fault{number}").write_bytes(fault)
        tool = Path(sys.executable).with_name("st")
        options = ["--checks=not_a_server_error", f"--max-time={max(seconds, 1)}", f"--seed={seed}", "--no-color"]
        # Else it makes up deadlines that nobody could meet.
        options.append("--header=X-Request-Timeout: 30")
        with tempfile.TemporaryDirectory() as folder:
            command = [str(tool.absolute()), "run", f"{served.url}/openapi.json", *options]
            done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
        print(f"schemathesis: exit status {done.returncode}\n{done.stdout[-1500:]}")
        alive = served.process.poll() is None and httpx.post(f"{served.url}/generate", json={}).status_code == 200
        print(f"the service {'goes on' if alive else 'does not go on'}")
    return done.returncode == 0 and not seen.faults and alive


if __name__ == "__main__":
    sys.exit(main())
