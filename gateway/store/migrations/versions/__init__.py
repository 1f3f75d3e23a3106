"""One file a migration, found by Alembic."""
