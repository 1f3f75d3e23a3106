"""Who may use how much: limits of rate and number, and budgets, of keys, teams and models together.

`gateway/limits/leases.py` is what a request meets; `gateway/limits/memory.py` counts in this process,
`gateway/limits/redis_limiter.py` in Redis for several of them.
"""
