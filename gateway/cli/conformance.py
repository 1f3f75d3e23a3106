"""``conformance``: what can this endpoint do, and which configuration fits it?

Rule: the checks are those of ``gateway.conformance``; here they are called and shown. Headers that are given
may be secrets and are never shown.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.cli import show
from gateway.cli.tables import table
from gateway.conformance.client import NoAnswer, Waiting
from gateway.conformance.fit import Credentials, Fit, as_yaml, configuration
from gateway.conformance.run import Report, examine
from gateway.conformance.verdict import Result
from gateway.settings import settings_from


@dataclass(slots=True, frozen=True)
class Patience:
    """Seconds for one answer, and for a container before the first."""

    answer: float
    container: float


def conformance(url: str, credentials: Credentials, patience: Patience, *, json: bool) -> int:
    """Print what was found; 1 if something is wrong. What takes long is told on standard error.

    Raises ``ConfigError`` for an address or header that the gateway cannot use, ``CommandError`` where
    nothing answers.
    """
    wanted = configuration(url, credentials, Fit())
    settings_from(wanted, dict.fromkeys(re.findall(r"\$\{(\w+)\}", as_yaml(wanted)), "set"))
    try:
        with show.busy(f"asking {url}"):
            report = asyncio.run(
                examine(url, credentials, patience.answer, Waiting(patience.container, _tell))
            )
    except NoAnswer as exc:
        raise show.CommandError(f"{url}: {exc}") from None
    (_print_json if json else _print)(url, report)
    return int(not report.good)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def header(text: str) -> tuple[str, str]:
    """``Name: value`` in two. Raises ``CommandError``."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise show.CommandError("--header takes 'Name: value'")
    return name.strip(), value.strip()


def credentials(modal_key: str | None, modal_secret: str | None, headers: Sequence[str]) -> Credentials:
    """Raises ``CommandError`` for half a Modal token."""
    if bool(modal_key) != bool(modal_secret):
        missing = "--modal-secret" if modal_key else "--modal-key"
        raise show.CommandError(f"{missing} is missing: a Modal proxy token is a key and a secret")
    return Credentials(modal_key or None, modal_secret or None, tuple(header(each) for each in headers))


def _print_json(url: str, report: Report) -> None:
    checks = [
        {"check": name, "result": verdict.result.value, "why": verdict.why}
        for name, verdict in report.verdicts.items()
    ]
    show.as_json(
        {
            "ok": report.good,
            "url": url,
            "requests": report.requests,
            "checks": checks,
            "config": report.config,
        }
    )


def _print(url: str, report: Report) -> None:
    rows = [(name, verdict.result.value, verdict.why) for name, verdict in report.verdicts.items()]
    table(("CHECK", "RESULT", "WHY"), rows)
    if report.config is not None:
        print(f"\n{show.dim('# what fits it, for the configuration file:')}")
        print(as_yaml(report.config), end="")
    wrong = [name for name, verdict in report.verdicts.items() if verdict.result is Result.WRONG]
    result = show.red(f"wrong: {', '.join(wrong)}") if wrong else show.green("nothing is wrong")
    print(f"\n{report.requests} requests; {result}")
