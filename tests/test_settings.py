"""Settings: what is wrong is named in one line, with the nearest key that would be right."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import ConfigError, load, settings_from

URL = "https://ecorp--custom-llm-endpoint.modal.run"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
ONE = {"upstream": {"url": URL}}


def refused(data: dict[str, Any], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        settings_from(data, environ or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def auth(*keys: dict[str, str]) -> dict[str, Any]:
    return {"auth": {"keys": list(keys)}, **model()}


def model(**fields: Any) -> dict[str, Any]:
    return {"models": {"m": {**ONE, **fields}}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "models: is required"),
        ({"models": {}}, "models: "),
        ({"models": {"m": {}}}, "models.m.upstreams: is required (or upstream)"),
        ({"model": {}, **model()}, "model: unknown key; did you mean models?"),
        (model(tempalte="x"), "models.m.tempalte: unknown key; did you mean template?"),
        (
            {"models": {"m": {"upstream": {"ulr": URL, "url": URL}}}},
            "models.m.upstream.ulr: unknown key; did you mean url?",
        ),
        ({"models": {"m": {"upstream": {"url": "nope"}}}}, "models.m.upstream.url: "),
        ({"models": {"m": {"upstream": {}}}}, "models.m.upstream.url: is required"),
        (
            {"models": {"m": {"upstream": {"kind": "x", "url": URL}}}},
            "models.m.upstream: unknown kind; valid are ",
        ),
        ({"models": {"m": {"upstreams": [ONE["upstream"], {"url": 5}]}}}, "models.m.upstreams[1].url: "),
        (model(upstreams=[]), "models.m: has both upstream and upstreams; keep one"),
        (
            model(defaults={"temprature": 1}),
            "models.m.defaults: unknown sampling parameter temprature; did you mean temperature?",
        ),
        (model(fallback=["n"]), "models.m.fallback: no model n"),
        (model(defaults={"stop": 5}), "models.m.defaults: stop: "),
        (model(defaults={"temperature": "hot"}), "models.m.defaults: temperature: "),
        (model(defaults={"logit_bias": 5}), "models.m.defaults: logit_bias: "),
        (
            model(defaults={"max_tokens": 9}, max_output_tokens=5),
            "models.m: defaults.max_tokens is 9, above max_output_tokens, 5",
        ),
        (model(fill_in={"form": "{prefix}"}), "models.m.fill_in.form: must have {prefix} once and "),
        (model(fill_in={"stops": []}), "models.m.fill_in.form: is required"),
        ({"models": {"a\nb": ONE}}, "models: 'a\\nb' is no name that clients could send"),
        ({"default_model": "x", **model()}, "default_model: no model x"),
        ({"models": {"m": ONE, "n": {**ONE, "aliases": ["m"]}}}, "models.n: the name m already belongs to m"),
        ({"auth": {"mode": "open"}, **model()}, "auth.mode: "),
        ({"auth": {"keys": [{"name": "me", "sha256": "xyz"}]}, **model()}, "auth.keys[0].sha256: "),
        (
            {"auth": {"keys": [{"name": "me", "key": "sk-1", "sha256": ABC}]}, **model()},
            "auth.keys[0]: give key or sha256, not both",
        ),
        ({"store": {"url": "mysql://x"}, **model()}, "store.url: must begin with sqlite:/// or "),
        ({"redis": {"url": "http://x"}, **model()}, "redis.url: must begin with redis://, rediss:// or "),
        (
            {"auth": {"keys": [{"name": "me", "key": "sk-1"}, {"name": "me", "key": "sk-2"}]}, **model()},
            "auth.keys: two keys have the name me; each needs its own",
        ),
        (
            auth({"name": "console", "key": "abc"}),
            "auth.keys: a key's name must not be - or console, the names of those who come without a key",
        ),
        (
            auth({"name": "a", "key": "abc"}, {"name": "b", "sha256": ABC.upper()}),
            "auth.keys: a and b are the same key; each needs its own",
        ),
        (
            auth({"name": "a", "key": "x", "expires": "9999-12-31T23:59:59-12:00"}),
            "auth.keys[0].expires: must be within the years 1970 to 9998",
        ),
        ({"server": {"max_bdy": 1}, **model()}, "server.max_bdy: unknown key; did you mean max_body?"),
    ],
)
def test_a_mistake_is_named(data: dict[str, Any], message: str) -> None:
    assert refused(data).startswith(message)


def test_variables_are_replaced_with_defaults_and_missed_by_name() -> None:
    data = {"models": {"m": {"upstream": {"url": "https://${HOST:-a.example}/${PATH_}"}}}}
    upstream: Any = settings_from(data, {"PATH_": "x"}).models["m"].upstreams[0]
    assert upstream.url == "https://a.example/x"
    upstream = settings_from(data, {"PATH_": "x", "HOST": "b.example"}).models["m"].upstreams[0]
    assert upstream.url == "https://b.example/x"
    assert refused(data).startswith("models.m.upstream.url: the environment variable PATH_ is not set")


def test_the_kind_is_prompt_unless_said() -> None:
    assert settings_from(model(), {}).models["m"].upstreams[0].kind == "prompt"


def test_an_empty_key_is_no_key() -> None:
    data = {"auth": {"keys": [{"name": "me", "key": "${KEY:-}"}]}, **model()}
    assert settings_from(data, {}).auth.keys[0].digest is None
    assert settings_from(data, {"KEY": "sk-1"}).auth.keys[0].digest is not None


def test_secrets_do_not_show() -> None:
    data = {
        "auth": {"keys": [{"name": "me", "key": "sk-canary"}]},
        "admin": {"key": "sk-canary"},
        "models": {
            "m": {
                "upstream": {
                    "url": URL,
                    "modal_key": "wk-canary",
                    "modal_secret": "ws-canary",
                    "headers": {"x": "canary"},
                }
            }
        },
    }
    assert "canary" not in repr(settings_from(data, {}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"models: [", "is not valid YAML at line 1, column 10"),
        (b"\xff", "is not UTF-8 text"),
        (b"- a", "must hold a mapping"),
        (b"models: {}\nmodels: {}", "models is written twice"),
        (b"a: &a [*a]", "holds an alias of itself"),
        (b"a: &a {b: [*a]}", "holds an alias of itself"),
        (b"auth: {keys: [{name: off}]}", "auth.keys[0].name: must be text, which YAML takes for something"),
        (b"auth: {keys: [{name: 2027-01-31}]}", "else here: put it in quotes"),
        (b"models: {m: {}}", "models.m.upstreams: is required"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(file) in str(caught.value) and message in str(caught.value)


def aliases(first: str, text: str) -> str:
    """Ten values of which each but the first is ``text``, with the name of the one before it as NAME."""
    names = "abcdefghij"
    lines = [f"{new}: &{new} {text.replace('NAME', old)}" for old, new in pairwise(names)]
    return "\n".join([f"a: &a {first}", *lines])


TOO_MUCH = {
    "lists in lists": ("[" * 100_000, "is nested too deeply"),
    "mappings in mappings": ("{a: " * 100_000, "is nested too deeply"),
    "aliases of aliases": (aliases("[1, 2]", f"[{'*NAME, ' * 8}]"), "holds more than 500000 values"),
    "aliases as keys": (aliases("{x: 1}", f"{{<<: [{'*NAME, ' * 5}]}}"), "holds more than 500000 values"),
    "a long comment": ("#" * (4 << 20) + "\n", "is larger than 4 MiB"),
    "a mapping with many keys": ("\n".join(f"k{n}: 1" for n in range(20_000)), "unknown key"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_file_that_would_take_for_ever_is_refused_soon(tmp_path: Path, name: str) -> None:
    text, message = TOO_MUCH[name]
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(file) in str(caught.value) and message in str(caught.value)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no file here that never ends")
def test_a_file_that_never_ends_is_too_large() -> None:
    with pytest.raises(ConfigError, match="/dev/zero is larger than 4 MiB"):
        load(Path("/dev/zero"), {})


def test_an_alias_may_be_used_as_often_as_one_likes(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    lines = [f"  m{number}: {{<<: *same, aliases: [a{number}]}}" for number in range(300)]
    file.write_text(
        f"models:\n  m: &same {{upstream: {{url: '{URL}', headers: {{x: y}}}}}}\n" + "\n".join(lines)
    )
    assert len(load(file, {}).models) == 301


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "none.yaml", {})


def test_defaults_are_what_a_client_could_have_sent() -> None:
    made = settings_from(
        model(defaults={"stop": "END", "temperature": None, "seed": 1}, stop=["", "X"]), {}
    ).models["m"]
    assert made.defaults == {"stop": ["END"], "seed": 1}
    assert made.stop == ("X",)


def test_an_address_beyond_ascii_is_written_as_http_can_carry_it() -> None:
    data = {"models": {"m": {"upstream": {"url": "https://例え.example/路径?q=欢迎"}}}}
    upstream: Any = settings_from(data, {}).models["m"].upstreams[0]
    assert upstream.url == "https://xn--r8jz45g.example/%E8%B7%AF%E5%BE%84?q=%E6%AC%A2%E8%BF%8E"


def test_a_key_of_a_team_that_is_not_there_is_named() -> None:
    keys = {"auth": {"keys": [{"name": "me", "key": "sk-x", "team": "reserch"}]}, **model()}
    assert settings_from(keys, {}).auth.keys[0].team == "reserch"  # without teams it is a mere label
    with pytest.raises(ConfigError, match="a team reserch that teams has not; did you mean research"):
        settings_from({**keys, "teams": {"research": {}}}, {})
