"""``keys``: made, listed, changed, revoked and given a new secret.

Rule: a key is shown once, on standard output and alone there, so that ``$(...)`` takes it. Where there is a
configuration its store keeps it, as a SHA-256; where there is none, the line for one is printed instead.
Needs no gateway that runs: one that does hears of it within a moment.
"""

from __future__ import annotations

import hashlib
import json as jsonlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from gateway.allowances import Limits
from gateway.cli.output import OutputLost
from gateway.cli.show import CommandError, as_json
from gateway.cli.sources import Source
from gateway.cli.tables import Look, table
from gateway.keys import push
from gateway.keys.key import (
    Grant,
    Key,
    KeyExists,
    NoSuchKey,
    SpoiltKey,
    called,
    counted,
    new_secret,
    written,
)
from gateway.keys.key_store import KeyStore, StoreAway
from gateway.keys.terms import House, ending, refusal
from gateway.store.engine import shown

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")  # what YAML takes for a word; `no` and `on` are seen to below
WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
BUDGET = re.compile(r"(dollars|tokens|gpu_seconds)=([0-9.]+)(?:/(day|week|month|total))?")
DIGITS = 15  # of a number
NONE = "none"  # what an option says to take a bound away

Fields = Mapping[str, Any]


def line(name: str, *, json: bool) -> None:
    """Print a key for this name, and the line that belongs under ``auth.keys``."""
    _named(name)
    key = new_secret()
    digest = hashlib.sha256(key.encode()).hexdigest()
    if json:
        as_json({"name": name, "key": key, "sha256": digest})
        return
    word = PLAIN.fullmatch(name) and name.lower() not in WORDS
    written = name if word else jsonlib.dumps(name, ensure_ascii=False)
    _print_secret(
        key,
        "This key is shown only now. Under auth.keys of the configuration it is this line:\n"
        f'  - {{name: {written}, sha256: "{digest}"}}\n'
        "Without such a line the gateway takes the key from GATEWAY_API_KEY.",
    )


def create(source: Source, fields: Fields, *, json: bool) -> None:
    """Make a key in the configuration's store, and print it."""
    _named(fields["name"])
    _refuse(source, fields)
    secret = new_secret()
    with _key_store(source) as key_store:
        key = key_store.add(Grant.model_validate(fields), secret)
        try:
            _shown_once(source, key, secret, json=json)
        except OutputLost as lost:
            key_store.revoke(key.id)
            raise CommandError(f"{lost}, so nobody saw the key {key.grant.name}: it is revoked") from None


def rotate(source: Source, name: str, *, json: bool) -> None:
    """Give a key a new secret, and print that."""
    secret = new_secret()
    with _key_store(source) as key_store:
        key = key_store.rotate(name, secret)
    try:
        _shown_once(source, key, secret, json=json)
    except OutputLost as lost:
        end = f"nobody saw the new secret of {key.grant.name}, and the old one has ended: rotate it again"
        raise CommandError(f"{lost}, so {end}") from None


def update(source: Source, name: str, fields: Fields, *, json: bool) -> None:
    """Change what was given of a key's grant. Limits are changed one by one, budgets all together."""
    if not fields:
        raise CommandError("nothing to change was given; `keys update --help` lists what can be")
    _refuse(source, fields)
    with _key_store(source) as key_store:
        key = key_store.change(name, fields)
    _one(key.shown(time.time()), json=json)


def revoke(source: Source, name: str, *, json: bool) -> None:
    """End a key for good."""
    with _key_store(source) as key_store:
        key = key_store.revoke(name)
    _one(key.shown(time.time()), json=json)


def one(source: Source, name: str, *, json: bool) -> None:
    """Print one key, of the store or of the configuration."""
    now = time.time()
    with _key_store(source) as key_store:
        try:
            row = key_store.find(name).shown(now)
        except NoSuchKey:
            own = called(counted(source.settings().auth), name)
            if own is None:
                raise
            row = written(own, now)
    _one(row, json=json)


@dataclass(slots=True, frozen=True)
class Wanted:
    """Which keys to print: those that were revoked too, of one team, with one tag."""

    revoked: bool = False
    team: str | None = None
    tag: str | None = None

    def has(self, row: Fields) -> bool:
        if self.team is not None and row["team"] != self.team:
            return False
        return self.tag is None or self.tag in row["tags"]


def every(source: Source, wanted: Wanted, *, json: bool) -> None:
    """Print the keys that are wanted, those of the configuration first."""
    now = time.time()
    with _key_store(source) as key_store:
        rows = [key.shown(now) for key in key_store.every() if wanted.revoked or key.revoked is None]
    own = [written(key, now) for key in counted(source.settings().auth)]
    rows = [row for row in (*own, *rows) if wanted.has(row)]
    if json:
        as_json(rows)
        return
    head = ("NAME", "STATE", "TEAM", "MODELS", "LIMITS", "BUDGETS", "EXPIRES", "ID")
    look = Look(spare=("ID", "EXPIRES", "BUDGETS", "LIMITS"), empty="no keys")
    table(head, [_cells(row) for row in rows], look)


