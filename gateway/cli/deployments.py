"""``deploy``, ``add`` and ``backend``: model containers, by the package that runs in them.

Rule: that package is asked in a process of its own and never imported, as nothing of the gateway is needed in
a model's image. Nothing is written unless ``--write`` says so. Knows nothing about engines.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import gateway
from gateway.cli import show
from gateway.cli.show import CommandError, program
from gateway.cli.sources import DEFAULT
from gateway.cli.tables import Look, table
from gateway.settings import ConfigError, load

TOKEN = (
    "no Modal token here: make an account at modal.com, then run `modal token new`, "
    "or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"
)
HINTS: Mapping[str, str] = {
    "Token missing": TOKEN,
    "Token validation failed": "Modal does not know this token: make a new one with `modal token new`",
    "Could not connect to the Modal server": "Modal cannot be reached from this machine",
    "is disabled": "the workspace is disabled: its budget or credits are used up (modal.com, Usage)",
    "spend limit reached": "the workspace's spend limit is reached (modal.com, Usage)",
    "huggingface-secret": (
        "the deployment wants a secret that the workspace lacks: "
        "modal secret create huggingface-secret HF_TOKEN=hf_..."
    ),
}
"""What `modal` says, and what to do about it."""


def ask(*arguments: str) -> Any:
    """What the container's package says of a deployment. Raises ``CommandError``."""
    done = subprocess.run(
        [*_python("modal_backend.describe"), *arguments],
        env=_environment(), stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    try:
        said = json.loads(done.stdout)
    except ValueError:
        raise CommandError("the package modal_backend did not answer; what it said is above") from None
    if isinstance(said, dict) and "error" in said:
        raise CommandError(said["error"])
    return said


def listed(*, as_json: bool) -> None:
    """The presets."""
    found = ask("--list")
    if as_json:
        show.as_json(found)
        return
    rows = [
        (each["name"], each["model"], each["engine"], _gpu(each), each["serve"], each["verified"])
        for each in found
    ]
    look = Look(spare=("VERIFIED", "SERVE", "ENGINE"))
    table(("NAME", "MODEL", "ENGINE", "GPU", "SERVE", "VERIFIED"), rows, look)


def deploy(name_or_file: str, *, as_json: bool) -> int:
    """Say what will be deployed, and let `modal deploy` do it; its exit code.

    As JSON it is said once it is deployed, and what `modal` says goes to standard error.
    """
    described = ask(name_or_file)
    if not as_json:
        print(_summary(described), flush=True)
    for line in described["warnings"]:
        show.warn(line)
    if importlib.util.find_spec("modal") is None:
        raise CommandError("deploying needs the Modal SDK: pip install 'modal-gateway[modal]'")
    command = [*_python("modal"), "deploy", "-m", "modal_backend.app"]
    environment = _environment(MODAL_GATEWAY_MODEL=str(Path(described["file"]).resolve()))
    code, said = _watched(command, environment, quiet=as_json)
    if code == 0 and as_json:
        show.as_json(described)
        return 0
    if code == 0:
        print(
            f"{show.green('deployed')}. The entry for the gateway: {program()} add {name_or_file} --url URL"
        )
        return 0
    for text, hint in HINTS.items():
        if text in said:
            raise CommandError(hint)
    return 1


def _watched(command: Sequence[str], environment: Mapping[str, str], *, quiet: bool) -> tuple[int, str]:
    """Run it; what it says on standard error is passed on as it comes, and returned.

    ``quiet``: nothing of it goes to standard output.
    """
    lines = []
    out = sys.stderr.fileno() if quiet else None
    with subprocess.Popen(
        command, env=environment, stdout=out, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line)
    return process.returncode, " ".join("".join(lines).split())


def _summary(described: Mapping[str, Any]) -> str:
    auth = "with a proxy token" if described["proxy_auth"] else "OPEN TO ANYONE"
    kind = {"web": "a Web Function", "server": "a Modal Server"}[described["serve"]]
    least, most = described["min_containers"], described["max_containers"]
    return "\n".join(
        [
            f"{described['name']}: {described['model']} at {described['revision']}",
            f"  engine      {described['engine']}, as {kind}, {auth}",
            f"  gpu         {_gpu(described)}",
            f"  containers  {least} to {'any number' if most is None else most}, "
            f"idle ones go after {described['scaledown_window']} s",
            f"  verified    {described['verified']}",
        ]
    )


def _gpu(described: Mapping[str, Any]) -> str:
    return " or ".join(described["gpu"]) or "none"


# --- add ---


@dataclass(frozen=True, slots=True)
class Target:
    """The configuration that an entry is for."""

    path: Path
    write: bool


def add(name_or_file: str, url: str | None, target: Target, *, as_json: bool) -> None:
    """Print the gateway's entry for a deployment; put it into the file if asked to."""
    described = ask(name_or_file)
    text = entry(described, _reference(described, target.path), url)
    if as_json:
        show.as_json({"models": yaml.safe_load(text)})
    else:
        print(text, end="")
    if target.write:
        _write(described["name"], text, target.path)
        where = "" if target.path == DEFAULT else f" --config {shlex.quote(str(target.path))}"
        print(f"written to {target.path}; is all well? {program()} check{where}", file=sys.stderr)


def entry(described: Mapping[str, Any], reference: str, url: str | None) -> str:
    """The lines below ``models:``."""
    host = "modal.direct" if described["serve"] == "server" else "modal.run"
    place = "us-east." if described["serve"] == "server" else ""
    url = url or f"https://WORKSPACE--{described['function']}.{place}{host}"
    if described["speaks"] == "openai" and not url.rstrip("/").endswith("/v1"):
        url = url.rstrip("/") + "/v1"
    lines = [f"  {json.dumps(described['name'])}:", f"    from: {json.dumps(reference)}", "    upstream:"]
    lines.append(f"      url: {json.dumps(url)}")
    if described["proxy_auth"]:
        lines += ['      modal_key: "${MODAL_KEY}"', '      modal_secret: "${MODAL_SECRET}"']
    lines.append(f"      first_event_timeout: {described['startup_timeout']}")
    return "\n".join(lines) + "\n"


def _reference(described: Mapping[str, Any], config: Path) -> str:
    """What `from` says: the name of a preset, or the way from the configuration to the file."""
    from gateway.facts import BUILT_IN

    file = Path(described["file"]).resolve()
    if file.parent == BUILT_IN:
        return file.stem
    return Path(os.path.relpath(file, config.resolve().parent)).as_posix()


def _write(name: str, text: str, path: Path) -> None:
    """Put the entry below ``models:``, leaving every other line as it is. Raises ``CommandError``."""
    try:
        new = _with_entry(name, text, path)
        made = [each for each in path.parents if not each.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, new, made)
    except OSError as exc:
        raise CommandError(f"cannot write {path}: {exc.strerror}; nothing was written") from None


def _with_entry(name: str, text: str, path: Path) -> str:
    """The whole new content. Raises ``CommandError`` and ``OSError``."""
    try:
        old = path.read_bytes().decode() if path.exists() else "models:\n"
        data = yaml.safe_load(old)
    except (UnicodeDecodeError, yaml.YAMLError):
        raise CommandError(f"{path} is not valid YAML; nothing was written") from None
    if not isinstance(data, dict) or name in (data.get("models") or {}):
        raise CommandError(f"{path} already has models.{name}, or is no configuration; nothing was written")
    at = re.search(r"^models:[^\S\n]*(#[^\n]*)?\n", old, re.MULTILINE)
    if at is None:
        raise CommandError(f"{path} has no line `models:` to write below; paste the lines above yourself")
    indent = re.match(r"(?:[^\S\n]*(?:#[^\n]*)?\n)*( +)\S", old[at.end() :])
    if indent is not None and len(indent[1]) != 2:
        raise CommandError(f"{path} indents models by {len(indent[1])}; paste the lines above yourself")
    ending = "\r\n" if at[0].endswith("\r\n") else "\n"
    return old[: at.end()] + text.replace("\n", ending) + old[at.end() :]


def _replace(path: Path, content: str, made: Sequence[Path]) -> None:
    """Write the file, unless it would not load; then the folders ``made`` for it, innermost first, go too."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content.encode())
    try:
        load(new, _any_environment(content))
        new.replace(path)
    except (ConfigError, OSError) as exc:
        new.unlink()
        for folder in made:
            folder.rmdir()
        raise CommandError(f"{exc}; nothing was written") from None


def _any_environment(text: str) -> Mapping[str, str]:
    """This one, with every variable that the text needs: what is not set here may be where it is served."""
    wanted = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "set")
    return {**wanted, **{name: value for name, value in os.environ.items() if value}}


# --- backend ---


def backend(name_or_file: str, options: Sequence[str]) -> int:
    """Run the deployment's container code here until told to stop; its exit code."""
    command = [*_python("modal_backend.serve_deployment"), name_or_file, *options]
    environment = {"DO_NOT_TRACK": "1", **_environment()}  # as in a container on Modal
    with subprocess.Popen(command, env=environment) as process:
        old = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return _plain(process.wait())
        except KeyboardInterrupt:  # the child has had it too
            return _plain(process.wait())
        finally:
            signal.signal(signal.SIGTERM, old)


def _plain(code: int) -> int:
    """Ended by the signal that stopped it is a good end."""
    return 0 if code in (-signal.SIGTERM, -signal.SIGINT) else abs(code)


# --- processes ---


def _python(module: str) -> list[str]:
    return [sys.executable, "-P", "-m", module]


def _environment(**extra: str) -> dict[str, str]:
    """This one, with the packages in the import path also where they are not installed."""
    here = str(Path(gateway.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **extra}
