"""Every command with its options.

Rule: nothing is done here; each command imports the module that does it. What goes wrong on the way ends as
one line on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import show

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    help="Your own models, served from Modal over a plain prompt contract, as if they were OpenAI.",
)
keys = typer.Typer(help="API keys.")
config = typer.Typer(help="The configuration file.")
app.add_typer(keys, name="keys")
app.add_typer(config, name="config")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="MODAL_GATEWAY_CONFIG",
        help="Configuration file; config/gateway.yaml if there is one.",
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Kind(StrEnum):
    """What the server at ``--url`` speaks."""

    prompt = "prompt"
    openai = "openai"


class Simulated(StrEnum):
    """What of Modal's is imitated."""

    web_function = "web-function"
    server = "server"


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code. 1: the answer is bad news, 2: the question cannot be answered."""
    from gateway.core.errors import GatewayError
    from gateway.settings import ConfigError

    command = typer.main.get_command(app)
    try:
        code = command.main(
            args=list(arguments) or ["--help"], prog_name="modal-gateway", standalone_mode=False
        )
    except typer.TyperException as exc:
        show.error(exc.format_message())
    except (show.CommandError, ConfigError, GatewayError) as exc:
        show.error(str(exc))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    else:
        return code if isinstance(code, int) else 0
    return 2


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
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve.")] = 1,
    ssl_certfile: Annotated[Path | None, typer.Option(metavar="FILE", help="Serve TLS: certificate.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(metavar="FILE", help="Serve TLS: its key.")] = None,
    url: Annotated[str | None, typer.Option(help="Without a file: where the one model is.")] = None,
    model: Annotated[
        str | None, typer.Option(help="With --url: its name; without one, any name is taken.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="With --url: its chat template [plain].")] = None,
    kind: Annotated[Kind, typer.Option(help="With --url: what is spoken there.")] = Kind.prompt,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Let anyone in, from anywhere.")
    ] = False,
) -> int:
    """Serve the models of the configuration, or one model at --url.

    Keys: those of the configuration. With --url, GATEWAY_API_KEY if it is set, else none on this machine.
    """
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
    from gateway.cli.demo import demo

    return demo(port)


@app.command()
def check(config: Config = None, json: AsJson = False) -> int:
    """Read the configuration, load what it names, and connect to each upstream without sending anything.

    Exit code 1 if something is wrong.
    """
    from gateway.cli.check import check
    from gateway.cli.sources import from_file

    return check(from_file(config), json=json)


@app.command()
def render(
    request: Annotated[str, typer.Argument(metavar="FILE", help="A chat request in JSON; - reads it here.")],
    model: Annotated[str | None, typer.Option(help="Instead of the model that the request names.")] = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Print the prompt, the stop strings and the call that a chat request becomes. No model is called."""
    from gateway.cli.render import render
    from gateway.cli.sources import from_file

    render(from_file(config), request, model, json=json)


@app.command()
def conformance(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address that takes prompts.")],
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="Request header; may be given several times."),
    ] = None,
    modal_key: Annotated[
        str | None, typer.Option(envvar="MODAL_KEY", help="Modal proxy token; better as MODAL_KEY.")
    ] = None,
    modal_secret: Annotated[
        str | None, typer.Option(envvar="MODAL_SECRET", help="Its secret; better as MODAL_SECRET.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds that one request may take.")] = 300,
    wait: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds beside them that a container may take to start.")
    ] = 600,
    json: AsJson = False,
) -> int:
    """Try what an endpoint of prompts can do, and print the configuration that fits it.

    Sends some forty requests. Exit code 1 if something is wrong; what is only not supported is fine.
    """
    from gateway.cli.conformance import Patience, conformance, credentials

    token = credentials(modal_key, modal_secret, header or ())
    return conformance(url, token, Patience(timeout, wait), json=json)


@app.command()
def deploy(
    deployment: Annotated[
        str | None, typer.Argument(metavar="NAME_OR_FILE", help="A preset, or a deployment file of your own.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the presets instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --list: print JSON.")] = False,
) -> int:
    """Deploy a model container to Modal, from a preset or a file of your own.

    Wraps `modal deploy`; needs `pip install 'modal-gateway[modal]'` and a Modal token.
    """
    from gateway.cli import deployments

    if list_:
        deployments.listed(as_json=json)
        return 0
    if deployment is None:
        raise show.CommandError(f"name a preset or a file; {show.program()} deploy --list shows the presets")
    return deployments.deploy(deployment)


