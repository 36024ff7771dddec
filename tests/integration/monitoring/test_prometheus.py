"""promtool checks of the rules and of the metrics page; a Prometheus that scrapes a service and evaluates them."""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.contract.process import Service, free_port, running, until
from tests.promql import RULES, queries, rules
from tests.server.test_supervisor import processes_of
from tests.tiny_models import Autoencoder, write

CONFIGURATION = RULES.parent / "prometheus.yml"
ALERTS = Path(__file__).parent / "alerts.yml"


def promtool(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", CONFIGURATION), ("check", "rules", RULES), ("test", "rules", ALERTS)],
    ids=["config", "rules", "alerts"],
)
def test_promtool_accepts(arguments):
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires():
    cases = [case for test in yaml.safe_load(ALERTS.read_text())["tests"] for case in test.get("alert_rule_test", ())]
    firing = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert firing == silent == {rule["alert"] for rule in rules() if "alert" in rule}


@dataclass
class Prometheus:
    """A running Prometheus."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of the API."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """The samples that an expression has now."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of two processes with a tiny model."""
    models = tmp_path_factory.mktemp("models")
    write(models, "plain", Autoencoder(28), ())
    with running(processes="2", models_dir=str(models)) as service:
        yield service


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the committed configuration, but for the target and the intervals."""
    folder = tmp_path_factory.mktemp("prometheus")
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(RULES)]
    (job,) = (job for job in configuration["scrape_configs"] if job["job_name"] == "digits")
    job["static_configs"] = [{"targets": [service.url.removeprefix("http://")]}]
    configuration["scrape_configs"] = [job]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    options = {"config.file": folder / "prometheus.yml", "storage.tsdb.path": folder, "web.listen-address": address}
    command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        until(lambda: process.poll() is not None or answers(f"http://{address}/-/ready"))
        assert process.poll() is None, (folder / "log").read_text()
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def test_the_metrics_page_follows_the_conventions(service):
    assert httpx.post(f"{service.url}/generate", json={}, timeout=60).status_code == 200
    done = promtool("check", "metrics", input=httpx.get(f"{service.url}/metrics", timeout=60).text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_panel_has_data_and_every_rule_can_be_evaluated(service, prometheus):
    panels = [(title, query) for title, query in queries(interval="1m") if title != "Firing alerts"]
    recorded = [(rule["record"], rule["record"]) for rule in rules() if "record" in rule]

    def numbers(query: str) -> list[str]:
        values = [sample["value"][1] for sample in prometheus.query(query)]
        return [value for value in values if value != "NaN"]  # which is the quotient of a series without traffic

    def without_data() -> set[str]:
        httpx.post(f"{service.url}/generate", json={"n": 4}, timeout=60).raise_for_status()
        assert httpx.post(f"{service.url}/generate", json={"n": 0}, timeout=60).status_code == 422
        return {title for title, query in panels + recorded if not numbers(query)}

    until(lambda: not without_data())
    evaluated = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    assert {rule["health"] for rule in evaluated} == {"ok"}
    assert prometheus.query('ALERTS{alertstate="firing"}') == []


def test_the_alert_of_a_process_that_was_killed_fires(service, prometheus):
    until(lambda: prometheus.query("digits_process_replacements_total == 0"))
    os.kill(min(processes_of(service)), signal.SIGKILL)
    until(lambda: prometheus.query('ALERTS{alertname="DigitsWorkerLost", alertstate="firing"}'))
    dashboard = dict(queries())
    assert prometheus.query(dashboard["Firing alerts"])
