"""The documents say what the code does: every name is there, every table is the code's, every block works.

Rule: names are collected from the code (types, registries, its syntax tree), never listed here. A table
between ``<!-- table: NAME -->`` and ``<!-- /table -->`` is written by ``make golden`` and compared by every
other run. Blocks are run as they stand, against a demo and a model container of their own; only ports are
replaced, and a ``json`` or ``text`` block that follows is what they must print.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import httpx
import pytest
import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import AwareDatetime, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from typer.main import get_command

from gateway import allowances, settings, templates
from gateway.allowances import Budget
from gateway.app import WORLD, build_app, build_service
from gateway.auth import Caller
from gateway.cli.commands import app
from gateway.core import errors
from gateway.core.events import Usage
from gateway.core.parameters import PARAMETERS
from gateway.core.template import FillIn, split
from gateway.core.template.front import Front
from gateway.core.tools import DIALECTS, Dialect, Said
from gateway.identity.config import Provider
from gateway.limits.rules import Amount
from gateway.record import Record
from gateway.serve import retention
from gateway.telemetry import trace
from gateway.telemetry.families import exposition
from gateway.telemetry.metrics import Metrics
from gateway.upstreams import demo as demo_kind
from gateway.upstreams import endpoint, kinds, limits, openai, prompt
from gateway.upstreams.modal_sdk import config as modal_config
from gateway.warming import hours as schedule
from modal_backend.deployment import read as read_deployment
from tests.clients.process import free_port, gateway, serving
from tests.conftest import Golden
from tests.serve.house import Scripted, deployed, unbounded

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
PAGES = sorted([*READMES, ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def everything() -> str:
    """All documents in English, as one text."""
    return "\n".join(text_of(path) for path in PAGES if path.name != "README.zh-CN.md")


def nothing(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


# --- tables that are written from the code ---


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def table(heads: str, rows: list[list[str]]) -> str:
    lines = [heads.split(), ["---"] * len(heads.split()), *[[cell(each) for each in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(value: object) -> str:
    """A value as one span of code."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


SECTIONS: Mapping[str, type[BaseModel]] = {
    "top": settings.Settings,
    "server": settings.Server,
    "auth": settings.Auth,
    "key": settings.ApiKey,
    "oidc": Provider,
    "admin": settings.Admin,
    "store": settings.Store,
    "redis": settings.Redis,
    "tracing": trace.Spans,
    "responses": retention.Retain,
    "model": settings.Model,
    "reasoning": settings.Reasoning,
    "fill_in": FillIn,
    "price": settings.Price,
    "team": allowances.Allowance,
    "limits": allowances.Limits,
    "budget": allowances.Budget,
    "warm": schedule.Warm,
    "upstream": limits.Limits,
    "http": endpoint.Endpoint,
    "kind-prompt": prompt.PromptConfig,
    "kind-openai": openai.OpenAIConfig,
    "kind-modal": modal_config.ModalConfig,
    "kind-demo": demo_kind.DemoConfig,
    "fail": demo_kind.Fail,
}
"""The page on configuration has one table for each class."""

PLAIN: Mapping[object, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "`true` or `false`",
    SecretStr: "secret text",
    AwareDatetime: "date and time",
    Any: "any value",
}


