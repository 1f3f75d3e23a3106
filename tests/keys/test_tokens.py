"""Tokens of an identity provider at the door, from socket to socket: what they open, and when they do not."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Site, application
from gateway.auth import MAX_TOKEN
from gateway.core.errors import KeysUnavailable
from gateway.identity.config import Provider
from gateway.identity.jwks_cache import AGAIN, FRESH, REFRESH, SPARING, TIMEOUT
from gateway.identity.tokens import LOOK, Tokens
from gateway.reload import Reloader
from gateway.settings import settings_from
from gateway.world import World
from tests.keys.gate import ADMIN, OWN, Gate, calling, configured, hello, kept_in
from tests.keys.idp import Idp, jwk, private, provider
from tests.keys.test_revocation import Endless, streaming
from tests.serve.house import Script, container, listening, soon

QUERY = "SELECT key_name, key_id, team FROM requests WHERE kind = 'request' ORDER BY time"
KEYS = [{"name": "own", "key": OWN}]


class Clock:
    """Both of the gateway's clocks, which a test can move on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    @property
    def world(self) -> World:
        numbers = iter(range(1 << 30))
        return World(
            time=lambda: time.time() + self.ahead,
            monotonic=lambda: time.monotonic() + self.ahead,
            new_id=lambda: f"{next(numbers):024x}",
        )


@asynccontextmanager
async def standing(
    folder: Path, idp: Idp, clock: Clock | None = None, script: Script = hello, **more: Any
) -> AsyncIterator[Gate]:
    """A gateway with a key of its own and this provider; ``entry`` are fields of the provider's entry."""
    auth = {"keys": KEYS, "oidc": [idp.entry(**more.pop("entry", {}))]}
    reloader = more.pop("reloader", None)
    async with container(script) as behind:
        settings = settings_from(configured(behind.port, auth=auth, **more), {})
        site = Site(folder, loopback=True, store=True, reloader=reloader)
        app = application(settings, site, (clock or Clock()).world)
        async with listening(app) as port, calling(port) as client:
            yield Gate(port, behind, client, folder)


