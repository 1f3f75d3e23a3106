"""People whom an identity provider vouches for: signed tokens (JWT) in place of keys.

    config.py      a provider as the configuration has it
    token.py       what a token is before anybody believes it
    keyset.py      public keys of a provider, and whether one of them signed a token
    jwks_cache.py  the same kept up with the provider
    claims.py      what a token's claims make of its holder
    tokens.py      all of it for the door, and the tokens that were seen lately

Rule: a token is believed for its signature, its issuer, its audience and its time, all of them, and nothing
of it is kept but its SHA-256. `gateway/auth.py` decides who calls. PyJWT is imported only where a provider is
configured.
"""
