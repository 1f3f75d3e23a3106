"""The commands that have to do with containers: trying, deploying, adding, running and imitating them.

Rule: as in `gateway/cli/commands.py`, which lists them.
"""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import show
from gateway.cli.interrupts import importing
from gateway.cli.options import AsJson, Config, Host, Port, Simulated


def conformance(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address that takes prompts.")],
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="Request header; may be given several times."),
    ] = None,
    modal_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="MODAL_KEY", help="Modal proxy token; better as MODAL_KEY."),
    ] = None,
    modal_secret: Annotated[
        str | None,
        typer.Option(metavar="SECRET", envvar="MODAL_SECRET", help="Its secret; better as MODAL_SECRET."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, max=3600, help="That one request may take.")
    ] = 300,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, max=3600, help="Beside them, that a container may take to start."
        ),
    ] = 600,
    json: AsJson = False,
) -> int:
    """Try what an endpoint of prompts can do, and print the configuration that fits it.

    Sends some forty requests. Exit code 1 if something is wrong; what is only not supported is fine.
    """
    with importing():
        from gateway.cli.conformance import Patience, conformance, credentials

    token = credentials(modal_key, modal_secret, header or ())
    return conformance(url, token, Patience(timeout, wait), json=json)


def deploy(
    deployment: Annotated[
        str | None, typer.Argument(metavar="NAME_OR_FILE", help="A preset, or a deployment file of your own.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the presets instead.")] = False,
    json: AsJson = False,
) -> int:
    """Deploy a model container to Modal, from a preset or a file of your own.

    Wraps `modal deploy`; needs `pip install 'modal-gateway[modal]'` and a Modal token.
    """
    with importing():
        from gateway.cli import deployments

    if list_:
        deployments.listed(as_json=json)
        return 0
    if deployment is None:
        raise show.CommandError(f"name a preset or a file; {show.program()} deploy --list shows the presets")
    return deployments.deploy(deployment, as_json=json)


def add(
    deployment: Annotated[
        str, typer.Argument(metavar="NAME_OR_FILE", help="A preset, or a deployment file of your own.")
    ],
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The address that deploying printed.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Put it into the configuration file.")] = False,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Print the configuration entry for a deployed model; write it only with --write."""
    with importing():
        from gateway.cli import deployments, sources

    deployments.add(deployment, url, deployments.Target(config or sources.DEFAULT, write), as_json=json)


def backend(
    deployment: Annotated[
        str, typer.Argument(metavar="NAME_OR_FILE", help="A preset, or a deployment file of your own.")
    ],
    local: Annotated[bool, typer.Option("--local", help="On this machine; required.")] = False,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of the deployment's engine.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="PATH", help="Weights that lie here.")] = None,
    host: Host = "127.0.0.1",
    port: Port = 8001,
) -> int:
    """Run a deployment's container code on this machine, without Modal.

    It asks for no key: keep it on an address that only the gateway reaches.
    """
    with importing():
        from gateway.cli import deployments

    if not local:
        raise show.CommandError("backend runs on this machine alone, so say --local; deploy puts it on Modal")
    options = ["--host", host, "--port", str(port)]
    options += ["--engine", engine] if engine else []
    options += ["--model", model] if model else []
    return deployments.backend(deployment, options)


def simulate(
    mode: Annotated[Simulated, typer.Option(help="What it is.")] = Simulated.web_function,
    app: Annotated[
        str | None,
        typer.Option(metavar="URL", help="What runs in its containers.", show_default="a demo engine"),
    ] = None,
    boot: Annotated[
        str, typer.Option(metavar="SECONDS", help="That a boot takes: 20, or drawn from 15-30.")
    ] = "5",
    idle: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="That an idle container stays.")] = 60,
    max_inputs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests at once in a container.")
    ] = 32,
    max_containers: Annotated[int, typer.Option(metavar="N", min=1, help="Containers at once.")] = 1,
    edge_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="Web function: until a 303, if no answer has begun."),
    ] = 150,
    function_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            max=86400,
            help="Web function: that a request may run in a container; more than 0.",
        ),
    ] = 300,
    require_auth: Annotated[
        str | None, typer.Option(metavar="KEY:SECRET", help="Answer 401 without this proxy token.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the ids, and of boots that are drawn.")] = 0,
    port: Port = 8002,
    json: Annotated[bool, typer.Option("--json", help="Print lines of JSON.")] = False,
) -> int:
    """Stand in for Modal on this machine: containers that boot, queue, redirect, scale to zero, and fail.

    A request may ask for more with the header `x-simulate: boot=SECONDS;fault=NAME`. Faults:
    missing-credentials, invalid-credentials, stopped, unknown, disabled, expired, limited, not-ready, html,
    reset, timed-out, terminated, lost-track, raised, error, loop, relative, elsewhere, repoll, crash-early,
    crash, cut, stall, boot-fails, boot-never.
    """
    with importing():
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