async def eventually(condition: Callable[[], bool]) -> None:
    """Look until it is so, within bounds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


async def status(here: Gate, key: str) -> int:
    return (await here.ask(key)).status_code


async def listing(here: Gate, key: str) -> int:
    """The same of a question that no container is asked for."""
    return (await here.client.get("/v1/models", headers={"x-api-key": key})).status_code


# --- what a token opens ---


async def test_a_token_opens_the_door_as_a_key_does(tmp_path: Path) -> None:
    async with provider() as idp, standing(tmp_path, idp) as here:
        token = idp.token()
        assert await status(here, token) == await status(here, OWN) == 200
        for headers in ({"x-api-key": token}, {"api-key": token}):
            assert (await here.client.get("/v1/models", headers=headers)).status_code == 200
        assert (await here.client.get("/v1/models", auth=("anybody", token))).status_code == 200
        assert idp.asked == ["/realm/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        *(("rs-1", name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        *(("es256", "ES256"), ("es384", "ES384"), ("es512", "ES512"), ("ed", "EdDSA")),
    ],
)
async def test_every_algorithm_is_understood(key: str, algorithm: str, tmp_path: Path) -> None:
    async with provider("rs-1", "es256", "es384", "es512", "ed") as idp, standing(tmp_path, idp) as here:
        assert await status(here, idp.token(key, algorithm)) == 200


async def test_a_token_opens_neither_the_admin_api_nor_anything_without_a_provider(tmp_path: Path) -> None:
    async with provider() as idp, standing(tmp_path, idp) as here:
        assert (await here.admin("GET", key=idp.token())).status_code == 401
        assert (await here.admin("GET")).status_code == 200


async def test_a_long_token_opens_and_a_longer_one_does_not(tmp_path: Path) -> None:
    async with provider() as idp, standing(tmp_path, idp) as here:
        long = idp.token(groups="g" * (MAX_TOKEN // 2))
        longer = idp.token(groups="g" * MAX_TOKEN)
        assert 512 < len(long) <= MAX_TOKEN < len(longer)
        assert (await status(here, long), await status(here, longer)) == (200, 401)


async def test_the_ledger_knows_the_person_and_the_team(tmp_path: Path) -> None:
    entry = {"team_claim": "groups", "teams": {"boss": "b", "llm": "research"}}
    async with (
        provider() as idp,
        standing(tmp_path, idp, entry=entry, teams={"research": {}, "b": {}}) as here,
    ):
        assert await status(here, idp.token(email="ann\x00@\n例え.jp\u202e", groups=["x", "llm"])) == 200
        await here.ask(idp.token(email="bob@x", email_verified=False, sub="bob's", groups=["llm"]))
    with sqlite3.connect(tmp_path / "gateway.db") as database:
        found = database.execute(QUERY).fetchall()
    database.close()
    [(name, id, team), (other, id2, _)] = found
    assert (name, team, other) == ("ann @ 例え.jp", "research", "bob's")
    assert id.startswith("oidc:") and id.endswith(":u-1") and id2 == id.replace("u-1", "bob's")


async def test_each_person_has_limits_of_their_own_and_shares_those_of_the_team(tmp_path: Path) -> None:
    entry = {"limits": {"requests_per_minute": 2}, "team": "all"}
    teams = {"all": {"limits": {"requests_per_minute": 3}}}
    async with provider() as idp, standing(tmp_path, idp, entry=entry, teams=teams) as here:
        answers = [await here.ask(idp.token(jti=str(number))) for number in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
        assert [await status(here, idp.token(sub=sub)) for sub in ("u-2", "u-3")] == [200, 429]
        assert "team all" in (await here.ask(idp.token(sub="u-4"))).json()["error"]["message"]


async def test_budgets_are_counted_by_person(tmp_path: Path) -> None:
    entry = {"budgets": [{"tokens": 20, "per": "day"}]}
    async with provider() as idp, standing(tmp_path, idp, entry=entry) as here:
        fields = {"max_tokens": 15}
        told = (await here.ask(idp.token(), max_tokens=500)).json()["error"]["code"]
        assert told == "insufficient_quota"
        assert (await here.ask(idp.token(sub="u-2", email="bob@x"), **fields)).status_code == 200
        rows = (await here.client.get("/admin/budgets", headers={"x-api-key": ADMIN})).json()["data"]
        assert {row["name"]: row["budgets"][0]["limit"] for row in rows} == {"u-1": 20, "bob@x": 20}


async def test_models_may_come_from_a_claim(tmp_path: Path) -> None:
    async with provider() as idp, standing(tmp_path, idp, entry={"models_claim": "llm.models"}) as here:
        for models, wanted in ((["m"], 200), ("other m*", 200), (["other"], 404), ([], 404), (None, 404)):
            assert (
                await status(here, idp.token(llm={"models": models} if models is not None else {})) == wanted
            )
        for models in (["m", 5], 5, {"m": 1}, ["*m" * 4], ["m"] * 65):
            assert await status(here, idp.token(llm={"models": models})) == 401


async def test_required_claims_are_required(tmp_path: Path) -> None:
    required = {"email_verified": True, "scope": "llm", "groups": ["a", "b"], "realm.roles": "user"}
    good: dict[str, Any] = {
        "email_verified": True,
        "scope": "openid llm",
        "groups": ["b", "c"],
        "realm": {"roles": ["user"]},
    }
    wrong = [{"email_verified": 1}, {"email_verified": "true"}, {"scope": "llmx openid"}, {"groups": ["c"]}]
    wrong += [{"groups": {"b": 1}}, {"realm": {"roles": "users"}}, {"realm": "roles"}]  # type: ignore[dict-item]
    async with provider() as idp, standing(tmp_path, idp, entry={"required": required}) as here:
        assert await status(here, idp.token(**good)) == 200
        for change in [*wrong, *({name: None} for name in good)]:
            assert await status(here, idp.token(**{**good, **change})) == 401, change


# --- time ---


async def test_a_token_ends_with_its_leeway_and_what_it_runs_may_end(tmp_path: Path) -> None:
    clock, endless = Clock(), Endless()
    async with provider() as idp, standing(tmp_path, idp, clock, endless) as here:
        token = idp.token()
        async with streaming(here, token) as stream:
            clock.ahead = 600 + 20
            assert (await here.client.get("/v1/models", headers={"x-api-key": token})).status_code == 200
            clock.ahead = 600 + 31
            assert await status(here, token) == 401
            assert await status(here, idp.token(jti="not seen before")) == 401
            endless.end.set()
            await soon(stream.rest())
            assert "[DONE]" in stream.said and "error" not in stream.said


async def test_the_hot_path_asks_nobody_and_checks_nothing_anew(tmp_path: Path) -> None:
    clock = Clock()
    async with provider() as idp, standing(tmp_path, idp, clock) as here:
        token = idp.token()
        assert await status(here, token) == 200
        before = len(idp.asked)
        idp.away = True
        for _ in range(5):
            assert await status(here, token) == 200
        assert len(idp.asked) == before


async def test_the_tokens_that_were_used_last_are_remembered_and_no_more() -> None:
    async with provider() as idp:
        tokens = Tokens(time.time, time.monotonic, lambda: None, most=3)
        tokens.configure([Provider(**idp.entry())])
        for number in range(3):
            assert await tokens.verify(idp.token(jti=str(number)).encode(), b"%d" % number) is not None
        assert tokens.find(b"0") is not None
        assert await tokens.verify(idp.token(jti="3").encode(), b"3") is not None
        assert [tokens.find(b"%d" % number) is not None for number in range(4)] == [True, False, True, True]
        await tokens.aclose()


# --- keys that change, and a provider that is away ---


async def test_new_keys_are_fetched_when_a_token_names_one(tmp_path: Path) -> None:
    clock = Clock()
    async with provider("rs-1") as idp, standing(tmp_path, idp, clock) as here:
        old = idp.token()
        assert await status(here, old) == 200
        idp.keys = [jwk("es-new")]
        assert await status(here, idp.token("es-new", "ES256")) == 200
        assert await status(here, old) == 401  # its key is gone, though it was believed before


async def test_unknown_keys_cannot_make_the_gateway_ask_often(tmp_path: Path) -> None:
    clock = Clock()
    async with provider() as idp, standing(tmp_path, idp, clock) as here:
        assert await status(here, idp.token()) == 200
        private("rs-other")
        before = len(idp.asked)
        told = [await status(here, idp.token("rs-other", jti=str(number))) for number in range(20)]
        assert set(told) == {401} and len(idp.asked) - before == 2  # one question, two documents
        clock.ahead = SPARING + 1
        await asyncio.gather(
            *(here.ask(idp.token("rs-other", jti=f"later {number}")) for number in range(20))
        )
        assert len(idp.asked) - before == 4


async def test_tokens_of_nobody_we_know_ask_nobody(tmp_path: Path) -> None:
    async with provider() as idp, standing(tmp_path, idp) as here:
        assert await status(here, idp.token()) == 200
        before = len(idp.asked)
        for issuer in (idp.issuer + "/", "https://evil.example", None):
            assert await status(here, idp.token("rs-other", iss=issuer)) == 401
        assert len(idp.asked) == before


async def test_those_who_wait_share_one_question_and_who_leaves_does_not_end_it(tmp_path: Path) -> None:
    async with provider() as idp:
        idp.held = asyncio.Event()
        async with standing(tmp_path, idp) as here:
            loop = asyncio.get_running_loop()
            asking = [loop.create_task(here.ask(idp.token(jti=str(number)))) for number in range(5)]
            await eventually(lambda: bool(idp.asked))
            asking[0].cancel()
            idp.held.set()
            answers = await soon(asyncio.gather(*asking[1:]))
            assert {answer.status_code for answer in answers} == {200}
            assert len(idp.asked) == 2


async def test_while_the_provider_is_away_nobody_can_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with provider() as idp:
        idp.away = True
        async with standing(tmp_path, idp, clock) as here:
            answer = await here.ask(idp.token())
            assert answer.status_code == 503 and answer.headers["retry-after"]
            assert answer.json()["error"]["code"] == "keys_unavailable"
            assert await status(here, OWN) == 200
            _, made = await here.new("ann")
            assert await status(here, made) == 200
            assert await status(here, idp.token(iss="https://other.example")) == 401
            idp.away = False
            clock.ahead = SPARING + 1
            assert await status(here, idp.token()) == 200
    assert "keys of the identity provider http://127.0.0.1" in caplog.text
    assert caplog.text.count("cannot be read") == 1 and "can be read again" in caplog.text


async def test_known_keys_count_for_a_while_and_then_no_more(tmp_path: Path) -> None:
    clock = Clock()
    async with provider() as idp, standing(tmp_path, idp, clock, entry={"keep": 1000}) as here:
        seen = idp.token(exp=int(time.time()) + 9999)
        assert await status(here, seen) == 200
        idp.away = True
        clock.ahead = FRESH + 900
        exp = int(time.time()) + 9999
        assert [await status(here, token) for token in (seen, idp.token(jti="new", exp=exp))] == [200, 200]
        clock.ahead = FRESH + 1001
        assert [await status(here, token) for token in (seen, idp.token(jti="new", exp=exp))] == [503, 503]
        idp.away = False
        clock.ahead += SPARING + 1
        assert await status(here, seen) == 200


async def test_keys_are_asked_for_again_before_they_are_old(tmp_path: Path) -> None:
    clock = Clock()
    async with provider("rs-1", "rs-2") as idp, standing(tmp_path, idp, clock) as here:
        token = idp.token("rs-2")
        assert await status(here, token) == 200
        idp.keys.pop()
        asked = len(idp.asked)
        clock.ahead = REFRESH + 1
        await eventually(lambda: len(idp.asked) == asked + 2)
        for _ in range(200):
            if await listing(here, token) == 401:
                break
            assert len(idp.asked) == asked + 2
        assert (await listing(here, token), await status(here, idp.token())) == (401, 200)


async def test_keys_can_be_kept_for_longer_while_the_provider_is_away() -> None:
    clock = Clock()
    async with provider() as idp:
        tokens = Tokens(clock.world.time, clock.world.monotonic, lambda: None)
        tokens.configure([Provider(**idp.entry(keep=0))])
        token = idp.token(exp=int(time.time()) + 9999).encode()
        assert await tokens.verify(token, b"") is not None
        idp.away, clock.ahead = True, FRESH + 900
        with pytest.raises(KeysUnavailable):
            await tokens.verify(token, b"")
        tokens.configure([Provider(**idp.entry(keep=1000))])
        assert await tokens.verify(token, b"") is not None
        await tokens.aclose()


async def test_keys_that_are_not_kept_count_until_the_next_ones_are_there(tmp_path: Path) -> None:
    clock = Clock()
    async with provider() as idp, standing(tmp_path, idp, clock, entry={"keep": 0}) as here:
        token, asked = idp.token(), len(idp.asked)
        assert await status(here, token) == 200
        idp.held = asyncio.Event()
        clock.ahead = REFRESH + 1
        await eventually(lambda: len(idp.asked) > asked)
        assert await status(here, token) == await status(here, idp.token(jti="new")) == 200
        idp.held.set()
        assert await status(here, token) == 200


def test_a_question_without_an_answer_is_put_again_before_the_keys_are_old() -> None:
    most = LOOK + TIMEOUT  # until it is put, and until it is given up
    assert REFRESH + most + AGAIN + most < FRESH


@pytest.mark.parametrize(
    "documents",
    [
        {"/realm/.well-known/openid-configuration": b'{"issuer": "https://other.example", "jwks_uri": "x"}'},
        {"/realm/.well-known/openid-configuration": b"[" * 100_000},
        {"/realm/.well-known/openid-configuration": b"\xff"},
        {"/realm/.well-known/openid-configuration": {"location": "http://localhost:1/keys"}},
        {"/keys": {"location": "http://127.0.0.1:1/keys"}},
        {"/keys": {"location": "file:///etc/passwd"}},
        {"/keys": b'{"keys": "none"}'},
        {"/keys": b'{"keys": [5, {"kty": "RSA"}, {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "rs-1"}]}'},
        {"/keys": b"[]"},
        {"/keys": b'{"keys": []}' + b" " * (256 << 10)},
    ],
)
async def test_documents_that_cannot_be_used_open_nothing(documents: dict[str, Any], tmp_path: Path) -> None:
    async with provider() as idp:
        idp.answers = documents
        async with standing(tmp_path, idp) as here:
            assert await status(here, idp.token()) == 503
            assert await status(here, OWN) == 200


async def test_keys_may_have_an_address_of_their_own_and_a_redirect_on_their_host(tmp_path: Path) -> None:
    async with provider() as idp:
        idp.answers = {"/old": {"location": "/keys"}}
        async with standing(tmp_path, idp, entry={"jwks_url": f"http://localhost:{idp.port}/old"}) as here:
            assert await status(here, idp.token()) == 200
        assert idp.asked == ["/old", "/keys"]


# --- another configuration ---


class Latest:
    """A configuration that changes; ``adopted`` waits until the gateway goes by what it is now."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.reloader = Reloader(lambda: settings_from(self.data, {}))
        self.data: dict[str, Any] = {}
        self._caplog = caplog

    async def adopted(self, here: Gate, *entries: Any, **more: Any) -> None:
        self.data = configured(here.container.port, auth={"keys": KEYS, "oidc": list(entries)}, **more)
        self._caplog.clear()
        self.reloader.ask()
        await eventually(lambda: "the configuration was reloaded" in self._caplog.text)


