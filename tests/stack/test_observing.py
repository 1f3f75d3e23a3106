"""The dashboard and the alerts name what exists, and an alert fires when it should.

Rule: what exists is what a gateway with traffic tells when it is scraped, and what the table in
docs/metrics.md lists, which is written from the code. Prometheus' own tools judge the rest.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.clients.process import free_port, gateway, serving
from tests.conftest import ROOT
from tests.stack.fleet import program
from tests.stack.queries import families, grouped, named

pytestmark = pytest.mark.slow
DASHBOARD: dict[str, Any] = json.loads((ROOT / "config/grafana/dashboards/gateway.json").read_text())
METRICS = ROOT / "docs/metrics.md"
ALERTS = ROOT / "config/prometheus/alerts.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
QUERIES = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
] + [(rule["alert"], rule["expr"]) for rule in RULES]
OF_PROMETHEUS = {"job", "instance"}  # labels that it adds; `up` is its own too
SAMPLES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("",)}
ROWS = ["Traffic", "Latency", "Cold starts and containers"]
ROWS += ["Tokens and spend", "Limits and budgets", "Health"]

promql = pytest.mark.skipif(
    find_spec("promql_parser") is None,
    reason="promql-parser is not installed: `make test-slow` installs it",
)


def documented() -> dict[str, set[str]]:
    """Name of a series -> its labels, as the table in docs/metrics.md says."""
    found = {}
    row = re.compile(r"^\| `(modal_gateway_\w+)` \| (\w+) \| (.*?) \|", re.MULTILINE)
    for name, kind, labels in row.findall(METRICS.read_text()):
        for suffix in SAMPLES[kind]:
            own = {"le"} if suffix == "_bucket" else set()
            found[name + suffix] = set(re.findall(r"`(\w+)`", labels)) | own
    return found


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a gateway with a ledger, a limited key and some traffic tells."""
    folder, port = tmp_path_factory.mktemp("observed"), free_port()
    config = {
        "auth": {
            "keys": [{"name": "k", "key": "sk-k", "limits": {"concurrent": 1}, "budgets": [{"tokens": 1000}]}]
        },
        "models": {"m": {"upstream": {"kind": "demo", "responses": ["one two three four"]}}},
    }
    (folder / "gateway.yaml").write_text(json.dumps(config))
    command = gateway("serve", "--config", "gateway.yaml", "--port", str(port))
    headers = {"authorization": "Bearer sk-k"}
    with serving(command, port, folder=folder) as url:
        for stream, model, stop in ((True, "m", None), (False, "m", "two"), (False, "junk", None)):
            body = {"model": model, "stream": stream, "stop": stop, "user": "u", "store": False}
            body["messages"] = [{"role": "user", "content": "hi"}]
            httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30)
        yield httpx.get(f"{url}/metrics", timeout=30).text


def test_what_a_gateway_tells_is_what_the_documents_list(scraped: str) -> None:
    known, seen = documented(), set()
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            seen.add(sample.name)
            name = sample.name if sample.name in known else re.sub("_(sum|count)$", "", sample.name)
            assert set(sample.labels) <= known[name], sample.name
    assert len(seen) > 25


@promql
@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_a_query_names_series_and_labels_that_exist(title: str, query: str) -> None:
    known = documented() | {"up": set(), "vector": set()}
    assert families(query)
    for each in named(query):
        if each.metric is not None:
            assert each.metric in known, each.metric
            assert each.labels <= known[each.metric] | OF_PROMETHEUS
    possible = set().union(*(known[name] for name in families(query)), OF_PROMETHEUS)
    assert grouped(query) <= possible


@promql
def test_the_dashboard_and_the_alerts_leave_no_metric_out() -> None:
    shown = {name for _, query in QUERIES for name in families(query)}
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    listed = {re.sub("_(bucket|sum|count)$", "", name) for name in documented()}
    assert listed - shown == set()