def own_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields that this class itself declares, without the one that only tells kinds apart."""
    own = inspect.get_annotations(model)
    return {name: info for name, info in model.model_fields.items() if name in own and name != "kind"}


def key_of(name: str, info: FieldInfo) -> str:
    return info.alias or name


def shape(annotation: Any) -> str:
    """A type, in words."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return shape(arguments[0])
    if origin is Literal:
        return " or ".join(code(str(value)) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        known = [each for each in arguments if each is not type(None)]
        if all(each in SECTIONS.values() for each in known):
            return "upstream" if len(known) > 1 else "section"
        return " or ".join(shape(each) for each in known)
    if origin is tuple:
        return f"list of {plural(shape(arguments[0]))}"
    if inspect.isclass(origin) and issubclass(origin, typing.cast(type, Mapping)):
        inner = shape(arguments[1])
        return "mapping" if inner == "any value" else f"mapping to {inner}"
    return "section"


def plural(words: str) -> str:
    return {"text": "texts", "section": "sections", "upstream": "upstreams"}.get(words, words)


def bounds(info: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    said = [
        f"{word} {getattr(each, name):g}"
        for each in info.metadata
        for name, word in words.items()
        if isinstance(getattr(each, name, None), int | float)
    ]
    return f", {', '.join(said)}" if said else ""


def default_of(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or isinstance(value, BaseModel):
        return ""
    return code(value or json.dumps(value))


def settings_row(name: str, info: FieldInfo) -> list[str]:
    key = key_of(name, info)
    meaning = info.description or f"see [{key}](#{key})"
    return [code(key), shape(info.annotation) + bounds(info), default_of(info), meaning]


def settings_table(model: type[BaseModel]) -> str:
    rows = [settings_row(name, info) for name, info in own_fields(model).items()]
    return table("key type default meaning", rows)


def parameters_table() -> str:
    does = {"honour": "passed on", "shape": "used here", "ignore": "ignored aloud", "reject": "400"}
    rows = [
        [code(row.name), does[row.does], code(row.argument) if row.argument else "", row.why]
        for row in PARAMETERS
    ]
    return table("field fate argument remarks", rows)


def templates_table() -> str:
    rows = [template_row(name) for name in templates.names()]
    return table("name aliases system stops tools images fills remarks", rows)


def template_row(name: str) -> list[str]:
    places = {"inline": "where it stands", "hoist": "at the start", "ignored": "fixed"}
    template = templates.load(name)
    place = places.get(getattr(template.form.shape, "system", ""), "as the model does")
    return [
        code(name),
        ", ".join(map(code, template.aliases)),
        place + (", has a default" if template.default_system else ""),
        " ".join(code(json.dumps(stop, ensure_ascii=False)) for stop in template.stops),
        "own form" if template.renders_tools else "",
        code(json.dumps(template.image.text)) if template.image else "",
        "yes" if template.fill_in else "",
        template.notes,
    ]


def dialects_table() -> str:
    rows = [dialect_row(dialect) for dialect in DIALECTS.values()]
    return table("name models call forced", rows)


def dialect_row(dialect: Dialect) -> list[str]:
    module = sys.modules[dialect.grammar.__module__]
    call = dialect.write([Said("call_1", "get_weather", '{"city": "Rome"}')]).replace("\n", "⏎")
    return [
        code(dialect.name),
        (module.__doc__ or "").partition(":")[0].removeprefix("For "),
        code(f" {call} " if call.endswith("`") else call),
        "any" if dialect.begin else "by name",
    ]


SEEN = Record(
    request_id="",
    route="",
    key="",
    asked="",
    model="",
    upstream="",
    status=200,
    code="x",
    streamed=True,
    started=0,
    first_event=0,
    finished=0,
    usage=Usage(1, 2),
    finish="stop",
    queued=1.0,
    booted=1.0,
    calls=3,
    fallbacks=1,
    stop_matches=1,
    client_left=True,
    ignored=("x",),
)
"""A request of every sort at once."""


def metrics() -> dict[str, tuple[str, list[str], str]]:
    """Name -> type, labels, help; asked of a registry that has seen one request of every sort, and a boot."""
    registry = Metrics()
    registry.began()
    registry.observe(SEEN)
    model = deployed(Scripted("m"))
    [target] = model.upstreams
    target.life.refused(0)
    target.life.answered(20)
    registry.watch(lambda: [target])
    books = unbounded(WORLD)
    books.taken["m"].busy = 1
    books.leases.refused["key", "concurrent"] = 1
    bounded = Caller("k", id="config:k", budgets=(Budget(tokens=10),))
    asyncio.run(books.leases.lease(bounded, model, Amount(1), "req_1"))
    registry.keep(books)
    registry.booking(lambda: None, lambda: 0)
    found = {}
    for family in text_string_to_metric_families(exposition(registry.families()).decode()):
        if not family.name.endswith("_created"):
            labels = [label for label in family.samples[0].labels if label != "le"]
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, labels, family.documentation)
    return found


def metrics_table() -> str:
    rows = [
        [code(name), kind, ", ".join(map(code, labels)), about]
        for name, (kind, labels, about) in metrics().items()
    ]
    return table("name type labels meaning", rows)


def test_no_metric_is_missing_from_the_table() -> None:
    """Also none that only shows itself in a case that nobody thought of above."""
    source = "\n".join(map(text_of, sorted((ROOT / "gateway" / "telemetry").glob("*.py"))))
    named = set(re.findall(r"\"(modal_gateway_\w+)\"", source))
    known = {name.removesuffix("_total") for name in metrics()}
    assert len(named) > 5
    assert sorted(name for name in named if name.removesuffix("_total") not in known) == []


def commands(group: Any, path: str = "modal-gateway") -> Iterator[tuple[str, Any]]:
    """Every command below this one with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def commands_table() -> str:
    """A section for each command."""
    return "\n\n".join(command_section(name, each) for name, each in commands(command_line()))


def command_line() -> Any:
    return get_command(app)


def command_section(name: str, command: Any) -> str:
    takes = [each.metavar or each.name for each in command.params if each.param_type_name == "argument"]
    text = "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n"))
    rows = [option_row(each) for each in command.params if each.param_type_name == "option"]
    parts = [f"## `{' '.join([name, *takes])}`", text]
    return "\n\n".join([*parts, table("option default meaning", rows)] if rows else parts)


def option_row(option: Any) -> list[str]:
    value, default = option.metavar or option.name.upper(), option.default
    if isinstance(default, Enum):
        value, default = "|".join(type(default)), default.value
    shown = option.opts[0] if option.is_flag else f"{option.opts[0]} {value}"
    default = "" if default in (None, False) else code(str(default))
    if isinstance(option.show_default, str):  # in words
        default = option.show_default
    return [code(shown), "required" if option.required else default, option.help or ""]


TABLES: Mapping[str, Callable[[], str]] = {
    **{f"settings.{name}": partial(settings_table, model) for name, model in SECTIONS.items()},
    "parameters": parameters_table,
    "templates": templates_table,
    "dialects": dialects_table,
    "metrics": metrics_table,
    "commands": commands_table,
}

TABLE = re.compile(r"(?<=<!-- table: )([\w.-]+)( -->\n).*?(?=<!-- /table -->)", re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if TABLE.search(text_of(page))], ids=name_of)
def test_tables_are_what_the_code_says(page: Path, golden: Golden) -> None:
    written = TABLE.sub(lambda found: f"{found[1]}{found[2]}{TABLES[found[1]]()}\n", text_of(page))
    golden.check(page, written)


def test_every_table_is_on_a_page() -> None:
    assert sorted(found[1] for found in TABLE.finditer(everything())) == sorted(TABLES)


def reachable(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every class of the configuration below this type."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        for base in annotation.__mro__:
            if issubclass(base, BaseModel) and own_fields(base):
                yield base
        for info in annotation.model_fields.values():
            yield from reachable(info.annotation)
    for part in typing.get_args(annotation):
        yield from reachable(part)


def test_every_section_of_the_configuration_has_a_table_and_every_key_a_meaning() -> None:
    assert set(reachable(settings.Settings)) == set(SECTIONS.values())
    nothing(
        [
            f"{model.__name__}.{name} has no description"
            for model in SECTIONS.values()
            for name, info in own_fields(model).items()
            if not info.description and not shape(info.annotation).endswith("section")
        ]
    )


# --- names that must be in the documents ---


def test_every_upstream_kind_is_described() -> None:
    page = text_of(DOCS / "configuration.md")
    assert [kind for kind in kinds.KINDS if f"`kind: {kind}`" not in page] == []


ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.GatewayError)
}


def error_codes() -> set[tuple[str, int]]:
    """(code, status) of every error: the classes' own, and each literal ``code`` that is given to one.

    A call is an error's where one of its names or arguments is a class of the tree.
    """
    found = {(each.default_code, each.status) for each in ERRORS.values() if each.default_code}
    for path in SOURCES:
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.Call):
                found |= codes_of(node)
    return found


def codes_of(call: ast.Call) -> set[tuple[str, int]]:
    parts = [call.func, *call.args]
    names = [part.id for part in parts if isinstance(part, ast.Name) and part.id in ERRORS]
    given = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
    if names and call.func not in parts[:1]:
        given = []
    if names and isinstance(call.func, ast.Name) and call.func.id not in ERRORS:
        given += call.args[2:3]  # a row of a table: text, class, code
    return {
        (value.value, ERRORS[name].status)
        for name in names
        for value in given
        if isinstance(value, ast.Constant) and isinstance(value.value, str)
    }


def documented_codes() -> set[tuple[str, int]]:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", text_of(DOCS / "errors.md"), re.MULTILINE)
    return {(name, int(status)) for name, status in rows}


def test_the_page_on_errors_lists_every_code_with_its_status() -> None:
    assert documented_codes() == error_codes()


def test_every_type_of_error_is_described() -> None:
    page = text_of(DOCS / "errors.md")
    assert [each.type for each in ERRORS.values() if f"`{each.type}`" not in page] == []


def test_every_key_of_a_template_file_is_described() -> None:
    page = text_of(DOCS / "templates.md").partition("## A file of your own")[2]
    assert [name for name in Front.model_fields if f"`{name}`" not in page] == []


def test_every_code_of_the_contract_is_described() -> None:
    source = ast.parse(text_of(ROOT / "modal_backend" / "engine.py"))
    codes = [
        str(node.value.value)
        for node in ast.walk(source)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "code"
        and isinstance(node.value, ast.Constant)
    ]
    page = text_of(DOCS / "contract.md")
    assert len(codes) >= 5
    assert [name for name in codes if f"`{name}`" not in page] == []


def test_every_preset_is_described_with_what_was_verified() -> None:
    page = text_of(DOCS / "deploy.md")
    files = sorted((ROOT / "config" / "models").glob("*.yaml"))
    rows = [yaml.safe_load(text_of(file)) | {"name": file.stem} for file in files]
    assert rows
    wanted = [rf"\| `{row['name']}` \| `{row['model']}` .*\| {row['verified']} \|" for row in rows]
    assert [row for row in wanted if not re.search(row, page)] == []


def test_every_header_of_ours_is_described() -> None:
    source = "\n".join(map(text_of, SOURCES))
    names = set(re.findall(r"\"(x-(?:gateway|request|should)-[a-z-]+)\"", source))
    assert names
    assert [name for name in sorted(names) if f"`{name}`" not in text_of(DOCS / "api.md")] == []


async def test_every_endpoint_is_described() -> None:
    data = {"auth": {"mode": "none"}, "models": {"m": {"upstream": {"kind": "demo"}}}}
    transport = httpx.ASGITransport(app=build_app(settings.settings_from(data, {}), loopback=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    page = text_of(DOCS / "api.md")
    wanted = [f"{method.upper()} {path}" for path, operations in paths.items() for method in operations]
    assert "POST /v1/chat/completions" in wanted
    assert [each for each in wanted if f"`{each}`" not in page] == []


# --- blocks ---


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: str
    text: str
    shows: Block | None = None  # the output block that follows

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


FENCE = re.compile(r"^```([\w-]*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[Block]:
    text = text_of(page)
    found: list[Block] = []
    following: Block | None = None
    end = len(text)
    for match in reversed(list(FENCE.finditer(text))):
        shown = following and following.kind in ("json", "text") and not text[match.end() : end].strip()
        line = text.count("\n", 0, match.start()) + 1
        following = Block(page, line, match[1], match[2], following if shown else None)
        found.append(following)
        end = match.start()
    return found[::-1]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def of_kind(*names: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind in names]


def test_both_readmes_have_the_same_blocks() -> None:
    english, chinese = ([(block.kind, block.text) for block in blocks(page)] for page in READMES)
    assert len(english) > 3
    assert chinese == english


def test_every_block_says_what_it_is() -> None:
    known = {"sh", "python", "yaml", "json", "text", "jinja", "js", "perl"}
    nothing([f"{block}: {block.kind or 'nothing'}" for block in BLOCKS if block.kind not in known])


class Anything(dict[str, str]):
    """An environment in which every variable is set, but for two that take no words."""

    def get(self, key: str, default: Any = None) -> Any:
        if key in ("REDIS_URL", "DATABASE_URL"):
            return {"REDIS_URL": "redis://localhost", "DATABASE_URL": "postgresql://localhost"}[key]
        return default if key in ("GATEWAY_SHOW_WIRE", "OTEL_EXPORTER_OTLP_ENDPOINT") else f"value-of-{key}"


@pytest.mark.parametrize("block", of_kind("yaml"), ids=str)
def test_a_configuration_is_accepted(block: Block, tmp_path: Path) -> None:
    data = yaml.safe_load(block.text)
    if "models" not in data:  # some keys of a deployment file
        read_deployment("mine", {"model": "org/name", "engine": "transformers", **data})
        return
    for model in data["models"].values():
        if model.get("template", "").endswith((".jinja", "/")):
            model["template"] = "plain"  # there is no such file here
    build_service(settings.settings_from(data, Anything()), tmp_path)


WRONG = """
models: {my-model: {templat: plain, upstream: {kind: demo}}}
---
models: {my-model: {upstream: {url: "http://host", modal_key: "${MODAL_KEY}"}}}
---
models: {my-model: {upstream: {kind: demo}, fallback: [vicuna]}, vicuna-13b: {upstream: {kind: demo}}}
---
models: {my-model: {upstream: {kind: demo}, defaults: {temprature: 1}}}
---
models:
  my-model:
    upstream: url: http://host
"""


def test_errors_in_a_configuration_are_those_that_are_shown(tmp_path: Path) -> None:
    [shown] = [block.text for block in blocks(DOCS / "configuration.md") if block.text.startswith("error: ")]
    file = tmp_path / "gateway.yaml"
    said = []
    for text in WRONG.strip().split("---\n"):
        file.write_text(text)
        with pytest.raises(settings.ConfigError) as caught:
            settings.load(file, {})
        said.append(f"error: {caught.value}".replace(f"{tmp_path}/", ""))
    assert said == shown.splitlines()


@pytest.mark.parametrize("block", of_kind("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", of_kind("jinja"), ids=str)
def test_a_template_is_one(block: Block, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(block.text, encoding="utf-8")
    template = templates.load("own.jinja", tmp_path)
    assert "hello" in template.render([{"role": "user", "content": "hello"}])
    assert split(block.text)[0] is not None


@pytest.mark.parametrize("block", of_kind("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", of_kind("sh"), ids=str)
def test_shell_parses(block: Block) -> None:
    subprocess.run(["bash", "-n", "-c", block.text], check=True)


Role: TypeAlias = Literal["demo", "container", "own"]

PORTS: Mapping[str, Mapping[int, Role]] = {
    "README.md": {8000: "demo"},
    "docs/api.md": {8000: "demo"},
    "docs/contract.md": {8080: "container"},
    "docs/deploy.md": {8000: "demo", 8001: "container"},
    "docs/start.md": {8000: "demo", 8080: "container", 8001: "own"},
}
"""Pages whose programs are run here, and who listens where in them; ``own``: `serve --url` the container."""


@dataclass(frozen=True)
class Servers:
    """``HOST:PORT`` of each role, and what the demo printed."""

    places: Mapping[Role, str]
    printed: str

    def found_by(self, block: Block) -> str:
        """Its text, with ports that are there."""
        text = block.text
        for port, role in PORTS[name_of(block.page)].items():
            text = text.replace(f"127.0.0.1:{port}", self.places[role])
        return text


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder, port, own = tmp_path_factory.mktemp("docs"), free_port(), free_port()
    container = [sys.executable, "-m", "modal_backend", "--delay", "0", "--port", str(port)]
    with serving(container, port, folder=folder) as behind, introduced(folder) as printed:
        found = re.search(r"http://(\S+)", printed)
        assert found, printed
        with serving(gateway("serve", "--url", behind, "--port", str(own)), own, folder=folder) as before:
            places = {"container": behind, "own": before, "demo": found[1]}
            yield Servers({role: place.removeprefix("http://") for role, place in places.items()}, printed)


@contextmanager
def introduced(folder: Path) -> Iterator[str]:
    """A running demo; gives all that it says of itself."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = gateway("demo", "--port", "0")
    with (
        (folder / "demo.log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=log, encoding="utf-8"
        ) as demo,
    ):
        assert demo.stdout is not None
        printed = ""
        while line := demo.stdout.readline():
            printed += line
            if line.startswith("Ctrl-C"):
                break
        try:
            yield printed
        finally:
            demo.terminate()
            with suppress(subprocess.TimeoutExpired):
                demo.wait(30)
            demo.kill()


ELSEWHERE: Mapping[str, str] = {
    "README.zh-CN.md": "its blocks are those of README.md",
    "docs/access.md": "tests/keys/test_access_page.py",
    "docs/clients.md": "tests/clients",
    "docs/cold-starts.md": "a boot of 20 s; tests/simulate has shorter ones",
    "docs/coming-from.md": "another library, before and after",
    "docs/old-endpoints.md": "tests/clients/test_examples.py",
    "docs/simulate.md": "a boot of 20 s; tests/simulate has shorter ones",
}
"""Pages with programs that are run by other tests, or why they are only parsed."""


def program(block: Block) -> bool:
    """Is this a program, or does it talk to a server?"""
    return block.kind == "python" or (block.kind == "sh" and bool(TALKS.search(block.text)))


TALKS = re.compile(r"\bcurl\b|^modal-gateway conformance http://127", re.MULTILINE)


def runs(block: Block) -> bool:
    return program(block) and name_of(block.page) in PORTS


def test_every_program_is_run_or_it_is_said_why_not() -> None:
    pages = {name_of(block.page) for block in BLOCKS if program(block)}
    assert sorted(pages - PORTS.keys()) == sorted(ELSEWHERE)


def run(command: list[str], servers: Servers, folder: Path) -> str:
    environ = {
        **os.environ,
        "OPENAI_BASE_URL": f"http://{servers.places['demo']}/v1",
        "OPENAI_API_KEY": "unused",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        command, cwd=folder, env=environ, check=False, capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def marked(block: Block) -> Any:
    slow = [pytest.mark.slow] if re.search("langchain|conformance", block.text) else []
    return pytest.param(block, id=str(block), marks=slow)


@pytest.mark.parametrize("block", [marked(block) for block in BLOCKS if runs(block)])
def test_a_block_does_what_it_shows(block: Block, servers: Servers, tmp_path: Path) -> None:
    text = servers.found_by(block).replace("modal-gateway ", f"{sys.executable} -m gateway ")
    shell = [sys.executable, "-c"] if block.kind == "python" else ["bash", "-euo", "pipefail", "-c"]
    printed = run([*shell, text], servers, tmp_path)
    if block.shows is None:
        assert printed.strip() or block.kind == "python"
    elif block.shows.kind == "json":
        assert same(json.loads(printed)) == same(json.loads(block.shows.text))
    else:
        assert same_text(printed) == same_text(block.shows.text)


def same(answer: Any) -> Any:
    """What does not change from run to run."""
    return {key: value for key, value in answer.items() if key not in ("id", "created")}


def same_text(text: str) -> str:
    return re.sub(r'"id":"chatcmpl-\w+"|"created":\d+|req_\w+|"gpu_ms":[\d.]+', "...", text).strip()


def test_the_readme_shows_what_the_demo_prints(servers: Servers) -> None:
    [shown] = [block for block in blocks(READMES[0]) if block.text.endswith("\n...\n")]
    wanted, rest = servers.found_by(shown).splitlines(), servers.printed.splitlines()
    assert wanted.pop() == "..."
    assert [numbers(line) for line in rest[: len(wanted)]] == [numbers(line) for line in wanted]


def numbers(line: str) -> str:
    """The line without how long things took."""
    return re.sub(r"\d+ ms|[\d.]+ s$", "N", line)


OURS = re.compile(r"(?:modal-gateway|python -m gateway) +([a-z](?:'[^']*'|\"[^\"]*\"|[^'\"|;&>)`\n])*)")


def test_commands_in_documents_can_be_typed() -> None:
    """In blocks and in spans of code: the command is there, and takes these options with these values."""
    typed = [(str(block), line) for block in of_kind("sh") for line in OURS.findall(block.text)]
    for page in PAGES:
        spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(page)))
        typed += [(name_of(page), line) for span in spans for line in OURS.findall(span) if " -" in line]
    assert len(typed) > 40
    nothing([f"{where}: {line}: {wrong}" for where, line in typed if (wrong := mistake(line))])


def mistake(line: str) -> str | None:
    """What the command line says of these words; nothing is run."""
    words = shlex.split(line.replace("$(", "("), comments=True)
    command = command_line()
    try:
        while hasattr(command, "commands"):
            known = command.commands.get(words[0])
            if known is None:
                return f"there is no {words[0]}"
            command = known
            words = words[1:]
        with command.make_context("modal-gateway", words):
            return None
    except typer.TyperException as error:
        said = error.format_message()
        return None if said.startswith("Missing") else said


SERVES = re.compile(r"(?:^|&& )(?:make run|modal-gateway (?:serve|demo|simulate)|\S+ backend \S+ --local)\b")


def test_what_runs_until_it_is_stopped_is_the_last_of_its_block() -> None:
    """Pasted as a whole, nothing behind it would ever begin."""
    found = []
    for block in of_kind("sh"):
        *before, _ = block.text.replace("\\\n", " ").strip().splitlines()
        found += [f"{block}: {line}" for line in before if SERVES.search(line) and not line.endswith("&")]
    nothing(found)


@pytest.mark.parametrize("page", [*READMES, DOCS / "start.md"], ids=name_of)
def test_who_begins_here_was_told_where_the_command_is_and_what_to_install(page: Path) -> None:
    installed, found = {*sys.stdlib_module_names}, []
    for block in blocks(page):
        if block.kind == "python":
            modules = set(re.findall(r"^(?:from|import) (\w+)", block.text, re.MULTILINE))
            found += [f"{block}: {name} is not installed" for name in sorted(modules - installed)]
        elif block.kind == "sh":
            if re.search(r"^\. \.venv/bin/activate$", block.text, re.MULTILINE):
                installed.add("modal-gateway")
            for line in re.findall(r"^pip install ([\w -]+)$", block.text, re.MULTILINE):
                installed |= set(line.replace("-", "_").split())
            if re.search(r"^(?:export \w+=\"\$\()?modal-gateway ", block.text, re.MULTILINE):
                found += [f"{block}: there is no modal-gateway"] * ("modal-gateway" not in installed)
    nothing(found)


def test_modules_that_are_run_in_documents_exist() -> None:
    named = {name for block in of_kind("sh") for name in re.findall(r"python -m ([\w.]+)", block.text)}
    assert "modal_backend" in named
    assert [name for name in sorted(named) if importlib.util.find_spec(name) is None] == []


def test_make_targets_in_documents_exist() -> None:
    targets = re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE)
    named = set(re.findall(r"\bmake ([a-z][\w-]*)`", everything()))
    for block in of_kind("sh"):
        named |= set(re.findall(r"^make ([\w-]+)", block.text, re.MULTILINE))
    assert named
    assert named <= set(targets)


