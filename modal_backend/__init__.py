"""Model containers that speak the prompt contract, version 1.

An engine makes text, ``contract`` serves it over HTTP, ``app`` puts it on Modal. Nothing here imports the
gateway, and only ``app`` imports the Modal SDK.
"""
