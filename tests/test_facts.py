"""``from:`` - a model's entry takes its facts from a deployment file, and its own keys win."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.facts import BUILT_IN, FACTS
from gateway.models import deployment
from gateway.settings import ConfigError, Model, load, settings_from
from gateway.upstreams.openai import OpenAIConfig

URL = "http://127.0.0.1:9"
FILE: dict[str, Any] = {
    "model": "org/name",
    "engine": "transformers",
    "gpu": "L4",
    "template": "chatml",
    "context_length": 1024,
    "stops": "###",
    "dialect": "hermes",
    "price": {"per_gpu_second": 0.5, "gpus": 2},
    "aliases": ["other"],
}


def model(folder: Path, entry: dict[str, Any], **file: Any) -> Model:
    (folder / "mine.yaml").write_text(yaml.safe_dump(FILE | file))
    config = folder / "gateway.yaml"
    config.write_text(
        yaml.safe_dump({"models": {"m": {"from": "mine.yaml", "upstream": {"url": URL}} | entry}})
    )
    return load(config, {}).models["m"]


def test_an_entry_has_the_facts_of_its_file(tmp_path: Path) -> None:
    made = model(tmp_path, {})
    assert (made.template, made.context_length, made.stop) == ("chatml", 1024, ("###",))
    assert (made.tools, made.aliases) == ("hermes", ("other",))
    assert (made.price.per_gpu_second, made.price.gpus) == (0.5, 2)
    assert made.upstreams[0].kind == "prompt"


@pytest.mark.parametrize(
    ("key", "value"),
    [("template", "plain"), ("context_length", 7), ("stop", ("x",)), ("aliases", ()), ("tools", None)],
)
def test_keys_of_the_entry_win(tmp_path: Path, key: str, value: Any) -> None:
    written = list(value) if isinstance(value, tuple) else value
    assert getattr(model(tmp_path, {key: written}), key) == value


def test_every_fact_is_a_key_of_an_entry() -> None:
    assert set(FACTS.values()) <= set(Model.model_fields)


def test_paths_start_where_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "models" / "near.yaml").write_text(yaml.safe_dump(FILE | {"template": "mine.jinja"}))
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump({"models": {"m": {"from": "near", "upstream": {"url": URL}}}}))
    made = load(config, {}).models["m"]
    assert made.template == str((tmp_path / "models" / "mine.jinja").resolve())
    assert deployment("m", made, tmp_path).spec.template is not None


@pytest.mark.parametrize("file", sorted(BUILT_IN.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_preset_makes_an_entry(file: Path) -> None:
    upstream = {"url": URL}
    made = settings_from({"models": {"m": {"from": file.stem, "upstream": upstream}}}, {}).models["m"]
    facts = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert made.template == facts["template"]
    assert made.upstreams[0].kind == ("openai" if facts.get("serve") == "server" else "prompt")
    assert deployment("m", made, Path()).spec.template is not None


def test_a_server_is_asked_for_the_name_it_knows() -> None:
    for written in ({"upstream": {"url": URL}}, {"upstreams": [{"url": URL, "kind": "openai"}]}):
        [made] = settings_from({"models": {"m": {"from": "qwen3-8b", **written}}}, {}).models["m"].upstreams
        assert isinstance(made, OpenAIConfig)
        assert made.model == "qwen3-8b"


def test_an_upstream_of_another_kind_stays_what_it_is() -> None:
    entry = {"from": "qwen3-8b", "upstream": {"kind": "prompt", "url": URL}}
    [made] = settings_from({"models": {"m": entry}}, {}).models["m"].upstreams
    assert (made.kind, getattr(made, "model", None)) == ("prompt", None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen3-8", r"there is no deployment file qwen3-8; did you mean qwen3-8b\?"),
        ("nowhere.yaml", r"there is no file nowhere\.yaml"),
        ("list.yaml", r"must hold a mapping"),
        ("broken.yaml", r"broken\.yaml is not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("[]")
    Path("broken.yaml").write_text("{")
    with pytest.raises(ConfigError, match=rf"^models\.m\.from: .*{said}"):
        settings_from({"models": {"m": {"from": name, "upstream": {"url": URL}}}}, {})
