"""The commands below ``keys``, with their options.

Rule: as in `gateway/cli/commands.py`; what a key may do is said by the same options wherever it is said.
"""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import show
from gateway.cli.interrupts import importing
from gateway.cli.options import AsJson, Config

app = typer.Typer(help="API keys.")

Team = Annotated[str | None, typer.Option(metavar="NAME", help="Team whose limits and budgets it shares.")]
Owner = Annotated[str | None, typer.Option(metavar="NAME", help="Who to ask about it.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="Model it may call; * for any text.", show_default="*"),
]
Expires = Annotated[
    str | None, typer.Option(metavar="WHEN", help="When it ends: 90d, 2027-01-31 or 2027-01-31T12:00Z.")
]
PerMinute = Annotated[str | None, typer.Option(metavar="N", help="Requests in any 60 seconds.")]
TokensPerMinute = Annotated[str | None, typer.Option(metavar="N", help="Tokens in any 60 seconds.")]
PerDay = Annotated[str | None, typer.Option(metavar="N", help="Requests in any 24 hours.")]
Concurrent = Annotated[str | None, typer.Option(metavar="N", help="Requests at the same time.")]
Budgets = Annotated[
    list[str] | None,
    typer.Option("--budget", metavar="UNIT=N/PERIOD", help="As in dollars=20/month; may be repeated."),
]
Priority = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=-100,
        max=100,
        help="Whose requests go first where a model is full.",
        show_default="0",
    ),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="WORD", help="Word to find it by.")]
KeyName = Annotated[str, typer.Argument(metavar="KEY", help="A key's name or id.")]


@app.command("create")
def create_key(
    name: Annotated[str, typer.Option(metavar="NAME", help="Shown in logs and metrics in place of the key.")],
    team: Team = None,
    owner: Owner = None,
    models: Models = None,
    expires: Expires = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    requests_per_day: PerDay = None,
    concurrent: Concurrent = None,
    budgets: Budgets = None,
    priority: Priority = None,
    tags: Tags = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Make a new key and print it, once.

    Its SHA-256 is kept in the configuration's store, and a gateway that runs takes it at once. Where there is
    no configuration yet, the line for one is printed instead.
    """
    given = dict(locals())
    with importing():
        from gateway.cli import keys, sources

    fields = keys.fields_of(given)
    if config is None and not sources.DEFAULT.is_file():
        if len(fields) > 1:
            raise show.CommandError("what a key may do is kept in a store: give --config FILE")
        keys.line(name, json=json)
    else:
        keys.create(sources.from_file(config), fields, json=json)


@app.command("list")
def list_keys(
    all: Annotated[bool, typer.Option("--all", help="Also those that were revoked.")] = False,
    team: Annotated[str | None, typer.Option(metavar="NAME", help="Of this team alone.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="WORD", help="With this tag alone.")] = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Print the keys of the configuration and of its store. No secret is among them."""
    with importing():
        from gateway.cli import keys, sources

    keys.every(sources.from_file(config), keys.Wanted(all, team, tag), json=json)


@app.command("show")
def show_key(key: KeyName, config: Config = None, json: AsJson = False) -> None:
    """Print what one key may do."""
    with importing():
        from gateway.cli import keys, sources

    keys.one(sources.from_file(config), key, json=json)


@app.command("update")
def update_key(
    key: KeyName,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Another name for it.")] = None,
    team: Team = None,
    owner: Owner = None,
    models: Models = None,
    expires: Expires = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    requests_per_day: PerDay = None,
    concurrent: Concurrent = None,
    budgets: Budgets = None,
    priority: Priority = None,
    tags: Tags = None,
    disabled: Annotated[bool | None, typer.Option("--disable/--enable", help="Refuse it for now.")] = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Change what one key may do; what is not given stays. none takes a bound, the budgets or a team away."""
    given = dict(locals())
    with importing():
        from gateway.cli import keys, sources

    keys.update(sources.from_file(config), key, keys.fields_of(given), json=json)


@app.command("revoke")
def revoke_key(key: KeyName, config: Config = None, json: AsJson = False) -> None:
    """End one key for good. What it runs is ended within seconds."""
    with importing():
        from gateway.cli import keys, sources

    keys.revoke(sources.from_file(config), key, json=json)


@app.command("rotate")
def rotate_key(key: KeyName, config: Config = None, json: AsJson = False) -> None:
    """Give one key a new secret and print that, once. The old one ends at once."""
    with importing():
        from gateway.cli import keys, sources

    keys.rotate(sources.from_file(config), key, json=json)
