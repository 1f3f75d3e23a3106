"""Which metrics and labels a PromQL expression names.

Rule: reads the tree that promql-parser makes, so that what does not parse fails. Knows nothing about which
exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

GRAFANA = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}
"""What Grafana puts in place of these."""


@dataclass(frozen=True)
class Named:
    """One series selector, or (without a metric) the labels that something is grouped by."""

    metric: str | None
    labels: frozenset[str]


def parsed(expression: str) -> Any:
    """The tree. Raises ``ValueError`` if it is no PromQL."""
    import promql_parser

    for variable, value in GRAFANA.items():
        expression = expression.replace(variable, value)
    return promql_parser.parse(expression)


def named(expression: str) -> Iterator[Named]:
    """Everything that it names."""
    yield from _below(parsed(expression))


def _below(node: Any) -> Iterator[Named]:
    kind = type(node).__name__
    if kind == "MatrixSelector":
        node, kind = node.vector_selector, "VectorSelector"
    if kind == "VectorSelector":
        yield Named(node.name, frozenset(each.name for each in node.matchers.matchers))
    modifier = getattr(node, "modifier", None)
    if kind == "AggregateExpr" and modifier is not None:
        yield Named(None, frozenset(modifier.labels))
    children = [getattr(node, name, None) for name in ("expr", "lhs", "rhs")]
    for child in [*children, *getattr(node, "args", [])]:
        if child is not None and not isinstance(child, str | int | float):
            yield from _below(child)


def families(expression: str) -> set[str]:
    """Every metric that it names."""
    return {each.metric for each in named(expression) if each.metric is not None}


def grouped(expression: str) -> set[str]:
    """Every label that it groups by."""
    return {label for each in named(expression) if each.metric is None for label in each.labels}
