"""What a key must be like, in the configuration and in the store, and what is said of one that is not.

Rule: pure, and below the settings, which take from here what they share with the store. No secret and no
value that was sent is repeated. Knows no key, and nothing of where keys are kept.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ValidationError

from gateway.complaints import nearest
from gateway.core.errors import BadRequest, printable
from gateway.core.wire import bad_request

YEARS = range(1970, 9999)  # that a key can end in: those before and after are no time everywhere
FAR = f"must be within the years {YEARS[0]} to {YEARS[-1]}"
RESERVED = ("config:", "key_", "oidc:")  # ids begin so
KEYLESS = ("-", "console")  # how those are called who come without a key
NOT_FREE = f"must not be {' or '.join(KEYLESS)}, the names of those who come without a key"
ENDS = "must be as in 90d, 2027-01-31 or 2027-01-31T12:00Z"
SPAN = re.compile(r"([0-9]{1,15})([mhdw])")
SPANS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
MOST_SHOWN = 64  # characters of a name that was sent
SAID = {
    "bool": "must be true or false",
    "datetime": ENDS,
    "finite": "must be a finite number",
    "float": "must be a number",
    "int": "must be a whole number",
    "model": "must be an object",
    "string": "must be text",
    "timezone": ENDS,
    "tuple": "must be a list",
}
"""What is wrong, by how pydantic's name for it begins."""


def _time(value: Any) -> Any:
    """A number could be seconds or milliseconds."""
    if isinstance(value, int | float):
        raise ValueError("must be a time with its zone, as in 2027-01-31T12:00:00Z")
    return value


def _expiry(value: datetime) -> datetime:
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise ValueError(FAR) from None
    if moment.year not in YEARS:
        raise ValueError(FAR)
    return moment


Expiry: TypeAlias = Annotated[AwareDatetime, BeforeValidator(_time), AfterValidator(_expiry)]
"""When a key ends, in UTC."""


def ending(given: Any, now: float) -> datetime:
    """When a key ends, as people write it: 2027-01-31, 2027-01-31T12:00Z, or 90d, counted from ``now``.

    By default in UTC; m, h, d and w are minutes, hours, days and weeks; ``now`` is in seconds since 1970.
    Raises ``ValueError``, which says how it must be.
    """
    if not isinstance(given, str):
        raise ValueError(ENDS)
    try:
        if match := SPAN.fullmatch(given):
            return datetime.fromtimestamp(int(now), UTC) + timedelta(**{SPANS[match[2]]: int(match[1])})
        moment = datetime.fromisoformat(given)
    except OverflowError:
        raise ValueError(FAR) from None
    except ValueError:
        raise ValueError(ENDS) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def readable(name: str) -> str:
    """A name that was sent, fit for a message."""
    return printable(name, MOST_SHOWN)


def reserved(name: str) -> bool:
    """Whether it looks like an id, or is that of those who come without a key."""
    return name in KEYLESS or name.startswith(RESERVED)


@dataclass(slots=True, frozen=True)
class Wrong:
    """A field that cannot be as it was given, and why."""

    field: str
    why: str


@dataclass(slots=True, frozen=True)
class House:
    """What keys of the store have beside them: names of the configuration's keys, its teams, and the time.

    ``now`` is in seconds since 1970. Where no teams are written, a team is a mere label.
    """

    names: Collection[str]
    teams: Mapping[str, Any]
    now: float

    def refuses(self, fields: Mapping[str, Any]) -> Wrong | None:
        """What is wrong with these fields of a grant as new ones."""
        name, team, expires = (fields.get(field) for field in ("name", "team", "expires"))
        if name is not None and name.startswith(RESERVED):
            taken = f"{', '.join(RESERVED[:-1])} or {RESERVED[-1]}"
            return Wrong("name", f"must not begin with {taken}, as ids do")
        if name in KEYLESS:
            return Wrong("name", NOT_FREE)
        if name is not None and name in self.names:
            return Wrong("name", "a key of the configuration has this name")
        if team is not None and self.teams and team not in self.teams:
            near = nearest(team, self.teams)
            return Wrong("team", f"there is no team {team} in the configuration{near}")
        if expires is not None and expires.timestamp() <= self.now:
            return Wrong("expires", "this time has passed; to end a key now, disable or revoke it")
        return None


def refuse_twins(keys: Iterable[tuple[str, bytes | None]]) -> None:
    """Raises ``ValueError`` if two of these, each a name and a digest, share one, or a name is not free."""
    owners: dict[bytes, str] = {}
    names: set[str] = set()
    for name, digest in keys:
        if name in KEYLESS:
            raise ValueError(f"a key's name {NOT_FREE}")
        if name in names:  # what belongs to a key is told apart by its name
            raise ValueError(f"two keys have the name {name}; each needs its own")
        names.add(name)
        if digest is not None and (owner := owners.setdefault(digest, name)) != name:
            raise ValueError(f"{owner} and {name} are the same key; each needs its own")


def refusal(error: ValidationError, fields: Collection[str]) -> BadRequest:
    """The first complaint about a key with these ``fields``, in words of JSON."""
    first = error.errors(include_url=False, include_input=False)[0]
    told, kind = bad_request(error), first["type"]
    if kind == "missing":
        return told
    if kind == "extra_forbidden":
        why = "is not known here."
        if len(first["loc"]) == 1:
            why = f"is no field of a key{nearest(str(first['loc'][0]), sorted(fields))}"
        return BadRequest(f"{told.param or 'body'}: {why}", param=told.param, code="unsupported_parameter")
    words = _words(kind, first.get("ctx", {})) or str(first["msg"]).removeprefix("Value error, ")
    return BadRequest(f"{told.param}: {words}.", param=told.param, code="invalid_value")


def _words(kind: str, given: Mapping[str, Any]) -> str | None:
    match kind:
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {given['max_length']} characters"
        case "greater_than_equal":
            return f"must be {given['ge']:.15g} or more"
        case "greater_than":
            return f"must be more than {given['gt']:.15g}"
        case "less_than_equal":
            return f"must be {given['le']:.15g} or less"
        case "literal_error":
            return f"must be {given['expected']}"
    return SAID.get(kind.partition("_")[0])
