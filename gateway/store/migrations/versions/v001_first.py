"""The first tables: requests and their sums, keys."""

import sqlalchemy as sa
from alembic import op

revision = "001"
down_revision = None

SUMS = ("requests", "errors", "prompt_tokens", "completion_tokens", "gpu_ns", "cost")


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.Text(), primary_key=True),
        _text("kind"),
        sa.Column("time", sa.BigInteger(), nullable=False),
        *(_text(name) for name in ("key_id", "key_name")),
        sa.Column("team", sa.Text()),
        *(_text(name) for name in ("asked", "model", "upstream", "route")),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text()),
        sa.Column("finish", sa.Text()),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        *(sa.Column(f"{name}_ms", sa.BigInteger()) for name in ("first_event", "duration", "queue", "boot")),
        sa.Column("prompt_tokens", sa.BigInteger()),
        sa.Column("completion_tokens", sa.BigInteger()),
        sa.Column("tokens_source", sa.Text()),
        sa.Column("gpu_ns", sa.BigInteger()),
        sa.Column("gpu_source", sa.Text()),
        sa.Column("cost", sa.BigInteger()),
        sa.Column("client_request_id", sa.Text()),
        sa.Column("end_user", sa.Text()),
        sa.Column("content", sa.JSON()),
        sa.Column("lost", sa.Boolean(), nullable=False),
    )
    op.create_index("requests_time", "requests", ["time"])
    for name in ("hours", "days"):
        op.create_table(
            name,
            sa.Column("bucket", sa.BigInteger(), primary_key=True, autoincrement=False),
            *(sa.Column(part, sa.Text(), primary_key=True) for part in ("key_id", "team", "model")),
            _text("key_name"),
            *(sa.Column(column, sa.BigInteger(), nullable=False) for column in SUMS),
        )
    _keys()


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), primary_key=True),
        _text("name"),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("team", sa.Text()),
        sa.Column("owner", sa.Text()),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in ("models", "limits", "budgets")),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("expires", sa.BigInteger()),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.BigInteger()),
        sa.Column("revision", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_keys_revision", "keys", ["revision"])


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)
