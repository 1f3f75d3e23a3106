"""modal-gateway: OpenAI requests in, the Modal prompt contract out."""

__version__ = "0.1.0"
