"""The pure half of the gateway: values in, values out.

Rule: nothing here awaits, opens, logs, or reads a clock, an environment or a random source; what must
vary (ids, times, sizes) is passed in. Imports: the standard library, pydantic, jinja2, orjson.
"""
