"""`python -m tests.fuzz`: half of the time for the decoder under atheris, a sixth each for mutated requests, mutated
messages of gRPC, and schemathesis. The exit status is 1 after a crash, or a 5xx other than 503 and 504.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import httpx

from tests.contract.process import free_port, running
from tests.fuzz import rpcs, service

# Inputs that failed, and libFuzzer's corpus.
RESULTS = Path("fuzz")
MAX_MEMORY_MB = 2048


def main() -> int:
    """Fuzz the decoder, then a service of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    passed = [fuzz_decoder(given.seconds // 2, given.seed)]
    grpc_port = free_port()
    with running(receive_timeout_s="0.3", grpc_port=str(grpc_port)) as served:
        passed.append(fuzz_requests(served.url, given.seconds // 6, given.seed))
        passed.append(fuzz_rpcs(grpc_port, given.seconds // 6, given.seed))
        passed.append(run_schemathesis(served.url, given.seconds // 6, given.seed))
        alive = served.process.poll() is None and httpx.post(f"{served.url}/generate", json={}).status_code == 200
        print(f"the service {'still answers' if alive else 'no longer answers'}")
    return int(not (alive and all(passed)))


def fuzz_decoder(seconds: int, seed: int) -> bool:
    """Fuzz the decoder in a process of its own, which prints its figures; whether all inputs passed."""
    corpus = RESULTS / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-rss_limit_mb={MAX_MEMORY_MB}", "-verbosity=0"]
    options.append(f"-artifact_prefix={RESULTS}/decoder.")
    done = subprocess.run([sys.executable, "-m", "tests.fuzz.decoder", str(corpus), *options], check=False)
    return done.returncode == 0


def fuzz_requests(url: str, seconds: int, seed: int) -> bool:
    """Send the corpus and mutations of it to a service; whether no answer was a server error."""
    address = httpx.URL(url)
    seen = service.fuzz((address.host, address.port or 80), seconds, seed)
    statuses = ", ".join(f"{count} x {status or 'closed'}" for status, count in seen.statuses.most_common())
    print(f"requests: {seen.statuses.total()} ({statuses}), slowest {seen.slowest_s:.3f} s, {len(seen.faults)} faults")
    (RESULTS / "request.slowest").write_bytes(seen.slowest)
    for number, fault in enumerate(seen.faults[:20]):
        (RESULTS / f"request.fault{number}").write_bytes(fault)
    return not seen.faults


def fuzz_rpcs(port: int, seconds: int, seed: int) -> bool:
    """Send messages of gRPC and mutations of them to a service; whether no status was that of a server error."""
    seen = rpcs.fuzz(f"127.0.0.1:{port}", seconds, seed)
    statuses = ", ".join(f"{count} x {status}" for status, count in seen.statuses.most_common())
    print(f"messages: {seen.statuses.total()} ({statuses}), {len(seen.faults)} faults")
    for number, fault in enumerate(seen.faults[:20]):
        (RESULTS / f"message.fault{number}").write_bytes(fault)
    return not seen.faults


def run_schemathesis(url: str, seconds: int, seed: int) -> bool:
    """Send requests that schemathesis derives from the OpenAPI document; whether no answer was a server error."""
    command = [str(Path(sys.executable).with_name("st").absolute()), "run", f"{url}/openapi.json"]
    command += ["--checks=not_a_server_error", f"--max-time={max(seconds, 1)}", f"--seed={seed}", "--no-color"]
    # Otherwise it invents deadlines that cannot be met.
    command.append("--header=X-Request-Timeout: 30")
    return subprocess.run(command, check=False, cwd=RESULTS).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
