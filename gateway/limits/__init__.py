"""Who may use how much: limits of rate and number, and budgets, of keys, teams and models together.

`gateway/limits/scopes.py` is what bounds whom, `gateway/limits/leases.py` what a request meets of it;
`gateway/limits/memory.py` counts in this process, `gateway/limits/redis_limiter.py` in Redis for several.
"""
