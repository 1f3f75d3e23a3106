"""The routes that are not hot, in front of FastAPI.

    application.py   the application, and how it says what went wrong
    public.py        models, health, metrics, the rendered prompt, a list of all routes
    admin.py         what upstreams are doing, and waking one;  token_check.py  FastChat's

Rule: nothing here calls a model; each route names its own guard. Keys and the ledger keep their own pages.
"""
