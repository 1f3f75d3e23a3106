"""Every command with its options.

Rule: nothing is done here; each command imports the module that does it. What goes wrong on the way ends as
one line on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import key_commands, show
from gateway.cli.container_commands import add, backend, conformance, deploy, simulate
from gateway.cli.interrupts import INTERRUPTED, importing
from gateway.cli.options import AsJson, By, Config, Format, Host, Kind, Port
from gateway.cli.output import OutputLost

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Your own models, served from Modal over a plain prompt contract, as if they were OpenAI.",
)
config = typer.Typer(help="The configuration file.")
app.add_typer(key_commands.app, name="keys")
app.add_typer(config, name="config")


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code. 1: the answer is bad news, 2: the question cannot be answered."""
    with importing():
        from gateway.core.errors import GatewayError
        from gateway.settings import ConfigError

    command = typer.main.get_command(app)
    try:
        code = command.main(
            args=list(arguments) or ["--help"], prog_name="modal-gateway", standalone_mode=False
        )
        sys.stdout.flush()
    except OutputLost as lost:
        if not lost.left:
            show.error(str(lost))
        return 1
    except typer.TyperException as exc:
        show.error(_mistake(exc))
    except (show.CommandError, ConfigError, GatewayError) as exc:
        show.error(str(exc))
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    else:
        return code if isinstance(code, int) else 0
    return 2


def _mistake(exc: typer.TyperException) -> str:
    """What was typed wrongly, and where it says what could have been typed."""
    said = exc.format_message().replace("Value error, ", "")
    context = getattr(exc, "ctx", None)
    if context is None:
        return said
    path = context.command_path.replace("modal-gateway", show.program(), 1)
    return f"{said.removesuffix('.')}. Try `{path} --help`."


def _version(wanted: bool) -> None:
    if wanted:
        print(f"modal-gateway {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _typed(context: typer.Context, option: str) -> bool:
    """Was it given on the command line, rather than by a default or the environment?"""
    where = context.get_parameter_source(option)
    return where is not None and where.name == "COMMANDLINE"


@app.command()
def serve(
    context: typer.Context,
    config: Config = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that serve.")] = 1,
    ssl_certfile: Annotated[Path | None, typer.Option(metavar="FILE", help="Serve TLS: certificate.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(metavar="FILE", help="Serve TLS: its key.")] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Without a file: where the one model is.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --url: its name; without one, any name is taken."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --url: its chat template.", show_default="plain"),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="With --url: what is spoken there.")] = Kind.prompt,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Let anyone in, from anywhere.")
    ] = False,
) -> int:
    """Serve the models of the configuration, or one model at --url.

    Keys: those of the configuration. With --url, GATEWAY_API_KEY if it is set, else none on this machine.
    """
    with importing():
        from gateway.cli import serving, sources

    if url is None:
        for option in ("model", "template", "kind"):
            if _typed(context, option):
                raise show.CommandError(f"--{option} goes with --url; a file has it under models")
        source = sources.from_file(config)
    elif _typed(context, "config"):
        raise show.CommandError("--config and --url exclude each other")
    else:
        source = sources.OneModel(url, model, template, kind.value).source()
    tls = serving.tls(ssl_certfile, ssl_keyfile)
    return serving.serve(source, serving.Door(host, port, workers, tls, insecure_no_auth))


@app.command()
def demo(port: Port = 8000) -> int:
    """Try everything on this machine: no account, no GPU, no model; answers come from fixed rules."""
    with importing():
        from gateway.cli.demo import demo

    return demo(port)


@app.command()
def check(config: Config = None, json: AsJson = False) -> int:
    """Read the configuration, load what it names, and connect to each upstream without sending anything.

    Exit code 1 if something is wrong.
    """
    with importing():
        from gateway.cli.check import check
        from gateway.cli.sources import from_file

    return check(from_file(config), json=json)


@app.command()
def render(
    request: Annotated[str, typer.Argument(metavar="FILE", help="A chat request in JSON; - reads it here.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of the model that the request names.")
    ] = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Print the prompt, the stop strings and the call that a chat request becomes. No model is called."""
    with importing():
        from gateway.cli.render import render
        from gateway.cli.sources import from_file

    render(from_file(config), request, model, json=json)


for command in (conformance, deploy, add, backend, simulate):
    app.command()(command)


@app.command()
def warm(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of the configuration, or an alias.")],
    config: Config = None,
    gateway: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask this running gateway, which then knows the state.")
    ] = None,
    admin_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="MODAL_GATEWAY_ADMIN_KEY",
            help="Its admin key; better as MODAL_GATEWAY_ADMIN_KEY.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=1, max=86400, help="How long to wait.", show_default="first_event_timeout"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print lines of JSON.")] = False,
) -> int:
    """Wake a model's first upstream and wait until a container is ready. Nothing is generated.

    Exit code 1 if none gets ready.
    """
    with importing():
        from gateway.cli import sources, warm

    if gateway is None:
        lines = warm.woken_here(sources.from_file(config), model, timeout)
        return warm.warm(model, lines, None, json=json)
    lines = warm.woken_there(warm.Gateway(gateway, admin_key), model)
    return warm.warm(model, lines, timeout, json=json)


@app.command()
def usage(
    by: Annotated[By, typer.Option(help="One line for each of these.")] = By.day,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="7d or 1w: today and six days before; today; 12h; 30m; 2026-11-01 in UTC.",
            show_default="30d, back from --until",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="The end, not included.", show_default="now")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this key alone: its name or id.")
    ] = None,
    team: Annotated[str | None, typer.Option(metavar="NAME", help="Of this team alone.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Of this model alone.")] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Every request instead, oldest first.")] = False,
    format: Annotated[
        Format | None, typer.Option(help="table; with --rows csv, or json: one object a line.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    config: Config = None,
) -> None:
    """Print what was used, from the configuration's ledger: requests, tokens, GPU seconds and dollars."""
    with importing():
        from gateway.cli import usage
        from gateway.cli.sources import from_file

    if json and format not in (None, Format.json):
        raise show.CommandError(f"--json and --format {format.value} exclude each other")
    format = Format.json if json else format
    wanted = usage.Wanted(since, until, key, team, model)
    if not rows:
        usage.sums(from_file(config), by.value, wanted, (format or Format.table).value)
        return
    if format is Format.table:
        raise show.CommandError("--rows are printed as csv or json")
    usage.export(from_file(config), wanted, as_lines=format is Format.json)


@config.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the configuration file, for editors."""
    with importing():
        from gateway.cli.schema import schema

    show.as_json(schema())
