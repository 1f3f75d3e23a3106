"""The client's side of the wire: uvicorn within bounds, one request and its answer, whole or streamed.

Rule: nothing here knows about models, keys or upstreams.
"""
