"""The dashboard and the alerts: they ask for what a server tells, and come as they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml

from regard.devices import _GAUGES, DeviceCollector, watch_process
from regard.errors import EngineError, UnavailableError
from regard.metrics import Metrics

from .conftest import CHART, Chart

MONITORING = CHART / "monitoring"
WORDS_OF_PROMQL = {"by", "on", "and", "offset", "sum", "max", "rate", "histogram_quantile", "label_values"}
WORDS_OF_PROMQL |= {"absent", "changes", "max_over_time"}
ADDED_BY_PROMETHEUS = {"job", "instance"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


class OneDevice:
    """A driver of one GPU that tells everything."""

    NVMLError = RuntimeError
    NVML_TEMPERATURE_GPU = 0

    def __getattr__(self, name: str) -> Any:
        """Return a function whose answer is 1 in all that anybody reads of it."""
        return lambda *_: 1 if name.endswith(("Count", "Usage", "Temperature")) else self

    total = used = gpu = 1


def told() -> dict[str, set[str]]:
    """Return the labels of every series that a server tells, by its name."""
    metrics = Metrics()
    watch_process(metrics.registry)
    labels = {
        f"{family.name}{suffix}": set(collector._labelnames) | ({"le"} if suffix == "_bucket" else set())
        for collector in vars(metrics).values()
        if hasattr(collector, "_labelnames")
        for family in collector.describe()
        for suffix in SUFFIXES[family.type]
    }
    assert len(list(DeviceCollector(OneDevice()).collect())) == len(_GAUGES)
    labels |= {f"regard_device_{name}": {"device"} for name in _GAUGES}
    labels |= {family.name: set() for family in metrics.registry.collect() if family.name.startswith("process_")}
    return labels | {"up": set()}  # Prometheus' own


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    found: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels that draw something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    """Return the rules of all alerts."""
    return [
        rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]


def queries() -> Iterator[str]:
    """Yield every query of the dashboard and of the alerts."""
    for panel in panels():
        assert panel["targets"], panel["title"]
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["definition"] for variable in dashboard()["templating"]["list"] if "definition" in variable)
    yield from (rule["expr"] for rule in rules())


def named(query: str) -> Iterator[tuple[str, set[str]]]:
    """Yield every series that a query names, with the labels that it is selected by."""
    for name, selector in re.findall(r"\b((?:regard|process)_[a-z_]+|up)\b(?:\{([^}]*)\})?", query):
        yield name, set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector or ""))


@pytest.mark.parametrize("query", list(queries()))
def test_a_query_names_what_a_server_tells(query: str) -> None:
    """Every series is one of the server's, and every label that it is selected or summed by is one of its own."""
    there, series = told(), list(named(query))
    assert series
    for name, selected in series:
        assert name in there
        assert selected <= there[name] | ADDED_BY_PROMETHEUS
    grouped = {label.strip() for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for label in labels.split(",")}
    for name in {name for name, _ in series} - {"up"}:  # of which there is only asked whether it is there
        assert grouped <= there[name] | ADDED_BY_PROMETHEUS
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\[[^\]]*\]|\b(?:by|on) \([^)]*\)", "", query)
    rest = set(re.findall(r"[a-zA-Z_]{2,}", bare)) - {name for name, _ in series} - WORDS_OF_PROMQL
    assert rest <= {"job", "model", "smh", "d"}
    assert bare.count("(") == bare.count(")")


def test_legends_and_summaries_name_labels_that_are_there() -> None:
    """What a legend, or an alert's words, fill in is what its query keeps."""
    texts = [(target["expr"], target["legendFormat"]) for panel in panels() for target in panel["targets"]]
    for query, text in texts:
        kept = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
        own = set.union(*(told()[name] for name, _ in named(query))) | ADDED_BY_PROMETHEUS
        assert set(re.findall(r"\{\{(\w+)\}\}", text)) <= (kept or own)
    for rule in rules():
        kept = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in labels.split(",")}
        own = set.union(*(told()[name] for name, _ in named(rule["expr"]))) | ADDED_BY_PROMETHEUS
        words = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", words)) <= (kept or own)


def test_every_metric_of_the_server_is_on_the_dashboard_or_known_not_to_be() -> None:
    """A new metric is drawn, or its absence is a decision."""
    drawn = {name for query in queries() for name, _ in named(query)}
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in drawn}
    mine = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in told() if name.startswith("regard_")}
    assert mine - families == {
        "regard_model_threads",
        "regard_device_utilization_ratio",
        "regard_device_power_watts",
        "regard_device_temperature_celsius",
    }


def test_what_is_no_fault_of_a_caller_is_told() -> None:
    """Failures are those of the engine and of models that aren't ready."""
    (failures,) = (rule for rule in rules() if rule["alert"] == "RegardFailures")
    codes = {EngineError.code_name, UnavailableError.code_name}
    assert [set(found.split("|")) for found in re.findall(r'code=~"([^"]*)"', failures["expr"])] == [codes]


def test_requests_for_no_model_are_drawn_whatever_model_is_looked_at() -> None:
    """Those that a draining pod refuses have no model, nor have those for one that isn't there."""
    (query,) = (query for query in queries() if "regard_requests_total" in query)
    (wanted,) = re.findall(r'model=~"([^"]*)"', query)
    for chosen, model in ((".*", "echo"), ("echo", "echo"), ("(echo|sorter)", "sorter")):
        assert all(re.fullmatch(wanted.replace("$model", chosen), one) for one in (model, ""))
    assert not re.fullmatch(wanted.replace("$model", "echo"), "sorter")


def test_panels_have_places_of_their_own() -> None:
    """No two share an id or lie over each other, and none is wider than the page."""
    placed = dashboard()["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    for panel in placed:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in placed], 2):
        apart = any(
            a[at] + a[size] <= b[at] for a, b in ((one, other), (other, one)) for at, size in (("x", "w"), ("y", "h"))
        )
        assert apart


def test_every_panel_and_alert_says_what_it_is() -> None:
    """A panel has a title and a description, an alert a severity, a summary and what to do; names are unique."""
    assert all(panel["title"] and panel["description"] for panel in panels())
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert re.fullmatch(r"[0-9]+m", rule["for"])


def test_the_chart_gives_both_as_they_are_written(chart: Chart) -> None:
    """Helm takes none of their braces for its own, and the labels are those that are looked for."""
    resources = chart.render("--values", str(CHART / "ci" / "everything-values.yaml"))
    config_map, rule = resources["ConfigMap/attention-dashboard"], resources["PrometheusRule/attention"]
    assert json.loads(config_map["data"]["regard.json"]) == dashboard()
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    written = (MONITORING / "alerts.yaml").read_text().replace('job="regard"', 'job="attention", namespace="default"')
    assert rule["spec"] == yaml.safe_load(written)
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_alerts_look_for_the_job_that_the_values_name(chart: Chart) -> None:
    """Without one it is the Service that the ServiceMonitor finds; another is taken as it is given."""

    def jobs(*arguments: str) -> set[str]:
        given = ("--set", "models.claim=models,alerts.enabled=true,serviceMonitor.enabled=true", *arguments)
        resources = chart.render("--namespace", "words", *given)
        assert "Service/test-regard" in resources
        text = json.dumps(resources["PrometheusRule/test-regard"]["spec"]).replace('\\"', '"')
        return set(re.findall(r'job="[^{}]*?"(?:, namespace="[^"]*")?', text))

    assert jobs() == {'job="test-regard", namespace="words"'}
    assert jobs("--set", "alerts.job=monitoring/regard") == {'job="monitoring/regard"'}
