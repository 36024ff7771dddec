"""Packs the handler and starts TorchServe with it. The archives are loaded by path, like every peer does."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import rows

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent


def pack(store: Path) -> None:
    """Make `digits.mar`."""
    store.mkdir(parents=True, exist_ok=True)
    archiver = Path(sys.executable).parent / "torch-model-archiver"
    options = ["--model-name", "digits", "--version", "1.0", "--handler", str(HERE / "handler.py")]
    subprocess.run([archiver, *options, "--export-path", str(store), "--force"], check=True)


def configuration() -> str:
    """config.properties."""
    knobs = rows.knobs()
    own, *others = json.loads(os.environ["BENCH_PORTS"])
    model = {
        "defaultVersion": True,
        "marName": "digits.mar",
        "minWorkers": knobs["workers"],
        "maxWorkers": knobs["workers"],
        "batchSize": knobs["batch_size"],
        "maxBatchDelay": knobs["max_batch_delay"],
        "responseTimeout": 60,
    }
    lines = {
        "inference_address": f"http://127.0.0.1:{own}",
        "management_address": f"http://127.0.0.1:{others[0]}",
        "metrics_address": f"http://127.0.0.1:{others[1]}",
        "grpc_inference_port": others[2],
        "grpc_management_port": others[3],
        "job_queue_size": 1000,
        "number_of_netty_threads": knobs["netty_threads"],
        "netty_client_threads": knobs["netty_threads"],
        "disable_system_metrics": "true",
        "enable_metrics_api": "false",
        "disable_token_authorization": "true",
        "enable_envvars_config": "false",
        "load_models": "all",
        "models": json.dumps({"digits": {"1.0": model}}),
        "vmargs": "-Xmx512m",
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def main() -> None:
    """Replace this process by TorchServe's."""
    work = Path(os.environ["BENCH_WORK"])
    store = work / "store"
    pack(store)
    (work / "config.properties").write_text(configuration())
    (work / "log4j2.xml").write_text(LOGGING)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["TEMP"] = str(work)
    os.chdir(work)
    command = Path(sys.executable).parent / "torchserve"
    options = ["--foreground", "--no-config-snapshots", "--model-store", str(store), "--log-config", "log4j2.xml"]
    os.execv(command, ["torchserve", *options, "--ts-config", "config.properties"])  # noqa: S606


LOGGING = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <Console name="STDOUT"><PatternLayout pattern="%d{ISO8601} %c{1} [%p] %m%n"/></Console>
  </Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="STDOUT"/></Root></Loggers>
</Configuration>
"""

if __name__ == "__main__":
    main()
