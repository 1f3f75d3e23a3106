"""Tokens that somebody made up, turned or found: none of them opens anything."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, hmac, serialization
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.identity.claims import caller_from
from gateway.identity.config import Provider
from gateway.identity.keyset import MAX_KEYS, check, read
from gateway.identity.token import Refused, parse
from gateway.identity.tokens import Tokens
from tests.keys.gate import calling, configured, hello, serving
from tests.keys.idp import AUDIENCE, Idp, encoded, jwk, private, provider, signed
from tests.keys.test_matrix import bearer, call
from tests.serve.house import container

HEADER = {"alg": "RS256", "kid": "rs-1", "typ": "JWT"}
NOW = int(time.time())


def hmac_signed(idp: Idp, algorithm: str, secret: bytes) -> str:
    """As who takes the provider's public key for a shared secret."""
    parts = f"{encoded({**HEADER, 'alg': algorithm})}.{encoded(idp.claims())}"
    made = hmac.HMAC(secret, {"HS256": hashes.SHA256(), "HS512": hashes.SHA512()}[algorithm])
    made.update(parts.encode())
    return f"{parts}.{encoded(made.finalize())}"


def public_forms(name: str) -> list[bytes]:
    """What of a public key could be taken for a secret."""
    key = private(name).public_key()
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    plain = serialization.PublicFormat.SubjectPublicKeyInfo
    return [key.public_bytes(pem, plain), key.public_bytes(der, plain), json.dumps(jwk(name)).encode(), b""]


def forged(idp: Idp) -> dict[str, str]:
    """Tokens with something wrong about how they are signed."""
    good = idp.token()
    head, body, signature = good.split(".")
    claims = idp.claims()
    made = {"no signature": f"{head}.{body}.", "two parts": f"{head}.{body}", "four parts": good + ".x"}
    for alg in ("none", "None", "NONE", "nOnE", "", "HS256", "RS257", "RS256 ", "rs256", None, 5, ["RS256"]):
        told = encoded({**HEADER, "alg": alg})
        made[f"alg {alg}"] = f"{told}.{body}.{signature}"
        made[f"alg {alg}, without a signature"] = f"{told}.{body}."
        made[f"alg {alg}, signed"] = signed({**HEADER, "alg": alg}, claims, "rs-1")
    for algorithm in ("HS256", "HS512"):
        for number, secret in enumerate(public_forms("rs-1")):
            made[f"{algorithm} {number}"] = hmac_signed(idp, algorithm, secret)
    thief = jwk("rs-thief")
    for more in (
        {"jwk": thief},
        {"jku": "https://thief.example/keys"},
        {"x5u": "https://thief.example/cert"},
        {"x5c": ["MIIB"]},
    ):
        made[f"a key in the header: {more}"] = signed({**HEADER, **more}, claims, "rs-thief")
        made[f"and of its name: {more}"] = signed({**HEADER, **more, "kid": "rs-thief"}, claims, "rs-thief")
    for name in (
        "../rs-1",
        "/dev/null",
        "rs-1\x00",
        "rs-1' OR 1=1",
        "file:///etc/passwd",
        "x" * 300,
        "",
        5,
        {},
    ):
        made[f"kid {name}"[:40]] = signed({**HEADER, "kid": name}, claims, "rs-1")
    for kind in (
        {"alg": "ES256", "kid": "rs-1"},
        {"alg": "ES256", "kid": "es-1"},
        {"alg": "RS256", "kid": "es-1"},
    ):
        made[f"a key of another kind: {kind}"] = signed(kind, claims, "rs-1")
    for more in (
        {"crit": ["x"], "x": 1},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"typ": "logout+jwt"},
    ):
        made[f"header {more}"] = signed({**HEADER, **more}, claims, "rs-1")
    made["padding"] = good + "="
    made["signed by nobody we know"] = signed(HEADER, claims, "rs-thief")
    made["another's claims"] = f"{head}.{encoded({**claims, 'sub': 'boss'})}.{signature}"
    made["five parts"] = f"{head}.{body}.{body}.{body}.{signature}"
    return made


