"""Metrics, alerts, the dashboard and the classes of failure: each name is documented, and each exists."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from fleetprompt.errors import ErrorKind
from fleetprompt.telemetry.catalogue import METRICS, Metric

_NAME = re.compile(r"fleetprompt_[a-z_]+")
_LABELS = re.compile(r"(fleetprompt_[a-z_]+)\{([^}]*)\}")


def samples_of(metric: Metric) -> set[str]:
    """The names under which a metric's samples are queried."""
    if metric.kind == "histogram":
        return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    return {metric.exposed}


SAMPLES = {name: metric for metric in METRICS.values() for name in samples_of(metric)}


def expressions(repository: Path, name: str) -> list[str]:
    """Every expression of the alerts or of the dashboard."""
    if name == "alerts":
        content: Any = yaml.safe_load((repository / "deploy/prometheus/alerts.yml").read_text())
        return [rule["expr"] for group in content["groups"] for rule in group["rules"]]
    content = json.loads((repository / "deploy/grafana/fleetprompt.json").read_text())
    return [target["expr"] for panel in content["panels"] for target in panel["targets"]]


def test_the_reference_lists_every_metric_and_no_other(repository: Path) -> None:
    page = (repository / "docs/reference/metrics.md").read_text()
    listed = re.findall(r"^\| `(fleetprompt_[a-z_]+)` \| (\w+) \| (\S+) \|", page, re.MULTILINE)
    assert listed == [(m.exposed, m.kind, m.unit or "–") for m in METRICS.values()]


def test_every_label_is_explained(repository: Path) -> None:
    page = (repository / "docs/reference/metrics.md").read_text().partition("| metric |")[0]
    labels = {label for metric in METRICS.values() for label in metric.labels}
    assert {label for label in labels if f"`{label}`" not in page} == set()


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_metric_is_named_as_openmetrics_wants(metric: Metric) -> None:
    """Base unit last, no suffix that the format adds itself, never a tenant or an id as a label."""
    assert metric.name.startswith("fleetprompt_")
    assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))
    assert not metric.unit or metric.name.endswith(f"_{metric.unit}")
    assert ("_seconds" in metric.name) == (metric.unit == "seconds")
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert not {"tenant", "id", "url", "le"} & set(metric.labels)


@pytest.mark.parametrize("name", ["alerts", "dashboard"])
def test_what_is_queried_exists(repository: Path, name: str) -> None:
    for expression in expressions(repository, name):
        used = set(_NAME.findall(expression))
        assert used, expression
        assert used <= set(SAMPLES), expression
        for metric, matchers in _LABELS.findall(expression):
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers))
            assert labels <= set(SAMPLES[metric].labels), expression


def test_the_dashboard_shows_every_metric(repository: Path) -> None:
    shown = {SAMPLES[n] for e in expressions(repository, "dashboard") for n in _NAME.findall(e)}
    assert [m.name for m in METRICS.values() if m not in shown] == []


def test_every_alert_says_what_it_means_and_what_to_do(repository: Path) -> None:
    content: Any = yaml.safe_load((repository / "deploy/prometheus/alerts.yml").read_text())
    rules = [rule for group in content["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "warn"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["do"], rule["alert"]


def test_every_class_of_failure_is_documented_and_no_other(repository: Path) -> None:
    page = (repository / "docs/reference/directives.md").read_text()
    section = page.partition("## Classes of failure")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(get_args(ErrorKind))