async def test_another_configuration_counts_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    latest = Latest(caplog)
    async with provider() as idp, standing(tmp_path, idp, reloader=latest.reloader) as here:
        token = idp.token(email="ann@x")
        assert "x-ratelimit-limit-requests" not in (await here.ask(token)).headers
        asked = len(idp.asked)
        await latest.adopted(here, idp.entry(limits={"requests_per_minute": 7}))
        assert (await here.ask(token)).headers["x-ratelimit-limit-requests"] == "7"
        await latest.adopted(here, idp.entry(required={"email": "bob@x"}))
        assert await status(here, token) == 401
        await latest.adopted(here)
        assert await status(here, token) == 401
        assert len(idp.asked) == asked
        await latest.adopted(here, idp.entry())
        assert await status(here, token) == 200
        assert len(idp.asked) == asked + 2
        await latest.adopted(here, idp.entry(jwks_url=f"http://127.0.0.1:{idp.port}/keys?new"))
        idp.answers["/keys?new"] = b"{}"
        assert await status(here, token) == 503


async def test_whoever_waits_meanwhile_is_met_by_the_new_configuration() -> None:
    async with provider() as idp:
        tokens = Tokens(time.time, time.monotonic, lambda: None)
        for later, opens in (
            ([idp.entry(algorithms=["ES256"])], False),
            ([idp.entry(required={"group": "staff"})], False),
            ([], False),
            ([idp.entry(team="new")], True),
        ):
            tokens.configure([])
            tokens.configure([Provider(**idp.entry())])
            asked, idp.held = len(idp.asked), asyncio.Event()
            waiting = asyncio.get_running_loop().create_task(tokens.verify(idp.token().encode(), b""))
            await eventually(lambda asked=asked: len(idp.asked) > asked)  # type: ignore[misc]
            tokens.configure([Provider(**entry) for entry in later])
            idp.held.set()
            caller = await soon(waiting)
            assert (caller is not None) == opens
            assert caller is None or caller.team == "new"
        await tokens.aclose()


