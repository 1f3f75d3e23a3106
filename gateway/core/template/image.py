"""What stands in a prompt for an image, which itself goes beside the prompt.

Rule: a prompt has exactly one for each image, in their order; numbers in it count from 1 through the whole
conversation. Knows nothing about images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.core.template.control import pieces

NUMBER: Final = "{n}"


@dataclass(frozen=True, slots=True)
class ImageToken:
    """The text, in which ``{n}`` is the image's number; an empty one where the prompt tells of no images."""

    text: str

    @property
    def pieces(self) -> tuple[str, ...]:
        """The control strings in it."""
        return pieces(self.text)

    def of(self, number: int) -> str:
        """The token of image ``number``, the first being 1."""
        return self.text.replace(NUMBER, str(number))

    def shown(self, prompt: str, images: int) -> bool:
        """Whether ``prompt`` has exactly the tokens of so many images; templates may trim what is around."""
        bare = self.text.strip()
        if not bare:
            return True
        if NUMBER not in bare:
            return prompt.count(bare) == images
        head, *rest = map(re.escape, bare.split(NUMBER))
        numbers = re.findall(f"{head}([0-9]+){r'[0-9]+'.join(rest)}", prompt)
        return numbers == [str(number) for number in range(1, images + 1)]
