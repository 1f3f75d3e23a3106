"""What a request costs: a model's price, times what was used.

Rule: whole billionths of a dollar, so that sums are exact; a model without a price has no cost, which is not
the same as a cost of nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.events import Usage

PER_TOKEN = 1000  # billionths of a dollar a token, at one dollar a million


@dataclass(slots=True, frozen=True)
class Price:
    """Dollars: for one second of one GPU, of which a container has ``gpus``, and for a million tokens."""

    per_gpu_second: float | None = None
    gpus: int = 1
    per_million_input: float | None = None
    per_million_output: float | None = None

    def __bool__(self) -> bool:
        """Whether there is one. Asked several times a request: comparing values would cost ten times that."""
        return (
            self.per_gpu_second is not None
            or self.per_million_input is not None
            or self.per_million_output is not None
        )

    def of(self, usage: Usage | None, gpu: int | None) -> int | None:
        """Billionths of a dollar for these tokens and nanoseconds of containers; None without a price."""
        if not self:
            return None
        tokens = 0.0
        if usage is not None:
            tokens += usage.prompt_tokens * (self.per_million_input or 0.0)
            tokens += usage.completion_tokens * (self.per_million_output or 0.0)
        return round(tokens * PER_TOKEN + (gpu or 0) * (self.per_gpu_second or 0.0) * self.gpus)


FREE = Price()