@app.command()
def add(
    deployment: Annotated[
        str, typer.Argument(metavar="NAME_OR_FILE", help="A preset, or a deployment file of your own.")
    ],
    url: Annotated[str | None, typer.Option(help="The address that deploying printed.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put it into the configuration file.")] = False,
    config: Config = None,
) -> None:
    """Print the configuration entry for a deployed model; write it only with --write."""
    from gateway.cli import deployments, sources

    deployments.add(deployment, url, deployments.Target(config or sources.DEFAULT, write))


@app.command()
def backend(
    deployment: Annotated[
        str, typer.Argument(metavar="NAME_OR_FILE", help="A preset, or a deployment file of your own.")
    ],
    local: Annotated[bool, typer.Option("--local", help="On this machine; required.")] = False,
    engine: Annotated[str | None, typer.Option(help="Instead of the deployment's engine.")] = None,
    model: Annotated[str | None, typer.Option(metavar="PATH", help="Weights that lie here.")] = None,
    host: Host = "127.0.0.1",
    port: Port = 8001,
) -> int:
    """Run a deployment's container code on this machine, without Modal.

    It asks for no key: keep it on an address that only the gateway reaches.
    """
    from gateway.cli import deployments

    if not local:
        raise show.CommandError("backend runs on this machine alone, so say --local; deploy puts it on Modal")
    options = ["--host", host, "--port", str(port)]
    options += ["--engine", engine] if engine else []
    options += ["--model", model] if model else []
    return deployments.backend(deployment, options)


@app.command()
def simulate(
    mode: Annotated[Simulated, typer.Option(help="What it is.")] = Simulated.web_function,
    app: Annotated[
        str | None, typer.Option(metavar="URL", help="What runs in its containers [a demo engine].")
    ] = None,
    boot: Annotated[str, typer.Option(help="Seconds that a boot takes: 20, or drawn from 15-30.")] = "5",
    idle: Annotated[float, typer.Option(min=0, help="Seconds that an idle container stays.")] = 60,
    max_inputs: Annotated[int, typer.Option(min=1, help="Requests at once in a container.")] = 32,
    max_containers: Annotated[int, typer.Option(min=1, help="Containers at once.")] = 1,
    edge_timeout: Annotated[
        float, typer.Option(min=0, help="Web function: seconds until a 303, if no answer has begun.")
    ] = 150,
    function_timeout: Annotated[
        float,
        typer.Option(
            max=86400, help="Web function: seconds that a request may run in a container; more than 0."
        ),
    ] = 300,
    require_auth: Annotated[
        str | None, typer.Option(metavar="KEY:SECRET", help="Answer 401 without this proxy token.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the ids, and of boots that are drawn.")] = 0,
    port: Port = 8002,
    json: Annotated[bool, typer.Option("--json", help="Print lines of JSON.")] = False,
) -> int:
    """Stand in for Modal on this machine: containers that boot, queue, redirect, scale to zero, and fail.

    A request may ask for more with the header `x-simulate: boot=SECONDS;fault=NAME`. Faults:
    missing-credentials, invalid-credentials, stopped, unknown, disabled, expired, limited, not-ready, html,
    reset, timed-out, terminated, lost-track, raised, error, loop, relative, elsewhere, repoll, crash-early,
    crash, cut, stall, boot-fails, boot-never.
    """
    from gateway.cli import simulate as simulating
    from gateway.simulate.options import Mode, Options

    options = Options(
        mode=Mode(mode.value),
        boot=simulating.boot_of(boot),
        idle=idle,
        max_inputs=max_inputs,
        max_containers=max_containers,
        edge_timeout=edge_timeout,
        function_timeout=simulating.function_timeout_of(function_timeout),
        seed=seed,
    )
    place = simulating.Place(port, app, json)
    return simulating.simulate(place, simulating.with_token(options, require_auth))


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
        float | None, typer.Option(min=1, max=86400, help="Seconds to wait [first_event_timeout].")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print lines of JSON.")] = False,
) -> int:
    """Wake a model's first upstream and wait until a container is ready. Nothing is generated.

    Exit code 1 if none gets ready.
    """
    from gateway.cli import sources, warm

    if gateway is None:
        return warm.warm(warm.woken_here(sources.from_file(config), model, timeout), None, json=json)
    return warm.warm(warm.woken_there(warm.Gateway(gateway, admin_key), model), timeout, json=json)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Shown in logs and metrics in place of the key.")],
    json: AsJson = False,
) -> None:
    """Make a new key and print it, once. It is stored nowhere: its SHA-256 goes into the configuration."""
    from gateway.cli.keys import create

    create(name, json=json)


@config.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the configuration file, for editors."""
    from gateway.cli.schema import schema

    show.as_json(schema())
