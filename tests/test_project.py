"""The project keeps its own rules: locks, versions, what ships, what is left lying about, who imports whom.

Rule: each test lists every violation it finds, with file and line. Knows nothing of what the gateway does.
"""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import gateway

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted([*ROOT.glob("requirements*.lock"), *ROOT.glob("tests/clients/*/requirements.lock")])
PACKAGES = ("gateway", "modal_backend")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)[:200]}\n{done.stdout}{done.stderr}"
    return done.stdout


def nothing(found: Iterable[str]) -> None:
    """Fail with all that was found, one a line; pytest would show the first few."""
    lines = list(found)
    assert not lines, "\n" + "\n".join(lines)


@cache
def project_files() -> list[Path]:
    """The files git tracks or would add."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of the project's files")
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@cache
def project_text() -> list[tuple[str, int, str]]:
    """(file, line number, line) of every text file."""
    lines = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines += [(relative(path), number, line) for number, line in enumerate(text.split("\n"), 1)]
    return lines


def matches(pattern: re.Pattern[str]) -> list[str]:
    found = ((name, n, line) for name, n, line in project_text() if pattern.search(line))
    return [f"{name}:{n}: {line.strip()[:100]}" for name, n, line in found]


# --- locks ---


def logical_lines(path: Path) -> list[str]:
    lines = re.sub(r"\\\n\s*", "", path.read_text()).splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def pins(path: Path) -> list[tuple[Requirement, str]]:
    """(requirement with its marker, version) of every line of a lock."""
    found = []
    for line in logical_lines(path):
        requirement = Requirement(line.split(" --hash=")[0])
        [specifier] = requirement.specifier
        found.append((requirement, specifier.version))
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=relative)
def test_each_line_of_a_lock_is_a_version_with_hashes_and_nothing_else(lock: Path) -> None:
    pin = re.compile(r"[a-z0-9-]+==[\w.+!]+( ; [^:@]+?)? ?(--hash=sha256:[0-9a-f]{64} ?)+")
    lines = logical_lines(lock)
    assert lines
    nothing(line[:100] for line in lines if not pin.fullmatch(line))


def resolve(names: list[object]) -> list[Requirement]:
    """Requirements of a dependency list, with the project's own extras written out."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    found = []
    for name in names:
        requirement = Requirement(str(name))
        if requirement.name == PYPROJECT["project"]["name"]:
            found += [r for extra in requirement.extras for r in resolve(extras[extra])]
        else:
            found.append(requirement)
    return found


def unsatisfied(requirements: list[Requirement], lock: Path) -> list[str]:
    locked = [(canonicalize_name(pin.name), version) for pin, version in pins(lock)]

    def satisfied(wanted: Requirement) -> bool:
        name = canonicalize_name(wanted.name)
        return any(name == pin and wanted.specifier.contains(version) for pin, version in locked)

    return [str(wanted) for wanted in requirements if not satisfied(wanted)]


def test_the_locks_satisfy_pyproject() -> None:
    project, groups = PYPROJECT["project"], PYPROJECT["dependency-groups"]
    base = resolve(project["dependencies"])
    nothing(unsatisfied(base, ROOT / "requirements.lock"))
    nothing(unsatisfied(resolve(PYPROJECT["build-system"]["requires"]), ROOT / "requirements-build.lock"))
    extras = resolve(project["optional-dependencies"]["all"])
    tools = [wanted for name, group in groups.items() if name != "stack" for wanted in resolve(group)]
    nothing(unsatisfied(base + extras + tools, ROOT / "requirements-dev.lock"))
    nothing(unsatisfied(resolve(groups["stack"]), ROOT / "requirements-stack.lock"))


@pytest.mark.parametrize("part", ["requirements.lock", "requirements-build.lock"])
def test_the_development_lock_holds_the_others(part: str) -> None:
    development = {str(pin) for pin, _ in pins(ROOT / "requirements-dev.lock")}
    nothing(str(pin) for pin, _ in pins(ROOT / part) if str(pin) not in development)


def test_the_stack_lock_changes_no_version_of_the_development_lock() -> None:
    names = ("requirements-dev.lock", "requirements-stack.lock")
    development, stack = ({pin.name: version for pin, version in pins(ROOT / name)} for name in names)
    nothing(f"{name} {stack[name]}" for name in stack if development.get(name, stack[name]) != stack[name])


@pytest.mark.parametrize("lock", sorted(ROOT.glob("tests/clients/*/requirements.lock")), ids=relative)
def test_a_client_lock_holds_what_its_source_names(lock: Path) -> None:
    lines = lock.with_suffix(".in").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert wanted
    nothing(unsatisfied(wanted, lock))


def test_the_base_dependencies_open_with_those_the_product_is_made_of() -> None:
    names = [Requirement(line).name for line in PYPROJECT["project"]["dependencies"]]
    assert names[:5] == ["fastapi", "uvicorn", "httpx", "pydantic", "prometheus-client"]


# --- environments made from them ---


