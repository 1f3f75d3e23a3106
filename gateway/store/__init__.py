"""The database of keys and ledger: SQLite beside the configuration, or PostgreSQL for several machines.

    config.py      its keys in the configuration, and those of Redis
    engine.py      a URL becomes an engine; transactions that read or write
    tables.py      the tables
    schema.py      brings a database up to them
    migrations/    how each version came from the one before

Rule: whole numbers everywhere. Times are milliseconds since 1970, GPU time is nanoseconds, money is
billionths of a dollar. The URL may hold a password and is never shown. SQLAlchemy is imported here, by
`gateway/ledger` and by `gateway/keys` alone, and only once a store is used. Knows nothing about requests.
"""