def unfit(idp: Idp) -> dict[str, Any]:
    """Payloads that are no claims of a good token, for an honest signature."""
    claims = idp.claims()
    text = json.dumps(claims)
    made: dict[str, Any] = {
        "no JSON": b"hello",
        "a list": [claims],
        "a text": json.dumps(text),
        "null": None,
        "two objects": (text + text).encode(),
        "no UTF-8": text.encode()[:-1] + b', "x": "\xff"}',
        "UTF-16": text.encode("utf-16"),
        "deep": b'{"a":' * 500 + b"1" + b"}" * 500,
        "NaN": (text[:-1] + ', "x": NaN}').encode(),
        "twice the same name": (text[:-1] + ', "sub": "boss"}').encode(),
        "twice the same name inside": (text[:-1] + ', "x": {"a": 1, "a": 2}}').encode(),
        "a number without end": (text[:-1] + ', "exp": ' + "9" * 5000 + "}").encode(),
    }
    times: tuple[Any, ...] = (None, NOW - 31, -1, "soon", str(NOW + 600), True, [NOW + 600], 1e300, {})
    for value in times:
        made[f"exp {value}"] = {**claims, "exp": value}
    for name in ("nbf", "iat"):
        for value in (NOW + 700, "now", None, True, -5, {}):
            made[f"{name} {value}"] = {**claims, name: value}
    for value in (
        "other",
        AUDIENCE.upper(),
        AUDIENCE + " ",
        [],
        ["other"],
        [AUDIENCE, 5],
        {AUDIENCE: 1},
        None,
    ):
        made[f"aud {value}"] = {**claims, "aud": value}
    for value in ("", " ", "a\nb", "a\x00", "\u202eann", " ann", "x" * 256, 5, None, ["u"], {}):
        made[f"sub {value!r}"[:40]] = {**claims, "sub": value}
    made["half a character in sub"] = text.replace('"u-1"', '"\\ud800"').encode()
    for name in ("exp", "aud", "sub", "iss"):
        made[f"without {name}"] = {key: value for key, value in claims.items() if key != name}
    return made


async def test_nothing_that_is_wrong_with_a_token_is_overlooked(tmp_path: Path) -> None:
    async with provider("rs-1", "es-1") as idp, container(hello) as behind:
        auth = {"keys": [], "oidc": [idp.entry()]}
        async with serving(configured(behind.port, auth=auth), tmp_path) as port, calling(port) as client:

            async def status(token: str | bytes) -> int:
                return (await call(port, "GET", "/v1/models", bearer(token), None)).status

            good = [
                idp.token(),
                idp.token("es-1", "ES256"),
                signed(HEADER, idp.claims(aud=["x", AUDIENCE]), "rs-1"),
            ]
            assert [await status(token) for token in good] == [200, 200, 200]
            made = forged(idp)
            admitted = [name for name, token in made.items() if await status(token) != 401]
            assert admitted == []
            tokens = {name: signed(HEADER, payload, "rs-1") for name, payload in unfit(idp).items()}
            assert [name for name, token in tokens.items() if await status(token) != 401] == []
            assert (await client.get("/health")).status_code == 200
            assert set(idp.asked) == {"/realm/.well-known/openid-configuration", "/keys"}


async def test_a_provider_takes_only_the_algorithms_it_names(tmp_path: Path) -> None:
    async with provider("rs-1", "es-1") as idp, container(hello) as behind:
        auth = {"keys": [], "oidc": [idp.entry(algorithms=["ES256"])]}
        async with serving(configured(behind.port, auth=auth), tmp_path) as port:
            tokens = (idp.token("es-1", "ES256"), idp.token())
            answers = [await call(port, "GET", "/v1/models", bearer(token), None) for token in tokens]
            assert [answer.status for answer in answers] == [200, 401]


async def test_no_letter_of_a_token_may_be_another(caplog: pytest.LogCaptureFixture) -> None:
    async with provider("rs-1", "es-1") as idp:
        tokens = Tokens(time.time, time.monotonic, lambda: None)
        tokens.configure([Provider(**idp.entry())])
        for good in (idp.token().encode(), idp.token("es-1", "ES256").encode()):
            assert await tokens.verify(good, b"good") is not None
            for at in range(len(good)):
                for other in (b"A", b"-", b"", b"b" + good[at : at + 1], bytes([good[at] ^ 1])):
                    turned = good[:at] + other + good[at + 1 :]
                    assert turned == good or await tokens.verify(turned, b"turned") is None, at
        await tokens.aclose()


# --- without sockets ---

ENTRY = Provider(issuer="https://login.example.com", audience=AUDIENCE)
CLAIMS: Mapping[str, Any] = {"iss": ENTRY.issuer, "aud": AUDIENCE, "sub": "u", "exp": NOW + 600}
GOOD = jwt.encode(dict(CLAIMS), private("es-1"), algorithm="ES256", headers={"kid": "es-1"}).encode()
KEYS = read(json.dumps({"keys": [jwk("es-1"), jwk("rs-1")]}).encode())


def believed(secret: bytes) -> bool:
    try:
        token = parse(secret)
        [algorithm] = [each for each in ENTRY.algorithms if each == token.algorithm] or [None]
        key = KEYS.find(token.key, algorithm) if algorithm is not None else None
        if key is None or algorithm is None:
            return False
        check(secret, key, algorithm)
        caller_from(ENTRY, token.claims, NOW)
    except Refused:
        return False
    return True


@given(st.data())
def test_no_change_of_a_token_is_believed(data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(begin, len(GOOD)))
    letters = st.binary(max_size=40) | st.text("abcABC012-_.=", max_size=40).map(str.encode)
    turned = GOOD[:begin] + data.draw(letters) + GOOD[end:]
    assume(turned != GOOD)
    assert believed(GOOD)
    assert not believed(turned)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "email"]), json_values))