@pytest.mark.clients
@pytest.mark.parametrize("lock", sorted(ROOT.glob("tests/clients/*/requirements.lock")), ids=relative)
def test_a_client_environment_is_what_its_lock_says(lock: Path, client_python: Callable[[str], Path]) -> None:
    script = (
        "import json; from importlib.metadata import distributions;"
        "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in distributions()}))"
    )
    installed = json.loads(run(str(client_python(lock.parent.name)), "-c", script))
    wanted = {pin.name: version for pin, version in pins(lock) if pin.marker is None or pin.marker.evaluate()}
    assert {name: installed.get(name) for name in wanted} == wanted


@pytest.mark.torch
def test_the_torch_environment_holds_what_its_file_says() -> None:
    wanted = [Requirement(line) for line in logical_lines(ROOT / "requirements-torch.txt")]
    assert wanted
    for requirement in wanted:
        version = Version(importlib.metadata.version(requirement.name))
        assert requirement.specifier.contains(version.public), f"{requirement}: {version} is installed"
    run(sys.executable, "-m", "pip", "check")


# --- version, commands, what ships ---


def test_the_changelog_opens_with_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    released = [heading for heading in headings if "unreleased" not in heading.lower()]
    assert headings, "CHANGELOG.md has no entry"
    if released:
        [version, *_] = re.findall(r"\d[\w.]*", released[0])
        assert version == gateway.__version__


def test_every_make_target_explains_itself() -> None:
    make = ("make", "--no-print-directory")
    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    shown = [line.split()[0] for line in run(*make, "help").splitlines() if len(line.split()) > 1]
    assert sorted(shown) == sorted(targets)
    promised = "help run test test-all lint types check bench fix golden lock clean"
    assert set(promised.split(" ")) <= set(targets)
    assert run(*make) == run(*make, "help")


def test_the_ci_script_is_executable_bash() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    run("bash", "-n", str(script))


def build_wheel(folder: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder))
    [wheel] = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [entry_points] = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert wheel.name == f"modal_gateway-{gateway.__version__}-py3-none-any.whl"
    assert "modal-gateway = gateway.cli:main" in entry_points
    sources = {relative(path) for path in project_files() if relative(path).split("/")[0] in PACKAGES}
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert {"gateway/py.typed", "modal_backend/py.typed"} <= sources


