"""What the encoders read: the prompt with its frame rate in front, and the text in it that is to be seen in the picture."""

import re
from fractions import Fraction

_QUOTED = re.compile(
    r'"([^"]*)"'
    r"|“([^“”]*)”"
    r"|„([^„“”]*)[“”]"
    r"|«([^«»]*)»"
    r"|「([^「」]*)」"
    r"|‘([^‘]+?)’(?!\w)"  # the closing mark is also the apostrophe: it closes only where no letter follows
    r"|(?<!\w)'([^']+(?:'\w[^']*)*)'(?!\w)"
)


def whole_prompt(prompt: str) -> str:
    """The prompt as it is."""
    return prompt


def quoted_text(prompt: str) -> str:
    """The quoted parts of a prompt, one a line, without their quotation marks; empty where nothing is quoted.

    Understands "", “”, „“, «», 「」, ‘’ and '' (where they are no apostrophes). ByT5 reads this and nothing else.
    """
    found = ("".join(match.groups(default="")).strip() for match in _QUOTED.finditer(prompt))
    return "\n".join(text for text in found if text)


def with_fps(prompt: str, fps: float | Fraction) -> str:
    """The prompt with its frame rate in front, "FPS-16 ...": the only way in which the model learns of time's scale.

    Rounded to a whole number, because the text encoder has seen those; ValueError for a rate that rounds below 1.
    """
    rounded = round(fps)
    if rounded < 1:
        raise ValueError(f"given {fps} frames per second; expected at least 1; the paper trains at 16 to 32")
    return f"FPS-{rounded} {prompt}"