def test_the_dashboard_is_in_order() -> None:
    panels = DASHBOARD["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ROWS
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        wide, high = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells = set(product(wide, high))
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_a_legend_shows_labels_that_its_query_has() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            shown = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            by = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert shown <= by | OF_PROMETHEUS


# --- Prometheus' own tools ---


def promtool(*arguments: str, text: str = "") -> None:
    command = [program("promtool"), *arguments]
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_prometheus_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    config = (ROOT / "config/prometheus/prometheus.yml").read_text()
    (tmp_path / "key").write_text("sk")
    (tmp_path / "prometheus.yml").write_text(config.replace("/run/secrets/gateway_metrics_key", "key"))
    (tmp_path / "alerts.yml").write_bytes(ALERTS.read_bytes())
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_prometheus_finds_no_fault_with_how_metrics_are_named(scraped: str) -> None:
    promtool("check", "metrics", text=scraped)


class Case(NamedTuple):
    """Series with a value a minute, and the minutes at which the alert is quiet and at which it fires."""

    series: dict[str, str]
    quiet: int
    fires: int


HALF_SLOW = ('{le="0.1"}', "0+10x120"), ('{le="30"}', "0+100x120"), ('{le="+Inf"}', "0+100x120")
REQUESTS = {'modal_gateway_requests_total{model="m", status="200"}': "0+90x120"}
CASES = {
    "GatewayDown": Case({'up{job="modal-gateway", instance="a"}': "1+0x3 0+0x20"}, 3, 7),
    "GatewayErrors": Case(
        {**REQUESTS, 'modal_gateway_requests_total{model="m", status="502"}': "0+0x10 10+10x110"}, 10, 30
    ),
    "GatewayStreamsBreak": Case(
        {**REQUESTS, 'modal_gateway_errors_total{model="m", code="upstream_cut"}': "0+10x120"}, 8, 30
    ),
    "GatewayCircuitOpen": Case({'modal_gateway_upstream_circuit_open{upstream="m"}': "0+0x3 1+0x20"}, 4, 9),
    "GatewayUpstreamStopped": Case(
        {'modal_gateway_upstream_state{upstream="m", state="stopped"}': "0+0x3 1+0x20"}, 3, 9
    ),
    "GatewayBootTooLong": Case({'modal_gateway_upstream_state{state="booting"}': "1+0x40"}, 12, 20),
    "GatewayColdStartsOften": Case(
        {**REQUESTS, 'modal_gateway_boot_wait_seconds_count{model="m"}': "0+30x120"}, 25, 90
    ),
    "GatewayQueueTooLong": Case(
        {f"modal_gateway_queue_seconds_bucket{at}": values for at, values in HALF_SLOW}, 8, 30
    ),
    "GatewayBudgetNearlySpent": Case({"modal_gateway_budgets_nearly_spent": "0+0x3 1+0x20"}, 3, 8),
    "GatewayEventLoopLag": Case(
        {f"modal_gateway_event_loop_lag_seconds_bucket{at}": values for at, values in HALF_SLOW}, 4, 15
    ),
    "GatewayLedgerUnreachable": Case({"modal_gateway_ledger_reachable": "1+0x3 0+0x20"}, 4, 9),
    "GatewaySpoolBehind": Case({"modal_gateway_ledger_waiting_bytes": "0+0x3 20000000+0x20"}, 6, 14),
}


@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
def test_an_alert_fires_when_it_should_and_not_before(alert: str, tmp_path: Path) -> None:
    case = CASES[alert]
    firing = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    wanted = {case.quiet: [], case.fires: [{"labels": "{}", "value": 1}]}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {"expr": firing, "eval_time": f"{minute}m", "exp_samples": samples}
            for minute, samples in wanted.items()
        ],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [test]}))
    promtool("test", "rules", str(tmp_path / "tests.yml"))


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_how_urgent_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert f"| `{rule['alert']}` | {rule['labels']['severity']} |" in METRICS.read_text()