async def test_what_a_token_runs_ends_with_its_provider_and_not_with_its_limits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    latest, endless = Latest(caplog), Endless()
    async with provider() as idp, standing(tmp_path, idp, script=endless, reloader=latest.reloader) as here:
        for entries in ([], [idp.entry(audience="another")]):
            async with streaming(here, idp.token()) as stream, streaming(here, OWN) as other:
                await latest.adopted(here, idp.entry(limits={"concurrent": 9}))
                await latest.adopted(here, *entries)
                await soon(stream.rest())
                assert "key_revoked" in stream.said and stream.cut
                endless.end.set()
                await soon(other.rest())
                assert "[DONE]" in other.said
            endless.end.clear()
            await latest.adopted(here, idp.entry())


async def test_who_is_denied_is_locked_out_at_once_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    latest, endless = Latest(caplog), Endless()
    async with provider() as idp, standing(tmp_path, idp, script=endless, reloader=latest.reloader) as here:
        for denied in ("u-1", "Ann@x"):
            ann, other = idp.token(email="ann@x"), idp.token(sub="u-10", email="dann@x")
            async with streaming(here, ann) as stream, streaming(here, other) as going:
                await latest.adopted(here, idp.entry(denied=denied, limits={"concurrent": 9}))
                await soon(stream.rest())
                assert "key_revoked" in stream.said and stream.cut
                assert await listing(here, idp.token(email="ann@x", jti="new")) == 401
                endless.end.set()
                await soon(going.rest())
                assert "[DONE]" in going.said and "error" not in going.said
            assert [await listing(here, token) for token in (ann, other)] == [401, 200]
            endless.end.clear()
            await latest.adopted(here, idp.entry())


