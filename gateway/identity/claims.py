"""Who holds a token, by its claims and the entry of its provider. Pure.

Rule: what is required and is not there, or is not what it should be, lets nobody in. Texts of a token become
ids, names and teams only where people can read them. Times are seconds since 1970. Whether the claims are
true is for who checked the signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.auth import Caller
from gateway.identity.config import Provider, Value
from gateway.identity.token import Refused
from gateway.keys.terms import reserved

MAX_SUBJECT = 255  # characters (OpenID Connect Core 2)
MAX_NAME = 128  # characters, as of a key
MAX_MODELS = 64  # names in a claim
MAX_STARS = 3  # in one of them: looking for a model takes the longer the more there are
MAX_TIME = 253402300800  # the year 10000
EXPIRED = "it has expired"
MISSING = object()


def caller_from(provider: Provider, claims: Mapping[str, Any], now: float) -> Caller:
    """The caller that these claims tell of, at ``now`` in seconds since 1970. Raises ``Refused``."""
    if claims.get("iss") != provider.issuer:
        raise Refused("its issuer is another")
    if not set(_texts(claims.get("aud"), "its audience is missing")) & set(provider.audience):
        raise Refused("its audience is another")
    expires = _expires(provider, claims, now)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _readable(subject, MAX_SUBJECT):
        raise Refused("it has no sub that could be an id")
    for name, values in provider.required.items():
        if not any(_same(mine, each) for mine in _values(name, claims) for each in values):
            raise Refused(f"its claim {name} is not as required")
    caller = Caller(
        _name(provider, claims, subject),
        _models(provider, claims),
        id=provider.id_prefix + subject,
        team=_team(provider, claims),
        limits=provider.limits,
        budgets=provider.budgets,
        priority=provider.priority,
        expires=expires,
        credential=provider.fingerprint,
    )
    if denied(provider, caller):
        raise Refused("its holder is in auth.oidc.denied")
    return caller


def denied(provider: Provider, caller: Caller) -> bool:
    """Whether this person of the provider is one of those who are not let in."""
    mine = caller.id.removeprefix(provider.id_prefix), caller.name.casefold()
    return any(each == mine[0] or each.casefold() == mine[1] for each in provider.denied)


def claim(name: str, claims: Mapping[str, Any]) -> Any:
    """The claim of this name, else the one at this path of names with dots between, else ``MISSING``."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for step in name.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return MISSING
        found = found[step]
    return found


def _expires(provider: Provider, claims: Mapping[str, Any], now: float) -> float:
    """When the token ends, the leeway included."""
    leeway = provider.leeway
    ends = [_time("exp", claims)]
    if "nbf" in claims and _time("nbf", claims) - leeway > now:
        raise Refused("it does not count yet")
    if "iat" in claims and _time("iat", claims) - leeway > now:
        raise Refused("it was made in the future: do the clocks agree?")
    if provider.max_age is not None:
        ends.append(_time("iat", claims) + provider.max_age)
    expires = min(ends) + leeway
    if expires <= now:
        raise Refused(EXPIRED)
    return expires


def _time(name: str, claims: Mapping[str, Any]) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_TIME:
        raise Refused(f"its {name} is missing or no time")
    return float(value)


def _texts(value: Any, why: str) -> list[str]:
    """A text, or a list of texts, as a list."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise Refused(why)
    return texts


def _values(name: str, claims: Mapping[str, Any]) -> list[Any]:
    """The values of a claim; a scope is words with spaces between (RFC 8693 4.2)."""
    value = claim(name, claims)
    if value is MISSING:
        return []
    if name in ("scope", "scp") and isinstance(value, str):
        return value.split(" ")
    return value if isinstance(value, list) else [value]


def _same(mine: Any, wanted: Value) -> bool:
    return type(mine) is type(wanted) and mine == wanted  # in Python 1 and true are equal


def _team(provider: Provider, claims: Mapping[str, Any]) -> str | None:
    if provider.team_claim is None:
        return provider.team
    value = claim(provider.team_claim, claims)
    found = [] if value is MISSING else _texts(value, "its teams are no texts")
    if provider.teams:
        found = [team for group, team in provider.teams.items() if group in found]
    elif len(found) > 1:
        raise Refused("it has several teams: auth.oidc.teams says which counts")
    team = found[0] if found else provider.team
    if team is None:
        raise Refused("it is of no team")
    if not _readable(team, MAX_NAME):
        raise Refused("its team cannot be read")
    return team


def _models(provider: Provider, claims: Mapping[str, Any]) -> tuple[str, ...]:
    if provider.models_claim is None:
        return provider.models
    value = claim(provider.models_claim, claims)
    if isinstance(value, str):
        value = value.split()
    names = [] if value is MISSING else _texts(value, "its models are no texts")
    if len(names) > MAX_MODELS or any(name.count("*") > MAX_STARS for name in names):
        raise Refused("its models are too many")
    return tuple(names)


def _name(provider: Provider, claims: Mapping[str, Any], subject: str) -> str:
    """What is shown for the holder; an id where it would look like that of another."""
    if provider.name is not None:
        name = claim(provider.name, claims)
    else:
        name = None if claims.get("email_verified") is False else claims.get("email")
    shown = _cleaned(name) if isinstance(name, str) else ""
    shown = shown or subject[:MAX_NAME]
    return provider.id_prefix + subject if reserved(shown) else shown


def _cleaned(name: str) -> str:
    plain = "".join(each if each.isprintable() else " " for each in name[:MAX_SUBJECT])
    return " ".join(plain.split())[:MAX_NAME]


def _readable(text: str, most: int) -> bool:
    return 0 < len(text) <= most and text.isprintable() and text == text.strip()