@pytest.mark.slow
def test_the_wheel_runs_with_the_base_lock_alone(tmp_path: Path) -> None:
    python, command = tmp_path / "env" / "bin" / "python", tmp_path / "env" / "bin" / "modal-gateway"
    run(sys.executable, "-m", "venv", str(tmp_path / "env"))
    pip = (str(python), "-m", "pip", "install", "--quiet", "--no-deps")
    run(*pip, "--require-hashes", "-r", "requirements.lock")
    run(*pip, str(build_wheel(tmp_path)))
    run(str(python), "-m", "pip", "check")
    elsewhere = subprocess.run([command, "--help"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "serve" in elsewhere.stdout
    subprocess.run([python, "-c", "import gateway.app, modal_backend.contract"], cwd=tmp_path, check=True)


# --- what must not be in the tree ---


def configured_indexes() -> tuple[set[str], set[str]]:
    """(hosts, folders) from which this machine installs packages."""
    settings = run(sys.executable, "-m", "pip", "config", "list")
    tools = ("UV_", "PIP_", "NPM_")
    settings += "".join(f"{name}={value}\n" for name, value in os.environ.items() if name.startswith(tools))
    if shutil.which("npm"):
        settings += run("npm", "config", "get", "registry")
    hosts = set(re.findall(r"https?://(?:[^/@\s]*@)?([\w.-]+)", settings))
    links = [line for line in settings.splitlines() if re.search(r"index|find-links", line)]
    folders = set(re.findall(r"(?:file://|(?<=[\s'\"=]))(/[\w./-]+)", "\n".join(links)))
    return hosts - {"localhost", "127.0.0.1"}, folders


def test_no_file_names_where_this_machine_gets_its_packages() -> None:
    hosts, folders = configured_indexes()
    if not hosts | folders:
        pytest.skip("pip and npm have no index configured here")
    names = sorted(re.escape(name) for name in hosts | folders)
    nothing(matches(re.compile(rf"(?<![\w.-])({'|'.join(names)})(?![\w-])")))


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    # Folders that containers have too: a checkout below one of these says nothing about the machine.
    common = {"app", "code", "home", "mnt", "opt", "private", "root", "src", "srv", "tmp", "usr", "var"}
    here = f"/{ROOT.parts[1]}" if ROOT.parts[1] not in common else ROOT.as_posix()
    personal = rf"/(home|Users)/\w+|/(root)/(?!\.cache\b)|{re.escape(here)}"
    nothing(matches(re.compile(rf"(?<![\w.:/}}-])({personal})(/|\b)")))


def test_nothing_is_left_for_later() -> None:
    found = matches(re.compile(r"\b(TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b"))
    nothing(line for line in found if not re.match(r"tests/.*\b(golden|recordings)/", line))


# --- who imports whom, and how large things grow ---


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    def where(self, node: ast.stmt | ast.expr) -> str:
        return f"{relative(self.path)}:{node.lineno}"

    def within(self, *places: str) -> bool:
        """Is this one of `places` (dotted names), or below one?"""
        return any(self.name == place or self.name.startswith(place + ".") for place in places)

    def imports(self) -> Iterator[tuple[str, str]]:
        """(full name, place) of everything imported anywhere in the module, in functions too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, self.where(node)) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node)
                yield from ((f"{source}.{alias.name}", self.where(node)) for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        folder = parts if self.path.name == "__init__.py" else parts[:-1]
        return ".".join([*folder[: len(folder) - node.level + 1], *filter(None, [node.module])])


def load(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text(encoding="utf-8")))


MODULES = [load(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
COMMAND_LINE = ("gateway.cli", "gateway.__main__", "modal_backend.__main__")
CORE = [module for module in MODULES if module.within("gateway.core")]


def importers(package: str, *allowed: str) -> list[str]:
    """Where `package` (or what is below it) is imported by a module outside `allowed`."""
    return [
        f"{place} imports {name}"
        for module in MODULES
        if not module.within(*allowed)
        for name, place in module.imports()
        if name == package or name.startswith(package + ".")
    ]


def test_core_imports_only_what_is_pure() -> None:
    impure = """
        asyncio concurrent ctypes ftplib http io logging multiprocessing os queue random sched secrets
        select selectors shutil signal smtplib socket sqlite3 ssl subprocess tempfile threading time urllib
        uuid warnings
    """
    # typing_extensions comes with pydantic, which on Python 3.11 takes no other TypedDict.
    ours = {"pydantic", "pydantic_core", "typing_extensions", "jinja2", "jsonschema_rs", "orjson"}
    allowed = sys.stdlib_module_names - set(impure.split()) | ours
    assert CORE
    nothing(
        f"{place} imports {name}"
        for module in CORE
        for name, place in module.imports()
        if name.split(".")[0] not in allowed and not name.startswith("gateway.core")
    )


def test_core_never_waits_opens_or_asks_the_time() -> None:
    found = []
    for module in CORE:
        for node in ast.walk(module.tree):
            match node:
                case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                    found.append(f"{module.where(node)} is asynchronous")
                case ast.Call(func=ast.Name(id="open" | "print" | "input" as name)):
                    found.append(f"{module.where(node)} calls {name}")
                case ast.Call(func=ast.Attribute(attr="now" | "utcnow" | "today" as name)):
                    found.append(f"{module.where(node)} calls {name}")
    nothing(found)


def test_the_gateway_and_the_backend_never_import_each_other() -> None:
    nothing(importers("modal_backend", "modal_backend") + importers("gateway", "gateway"))


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("prometheus_client", ("gateway.telemetry.metrics", "gateway.telemetry")),
        ("opentelemetry", ("gateway.telemetry.tracing",)),
        ("httptools", ("gateway.upstreams", "gateway.http.connection")),
        ("gateway.app", COMMAND_LINE),
        ("gateway.simulate", ("gateway.cli", "gateway.simulate")),
        ("sqlalchemy", ("gateway.store", "gateway.ledger", "gateway.keys", "gateway.cli")),
        ("alembic", ("gateway.store",)),
        ("jwt", ("gateway.identity.keyset",)),
        ("cryptography", ("gateway.identity.keyset",)),
        ("redis", ("gateway.limits", "gateway.keys")),
        ("typer", COMMAND_LINE),
        ("rich", COMMAND_LINE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_some_imports_belong_in_one_place(package: str, allowed: tuple[str, ...]) -> None:
    nothing(importers(package, *allowed))


@pytest.mark.parametrize("module", ["gateway.app", "modal_backend.contract"])
def test_a_serving_process_loads_nothing_heavy(module: str) -> None:
    heavy = "alembic sqlalchemy typer rich tokenizers modal transformers torch vllm openai langchain_core"
    heavy += " jsonschema_rs redis psycopg opentelemetry.sdk jwt cryptography"
    script = f"import sys, {module}; print(*[name for name in {heavy.split()} if name in sys.modules])"
    assert run(sys.executable, "-c", script).split() == []


def test_modules_stay_readable() -> None:
    lengths = {relative(module.path): len(module.path.read_text().splitlines()) for module in MODULES}
    nothing(f"{name}: {lines} lines" for name, lines in lengths.items() if lines > 400)


def functions() -> Iterator[tuple[Module, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module in MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node


def test_functions_stay_short() -> None:
    found = []
    for module, node in functions():
        body = node.body[1:] if ast.get_docstring(node) else node.body
        lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
        if lines > 40:
            found.append(f"{module.where(node)} {node.name}: {lines} lines")
    nothing(found)


def test_functions_take_five_parameters_at_most() -> None:
    found = []
    for module, node in functions():
        names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        if len(set(names) - {"self", "cls"}) > 5 and not module.within(*COMMAND_LINE):
            found.append(f"{module.where(node)} {node.name}: {', '.join(names)}")
    nothing(found)