def test_claims_of_any_kind_are_refused_or_make_a_caller_that_can_be_shown(changes: dict[str, Any]) -> None:
    entry = ENTRY.model_copy(update={"name": "email", "max_age": 600})
    claims = {**CLAIMS, "iat": NOW, **changes}
    try:
        caller = caller_from(entry, claims, NOW)
    except Refused:
        return
    assert claims["iss"] == ENTRY.issuer and caller.id == ENTRY.id_prefix + claims["sub"]
    assert caller.id.isprintable() and caller.name.isprintable() and 0 < len(caller.name) <= 128
    assert caller.expires is not None and NOW < caller.expires <= NOW + 630
    json.dumps([caller.id, caller.name]).encode()


@pytest.mark.parametrize("name", ["config:ci", "key_0123", "oidc:x", "console", " console\n", "-"])
def test_nobody_can_be_shown_as_the_id_of_another_or_as_who_has_no_key(name: str) -> None:
    caller = caller_from(ENTRY, {**CLAIMS, "email": name}, NOW)
    assert caller.name == caller.id == f"{ENTRY.id_prefix}u"


def test_a_sub_may_be_console_and_is_then_shown_as_an_id() -> None:
    assert caller_from(ENTRY, {**CLAIMS, "sub": "console"}, NOW).name == f"{ENTRY.id_prefix}console"


def test_a_token_is_one_text_and_no_other() -> None:
    head, body, signature = GOOD.split(b".")
    for turned in (
        GOOD + b"\n",
        b" " + GOOD,
        GOOD + b"=",
        b".".join([head, body[:20] + b"\n" + body[20:], signature]),
        b".".join([head, body.replace(b"-", b"+"), signature.replace(b"_", b"/") + b"+"]),
    ):
        assert not believed(turned)


def test_ids_of_two_providers_differ() -> None:
    other = ENTRY.model_copy(update={"issuer": "https://login.example.com/"})
    assert ENTRY.id_prefix != other.id_prefix
    foreign = caller_from(other, {**CLAIMS, "iss": other.issuer}, NOW)
    assert foreign.id != caller_from(ENTRY, CLAIMS, NOW).id


@pytest.mark.parametrize("denied", ["u", "Ann@X.example", "ann@x.EXAMPLE"])
def test_who_is_denied_by_sub_or_by_name_is_refused_and_nobody_else(denied: str) -> None:
    entry = ENTRY.model_copy(update={"denied": ("somebody", denied)})
    with pytest.raises(Refused, match=r"auth\.oidc\.denied"):
        caller_from(entry, {**CLAIMS, "email": "ann@x.example"}, NOW)
    for sub in ("U", "u-2", "uu"):
        caller_from(entry, {**CLAIMS, "sub": sub, "email": "bob@x.example"}, NOW)


# --- keys of a provider ---


def _number(value: int) -> str:
    """As a JWK has it (RFC 7518 2)."""
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def test_only_keys_of_use_count_against_the_most_there_may_be() -> None:
    junk = [{"kty": "oct", "k": "c2VjcmV0", "kid": f"x{number}"} for number in range(MAX_KEYS)]
    assert read(json.dumps({"keys": [*junk, jwk("ed")]}).encode()).find("ed", "EdDSA") is not None
    many = [jwk("ed", kid=f"ed-{number}") for number in range(MAX_KEYS + 1)]
    assert len(read(json.dumps({"keys": many}).encode()).keys) == MAX_KEYS


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"},
        jwk("rs-1", use="enc"),
        jwk("rs-1", key_ops=["encrypt"]),
        jwk("rs-1", alg="HS256"),
        jwk("rs-1", alg="RSA-OAEP"),
        jwk("es-1", alg="RS256"),
        jwk("es-1", crv="P-384"),
        jwk("rs-1", n="AQAB"),
        jwk("rs-1", n=5),
        jwk("rs-1", e=_number(2**33 + 1)),
        jwk("rs-1", n=_number(2**8192 + 1)),
        jwk("short"),
        {**jwk("rs-1"), "d": "AQAB"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": ["RSA"]},
        {"kty": "EC", "crv": ["P-256"]},
        {},
    ],
)
def test_what_is_no_public_key_for_signatures_is_left_out(entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no public key of use"):
        read(json.dumps({"keys": [entry]}).encode())
    assert len(read(json.dumps({"keys": [entry, jwk("ed")]}).encode()).keys) == 1


def test_a_key_is_found_by_its_name_and_kind_and_serves_one_algorithm_if_it_says_so() -> None:
    listed = [
        jwk("rs-1", alg="RS256"),
        jwk("es-1", kid="rs-1"),
        jwk("rs-2", kid="rs-1"),
        {**jwk("ed"), "kid": None},
    ]
    keys = read(json.dumps({"keys": listed}).encode())
    assert keys.find("rs-1", "RS256") is not None and keys.find("rs-1", "ES256") is not None
    assert keys.find("rs-1", "RS512") is None and keys.find("rs-1", "PS256") is None
    assert keys.find("rs-2", "RS256") is None and keys.find("ed", "EdDSA") is None
    assert keys.find(None, "EdDSA") is not None and keys.find(None, "RS256") is not None
    several = read(json.dumps({"keys": [jwk("rs-1"), jwk("rs-2")]}).encode())
    assert several.find(None, "RS256") is None