# --- what is told, and what is not ---


async def test_nothing_of_a_token_is_shown_or_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary, seen = "canary-in-a-claim", []
    async with provider() as idp, standing(tmp_path, idp, entry={"required": {"x": "y"}}) as here:
        good = idp.token(x="y", secret=canary)
        tokens = [
            good,
            idp.token(x=canary),
            idp.token(x="y", aud=canary),
            idp.token(x="y", exp=1, sub=canary),
            idp.token(x="y", iss=canary),
            idp.token("rs-other", x="y", secret=canary),
            good[:-8] + "canaryAA",
        ]
        statuses = []
        for token in tokens:
            answer = await here.ask(token)
            statuses.append(answer.status_code)
            seen.append(answer.text + str(answer.headers))
        for path in ("/admin/keys", "/admin/usage/rows", "/admin/usage", "/metrics"):
            answer = await here.client.get(path, headers={"x-api-key": OWN if path == "/metrics" else ADMIN})
            seen.append(answer.text)
        seen += [repr(each) for each in gc.get_objects() if str(type(each).__module__).startswith("gateway.")]
    assert statuses == [200, *[401] * 6]
    seen += [caplog.text, kept_in(tmp_path).decode("latin-1")]
    assert "was refused: its audience is another" in caplog.text
    parts = {part for token in tokens for part in (*token.split("."), token)} - {tokens[0].split(".")[0]}
    assert [part for part in (canary, *parts) for text in seen if part in text] == []


async def test_all_that_is_refused_is_told_the_same(tmp_path: Path) -> None:
    async with provider() as idp, standing(tmp_path, idp) as here:
        tokens = [
            "sk-no",
            idp.token(exp=1),
            idp.token("rs-other"),
            idp.token(aud="x"),
            "eyJ.eyJ.x",
            "e" * 9000,
        ]
        answers = [await here.ask(token) for token in tokens]
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.text for answer in answers}) == 1


async def test_the_log_says_why_once_in_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    async with provider() as idp, standing(tmp_path, idp, clock) as here:
        for number in range(5):
            await here.ask(idp.token(aud="x", jti=str(number)))
            await here.ask(idp.token(exp=1, jti=str(number)))
            await here.ask(idp.token(iss=f"http://made.up/{number}"))
        assert caplog.text.count("its audience is another") == 1
        assert "expired" not in caplog.text and "made.up" not in caplog.text
        clock.ahead = 61
        await here.ask(idp.token(aud="x"))
        assert caplog.text.count("its audience is another") == 2
