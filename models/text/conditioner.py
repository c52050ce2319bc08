"""Which encoders a model listens to and what each of them reads; prompts in, one TextFeatures per encoder out."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from models.text.encoders import ByteEncoder, TextEncoder, byt5, check_texts, metaclip, minilm, ul2
from models.text.features import TextFeatures
from models.text.prompts import quoted_text, whole_prompt


@dataclass(frozen=True)
class Reader:
    """One encoder and the part of the prompt it is given."""

    encoder: TextEncoder
    """Turns texts into features."""
    reads: Callable[[str], str] = whole_prompt
    """prompt -> the text that the encoder sees; an empty one gives no tokens."""


def default_readers(minilm_source: str | os.PathLike[str]) -> list[Reader]:
    """MiniLM for the prompt, bytes for quoted text: widths (384, 288). Runs without a network once MiniLM's folder is there."""
    return [Reader(minilm(minilm_source)), Reader(ByteEncoder(), quoted_text)]


def paper_readers(
    ul2_source: str | os.PathLike[str],
    byt5_source: str | os.PathLike[str],
    metaclip_source: str | os.PathLike[str],
    **options: Any,
) -> list[Reader]:
    """The paper's three: UL2 and MetaCLIP for the prompt, ByT5 for quoted text, in the order of PAPER_TEXT_WIDTHS.

    `options` (dtype, device) go to each loader.
    """
    return [
        Reader(ul2(ul2_source, **options)),
        Reader(byt5(byt5_source, **options), quoted_text),
        Reader(metaclip(metaclip_source, **options)),
    ]


def encode(readers: Sequence[Reader], prompts: Sequence[str]) -> list[TextFeatures]:
    """Features of `prompts` from every encoder, in order; ValueError for no prompts or one that is too long."""
    check_texts(prompts)
    return [reader.encoder([reader.reads(prompt) for prompt in prompts]) for reader in readers]