def fields_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a grant from options of the command line; those that were not given are left out.

    Other options may be among them. Raises ``CommandError``.
    """
    known = {name: value for name, value in given.items() if value is not None}
    fields = {name: value for name, value in known.items() if name in Grant.model_fields}
    limits = {name: _bound(name, value) for name, value in known.items() if name in Limits.model_fields}
    if limits:
        fields["limits"] = limits
    for name in ("team", "owner", "expires"):
        if fields.get(name) == NONE:
            fields[name] = None
    if fields.get("expires") is not None:
        try:
            fields["expires"] = ending(fields["expires"], time.time())
        except ValueError as error:
            raise CommandError(f"--expires: {error}") from None
    if "budgets" in fields:
        fields["budgets"] = [] if fields["budgets"] == [NONE] else list(map(_budget, fields["budgets"]))
    if fields.get("tags") == [NONE]:
        fields["tags"] = []
    return fields


def _bound(name: str, given: str) -> int | None:
    if given == NONE:
        return None
    if not given.isdecimal() or len(given) > DIGITS:
        option = f"--{name.replace('_', '-')}"
        raise CommandError(f"{option} must be a whole number of at most {DIGITS} digits, or none")
    return int(given)


def _budget(given: str) -> dict[str, Any]:
    match = BUDGET.fullmatch(given)
    if match is None:
        examples = "dollars=20/month, tokens=1000000/day or gpu_seconds=3600/week"
        raise CommandError(f"--budget must be as in {examples}")
    unit, amount, period = match.groups()
    try:
        number = int(amount) if unit == "tokens" else float(amount)
    except ValueError:
        raise CommandError(f"--budget: {amount} is no number") from None
    return {unit: number, "per": period or "month"}


def _named(name: str) -> None:
    if not name.strip() or not name.isprintable():
        raise CommandError("--name must be a name that can be read")


def _refuse(source: Source, fields: Fields) -> None:
    settings = source.settings()
    house = House([key.name for key in counted(settings.auth)], settings.teams, time.time())
    if wrong := house.refuses(fields):
        raise CommandError(f"--{wrong.field}: {wrong.why}")


@contextmanager
def _key_store(source: Source) -> Iterator[KeyStore]:
    """The store's. Raises ``CommandError`` for what goes wrong inside."""
    settings = source.settings()
    store, redis = settings.store, settings.redis.url
    tell = partial(push.tell, redis) if redis is not None else None
    try:
        with closing(KeyStore(store.url, source.folder, tell)) as key_store:
            yield key_store
    except NoSuchKey as error:
        own = called(counted(settings.auth), error.name)
        why = str(error) if own is None else f"{own.name} is a key of the configuration: it is changed there"
        raise CommandError(why) from None
    except (SpoiltKey, KeyExists) as error:
        raise CommandError(str(error)) from None
    except ValidationError as error:
        raise CommandError(refusal(error, Grant.model_fields).message.rstrip(".")) from None
    except StoreAway as error:
        raise CommandError(f"{shown(store.url)} {error.why}") from None


def _shown_once(source: Source, key: Key, secret: str, *, json: bool) -> None:
    if json:
        as_json({**key.shown(time.time()), "key": secret})
        sys.stdout.flush()
        return
    where = shown(source.settings().store.url)
    kept = f"This key, {key.grant.name}, is shown only now: {where} keeps its SHA-256."
    _print_secret(secret, f"{kept}\nA gateway that runs takes it at once.")


def _print_secret(secret: str, note: str) -> None:
    print(secret)
    sys.stdout.flush()
    print(note, file=sys.stderr)


def _one(row: Fields, *, json: bool) -> None:
    if json:
        as_json(row)
        return
    texts: dict[str, Callable[[Any], str]] = {"limits": _limits, "budgets": _budgets}
    lines = [(name, texts.get(name, _text)(value)) for name, value in row.items()]
    table(("FIELD", "VALUE"), [(name, text) for name, text in lines if text])


def _cells(row: Fields) -> tuple[str, ...]:
    return (
        row["name"], row["state"], row["team"] or "", " ".join(row["models"]), _limits(row["limits"]),
        _budgets(row["budgets"]), (row["expires"] or "").replace("T", " "), row["id"],
    )  # fmt: skip


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _limits(limits: Fields) -> str:
    short = {"requests_per_minute": "rpm", "tokens_per_minute": "tpm", "requests_per_day": "rpd"}
    return " ".join(f"{short.get(name, name)}={value}" for name, value in limits.items() if value is not None)


def _budgets(budgets: Sequence[Fields]) -> str:
    return " ".join(
        f"{unit}={budget[unit]:g}/{budget['per']}"
        for budget in budgets
        for unit in ("dollars", "tokens", "gpu_seconds")
        if budget[unit] is not None
    )
