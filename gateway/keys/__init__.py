"""Who may call: the keys of the configuration and of the store, and what each may do.

    key.py        one key as a value; what a new one looks like
    terms.py      what a key must be like, and what is said of one that is not
    table.py      keys in the database
    key_store.py  where they are made and changed
    pages.py      the same over HTTP
    key_cache.py  all of them in memory, kept up with the database
    running.py    the requests of each key, so that they end when it does

Rule: a key is known by its SHA-256, and is shown once, to who makes it. `gateway/auth.py` decides who calls.
"""
