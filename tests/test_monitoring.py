"""The alert rules, the dashboard and docs/monitoring.md agree with the metrics of the service."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.errors import CAUSES
from app.settings import Settings
from tests.api.reading import metric, series
from tests.conftest import ROOT, serving
from tests.contract.process import free_port
from tests.promql import DASHBOARD, RULES, Selector, queries, rules, selectors

DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text()
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
# Prometheus makes these series, and adds these labels to all others.
OF_PROMETHEUS = {"up", "ALERTS"}
OF_TARGETS = {"namespace", "job", "instance"}


@pytest.fixture(scope="module")
def page(tiny_models: Path) -> Iterator[str]:
    """The metrics page of a service that has answered a request."""
    with serving(models_dir=tiny_models, grpc_port=free_port()) as client:
        assert client.post("/generate", json={}).status_code == 200
        yield client.get("/metrics").text


def labels_of(page: str) -> dict[str, list[dict[str, str]]]:
    """The labels of each series, by name."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def metrics_table(page: str) -> str:
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for family in sorted(text_string_to_metric_families(page), key=lambda family: family.name):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.name + "_total" * (family.type == "counter")
        lines.append(f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |")
    return "\n".join(lines)


def test_the_metrics_table_lists_every_metric(page):
    assert f"<!-- metrics: begin -->\n{metrics_table(page)}\n<!-- metrics: end -->" in DOCUMENT


EXPRESSIONS = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()] + [*queries()]


@pytest.mark.parametrize("expression", [pytest.param(each, id=where) for where, each in EXPRESSIONS])
def test_rules_and_dashboard_ask_for_series_that_exist(page, expression):
    existing = labels_of(page)
    found = selectors(expression)
    assert found
    for selector in found:
        assert dict(selector.equal).get("cause", "service") in CAUSES.values()
        if selector.name in OF_PROMETHEUS | RECORDED:
            continue
        assert selector.name in existing
        assert selector.labels <= existing[selector.name][0].keys() | OF_TARGETS
        assert any(has(labels, selector) for labels in existing[selector.name]), "no series has these values"


def has(labels: dict[str, str], selector: Selector) -> bool:
    return all(labels.get(name) == value for name, value in selector.equal if name not in OF_TARGETS)


def test_every_alert_is_documented_and_has_a_severity():
    assert set(re.findall(r"^\| `(Digits\w+)` \|", DOCUMENT, re.MULTILINE)) == ALERTS.keys()
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in {"critical", "warning"}, name
        assert alert["annotations"].keys() == {"summary", "description"}, name


def test_every_bound_is_exported_beside_its_current_value(page):
    for counter, limit in Settings().limits.items():
        name = {"bytes": "body"}.get(counter, counter) + "_in_flight" * (counter != "connections")
        unit = "_bytes" * (counter == "bytes")
        assert f"digits_{name}{unit}" in series(page)
        assert metric(page, f"digits_{name}_limit{unit}") == limit
    assert metric(page, "digits_scrapes_in_flight") == 1 < metric(page, "digits_scrapes_in_flight_limit")
    assert 'digits_process_grpc_connections{process="0"}' in series(page)
    assert metric(page, "digits_process_grpc_connections_limit") >= 1
    for pool in ("busy_workers", "busy_sequential_workers"):
        assert metric(page, f"digits_{pool}_limit") >= 1
    assert metric(page, "digits_processes") == metric(page, "digits_processes_limit") == 1


def test_no_series_has_a_creation_time(page):
    assert not [name for name in labels_of(page) if name.endswith("_created")]


def test_every_error_has_its_series_and_a_cause_before_it_happens(page):
    of_caller = {code for code, cause in CAUSES.items() if cause == "caller"}
    assert {"invalid_request", "invalid_image", "body_too_large", "unauthorized", "not_found"} <= of_caller
    assert {code for code, cause in CAUSES.items() if cause == "overload"} == {"overloaded", "too_many_callers"}
    assert {(each["code"], each["cause"]) for each in labels_of(page)["digits_request_errors_total"]} >= set(
        CAUSES.items()
    )


def test_compose_mounts_what_prometheus_and_grafana_read():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounted = {
        target: ROOT / source
        for name in ("prometheus", "grafana")
        for source, target, *_ in (each.split(":") for each in services[name]["volumes"])
    }
    folder = mounted["/etc/prometheus"]
    configuration = yaml.safe_load((folder / "prometheus.yml").read_text())
    assert [folder / file for file in configuration["rule_files"]] == [RULES]
    targets = [target for job in configuration["scrape_configs"] for target in job["static_configs"][0]["targets"]]
    assert targets == [f"{name}:8000" for name in services if name.startswith("digits")]
    provisioning = "/etc/grafana/provisioning"
    (source,) = yaml.safe_load((mounted[f"{provisioning}/datasources"] / "prometheus.yml").read_text())["datasources"]
    assert source["url"].removeprefix("http://").partition(":")[0] in services
    (provider,) = yaml.safe_load((mounted[f"{provisioning}/dashboards"] / "digits.yml").read_text())["providers"]
    assert mounted[provider["options"]["path"]] / "digits.json" == DASHBOARD
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/digits.json"