# --- links and words ---


def test_the_list_of_documents_has_every_page() -> None:
    listed = re.findall(r"\]\(([\w/.-]+\.md)", text_of(DOCS / "README.md"))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.glob("*.md")} - {"README.md"}
    assert sorted(pages - set(listed)) == []
    rows = re.findall(r"^\| \[[\w.]+\]\(([\w/.-]+)\)", text_of(DOCS / "README.md"), re.MULTILINE)
    assert sorted(rows) == sorted(set(rows))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", text_of(page))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)
    found = []
    for target in targets:
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            found.append(f"{name_of(page)}: {target}")
    nothing(found)


ROOMS = (ROOT, ROOT / "gateway", ROOT / "gateway" / "upstreams", DOCS)


def test_files_that_are_named_exist() -> None:
    named = re.findall(r"`([\w./-]*\w(?:\.py|\.md|\.toml|/))(?: [^`]*)?`", FENCE.sub("", everything()))
    ours = {name for name in named if not name.startswith(("models/", "http"))}
    assert "gateway/serve/life.py" in ours
    assert [name for name in sorted(ours) if not any((room / name).exists() for room in ROOMS)] == []


SITES = r"modal\.com|modal\.run|modal\.direct|example\.com|semver\.org|keepachangelog\.com|openresponses\.org"
HOSTS = re.compile(rf"(?:[\w-]+\.)*(?:{SITES})|127\.0\.0\.1|[a-z]+")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_addresses_are_real_or_plainly_examples(page: Path) -> None:
    text = text_of(page)
    hosts = [re.split(r"[/:?#]", url)[0] for url in re.findall(r"https?://([^\s\"'`<>)\]}]+)", text)]
    nothing([f"{name_of(page)}: {host}" for host in hosts if not HOSTS.fullmatch(host)])
    assert re.findall(r"[\w.+-]+@[\w-]+\.[\w.]+", text) == []


# What a plain text does without, and what only concerns those who wrote it.
UNWANTED = re.compile(
    r"\b(simply|easily|effortless\w*|seamless\w*|blazing\w*|powerful|cutting[- ]edge|world[- ]class)\b"
    r"|\bissues? #?\d|\(#\d+\)|\.\./shared|[\U0001f000-\U0001faff\u2705\u274c\u2728]",
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_words_that_say_nothing_are_left_out(page: Path) -> None:
    lines = enumerate(text_of(page).splitlines(), 1)
    nothing([f"{name_of(page)}:{number}: {line}" for number, line in lines if UNWANTED.search(line)])
