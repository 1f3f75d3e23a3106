"""The tables, as the newest migration leaves them.

Rule: a row of ``requests`` is written once and never changed; ``hours`` and ``days`` are its sums and grow in
the same transaction. A change here comes with a migration; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # request | idle: a container that waited, paid by who woke it
    Column("time", BigInteger, nullable=False),  # when it came, milliseconds since 1970
    Column("key_id", Text, nullable=False),
    Column("key_name", Text, nullable=False),
    Column("team", Text),
    Column("asked", Text, nullable=False),  # the model's name as the client sent it
    Column("model", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("status", Integer, nullable=False),  # HTTP status; 0 where it is not known
    Column("code", Text),  # of the error, early or late
    Column("finish", Text),
    Column("streamed", Boolean, nullable=False),
    Column("first_event_ms", BigInteger),
    Column("duration_ms", BigInteger),
    Column("queue_ms", BigInteger),
    Column("boot_ms", BigInteger),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("tokens_source", Text),  # upstream | tokenizer | estimate
    Column("gpu_ns", BigInteger),
    Column("gpu_source", Text),  # reported | estimated
    Column("cost", BigInteger),  # billionths of a dollar
    Column("client_request_id", Text),
    Column("end_user", Text),  # the request's `user`
    Column("content", JSON(none_as_null=True)),  # prompts and answers, where they are kept
    Column("lost", Boolean, nullable=False),  # it began, and its process was killed before it ended
    Index("requests_time", "time"),
)

SUMS = ("requests", "errors", "prompt_tokens", "completion_tokens", "gpu_ns", "cost")
"""What the roll-ups add up."""


def _sums(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("bucket", BigInteger, primary_key=True, autoincrement=False),  # its start, as `time` in UTC
        Column("key_id", Text, primary_key=True),
        Column("team", Text, primary_key=True),  # '' for none
        Column("model", Text, primary_key=True),
        Column("key_name", Text, nullable=False),  # the newest
        *(Column(column, BigInteger, nullable=False) for column in SUMS),
    )


hours = _sums("hours")
days = _sums("days")

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),  # SHA-256; the key is stored nowhere
    Column("team", Text),
    Column("owner", Text),
    Column("models", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("budgets", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("expires", BigInteger),
    Column("disabled", Boolean, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("revoked", BigInteger),
    Column("revision", BigInteger, nullable=False, index=True),  # grows with each change of any key
)
