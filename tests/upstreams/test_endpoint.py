"""The config of HTTP kinds: its defaults, and what it refuses with a line that says why."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from gateway.upstreams.demo import DemoConfig
from gateway.upstreams.endpoint import place
from gateway.upstreams.openai import OpenAIConfig
from gateway.upstreams.prompt import PromptConfig

URL = "https://ecorp--custom-llm-endpoint.modal.run"


def test_the_defaults_are_those_that_are_documented() -> None:
    config = PromptConfig(url=URL)
    shared = {
        "url": URL, "modal_key": None, "modal_secret": None, "headers": {}, "whole": "auto",
        "forward": (), "request_fields": {}, "model": None, "api_key": None,
        "connect_timeout": 5, "first_event_timeout": 600,
        "idle_timeout": 120, "max_concurrency": 100, "max_queue": 1000, "queue_timeout": 600,
        "inputs_per_container": 32, "max_containers": 1, "scaledown_window": 60, "stream": "auto",
    }  # fmt: skip
    own = {
        "kind": "prompt",
        "cumulative": False,
        "echo": "auto",
        "response_field": "prompt",
        "ends": "marker",
    }
    assert config.model_dump() == shared | own
    assert OpenAIConfig(url=URL).model_dump() == shared | {"kind": "openai"}


@pytest.mark.parametrize("kind", [PromptConfig, OpenAIConfig, DemoConfig])
def test_every_key_is_described(kind: Any) -> None:
    assert [
        name for name, field in kind.model_fields.items() if not field.description and name != "kind"
    ] == []


@pytest.mark.parametrize("kind", [PromptConfig, OpenAIConfig])
def test_secrets_are_not_shown(kind: Any) -> None:
    config = kind(url=URL, modal_key="wk-1", modal_secret="ws-1", api_key="sk-1", headers={"X-Token": "t-1"})
    assert isinstance(config.headers["X-Token"], SecretStr)
    for secret in ("wk-1", "ws-1", "sk-1", "t-1"):
        assert secret not in repr(config) + str(config) + config.model_dump_json()


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValidationError):
        PromptConfig(url=URL).url = "http://elsewhere"  # type: ignore[misc]


@pytest.mark.parametrize(
    "config",
    [
        {"url": "http://127.0.0.1:8000/v1?x=1"},
        {"url": "https://[::1]:8000/"},
        {"modal_key": "", "modal_secret": ""},
        {"modal_key": "wk-1", "modal_secret": "ws-1"},
        {"forward": "all"},
        {"forward": ["a"]},
        {"headers": {"Authorization": "Basic x", "User-Agent": "me"}},
        {"request_fields": {"a": "x.y", "b": "x.z", "c": None, "stream": None}},
    ],
)
def test_what_is_accepted(config: dict[str, Any]) -> None:
    PromptConfig(**{"url": URL, **config})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"url": "ecorp.modal.run"}, "begins with http"),
        ({"url": "ftp://ecorp.modal.run"}, "begins with http"),
        ({"url": "http://"}, "names a host"),
        ({"url": "http://a:99999/"}, "not a URL"),
        ({"url": "http://a:0/"}, "names a host"),
        ({"url": "http://[::1"}, "not a URL"),
        ({"url": "http://a b/"}, "without spaces"),
        ({"url": "http://a/\r\nx: y"}, "without spaces"),
        ({"url": "http://user:secret@a/"}, "no user or password"),
        ({"url": ""}, "begins with http"),
        ({"url": "http://a..b/"}, "host name"),
        ({"modal_key": "wk-1"}, "modal_secret is missing"),
        ({"modal_secret": "ws-1"}, "modal_key is missing"),
        ({"modal_key": "wk\n1", "modal_secret": "ws-1"}, "no header can carry"),
        ({"api_key": "sk-é€"}, "no header can carry"),
        ({"headers": {"a b": "x"}}, "not a header name"),
        ({"headers": {"Host": "x"}}, "set by the gateway"),
        ({"headers": {"Content-Length": "1"}}, "set by the gateway"),
        ({"headers": {"Modal-Key": "x"}}, "set by the gateway"),
        ({"headers": {"x": "a\r\nb: c"}}, "no header can carry"),
        ({"request_fields": {"a": ""}}, "not a field name"),
        ({"request_fields": {"a": "x..y"}}, "not a field name"),
        ({"request_fields": {"a": "x", "b": "x.y"}}, "cannot both be sent"),
        ({"request_fields": {"a": "x.y", "b": "x.y"}}, "cannot both be sent"),
        ({"response_field": ""}, "pattern"),
        ({"response_field": "a..b"}, "pattern"),
        ({"stream": "yes"}, "'auto'"),
        ({"connect_timeout": 0}, "greater than 0"),
        ({"idle_timeout": float("inf")}, "finite"),
        ({"max_concurrency": 0}, "greater than or equal to 1"),
        ({"timeout": 5}, "Extra inputs"),
    ],
)
def test_what_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PromptConfig(**{"url": URL, **config})
    shown = str(caught.value.errors(include_input=False, include_url=False))
    assert words in shown
    assert "secret@" not in shown
    assert "wk\\n1" not in shown


@pytest.mark.parametrize(
    ("config", "credentials"),
    [
        ({}, "modal_key and modal_secret, or api_key,"),
        ({"modal_key": "wk-1", "modal_secret": "ws-1"}, "modal_key and modal_secret"),
        ({"api_key": "sk-1"}, "api_key"),
        (
            {"api_key": "sk-1", "modal_key": "wk-1", "modal_secret": "ws-1"},
            "modal_key and modal_secret and api_key",
        ),
    ],
)
def test_messages_name_the_credentials_that_are_set(config: dict[str, Any], credentials: str) -> None:
    assert place(PromptConfig(url=URL, **config), "models.m.upstream").credentials == credentials


def test_what_must_never_be_repeated() -> None:
    config = PromptConfig(url=URL, modal_key="wk-1", modal_secret="ws-1", headers={"a": "token", "b": "x"})
    assert set(place(config, "models.m.upstream").secrets) == {"wk-1", "ws-1", "token"}
