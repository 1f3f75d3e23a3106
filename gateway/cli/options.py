"""Options that several commands have, and the words that an option may be.

Rule: how they look on the command line, and nothing of what they do.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="MODAL_GATEWAY_CONFIG",
        help="Configuration file; config/gateway.yaml if there is one.",
    ),
]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")]
Port = Annotated[
    int, typer.Option(metavar="PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Kind(StrEnum):
    """What the server at ``--url`` speaks."""

    prompt = "prompt"
    openai = "openai"


class Simulated(StrEnum):
    """What of Modal's is imitated."""

    web_function = "web-function"
    server = "server"


class By(StrEnum):
    """What sums of the ledger are made for."""

    key = "key"
    team = "team"
    model = "model"
    day = "day"


class Format(StrEnum):
    """How something is printed."""

    table = "table"
    json = "json"
    csv = "csv"
