"""What PromQL expressions of rules and dashboards ask for."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml

from tests.conftest import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "digits.json"


@dataclass(frozen=True)
class Selector:
    """A metric that an expression selects.

    labels: that it matches. equal: labels that must have a value.
    """

    name: str
    labels: frozenset[str]
    equal: frozenset[tuple[str, str]]


def selectors(expression: str) -> set[Selector]:
    """The selectors of an expression. Raises ValueError for one that is not PromQL."""
    found: set[Selector] = set()

    def visit(node: promql_parser.Expr) -> bool:
        # A range selector holds an instant one that is not visited.
        vector = getattr(node, "vector_selector", node)
        if isinstance(vector, promql_parser.VectorSelector):
            matchers = vector.matchers.matchers
            equal = [(each.name, each.value) for each in matchers if each.op == promql_parser.MatchOp.Equal]
            labels = frozenset(each.name for each in matchers)
            found.add(Selector(vector.name or "", labels, frozenset(equal)))
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def rules() -> list[dict[str, Any]]:
    """The recording and alerting rules, in order."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries(interval: str = "5m", job: str = ".*", instance: str = ".*") -> Iterator[tuple[str, str]]:
    """The title of each panel of the dashboard with each of its expressions, with values for Grafana's variables."""
    values = {"$__rate_interval": interval, "$job": job, "$instance": instance}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], re.sub(r"\$\w+", lambda found: values[found[0]], target["expr"])
