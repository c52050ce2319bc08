"""Text as the transformer takes it: features with a mask, projected per encoder, dropped per sample.

Belongs here: everything between an encoder's output and cross-attention. Does not belong here: the encoders
(`encoders.py`, `open_clip_encoder.py`) and what they read (`prompts.py`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class TextFeatures(NamedTuple):
    """What one encoder says of a batch of prompts."""

    features: Tensor
    """(B, L, encoder width), floating; rows where `mask` is False are never seen and may hold anything finite."""
    mask: Tensor
    """(B, L), bool: True where a token is real. A sample may have none."""


class TextProjections(nn.Module):
    """Features of all encoders -> one sequence of model width (paper, text embeddings).

    Each encoder has its own Linear and LayerNorm; the sequences are joined end to end. A learned token stands in front of
    every sample and is never masked: it is all that a sample without text shows, so "no condition" is one learned vector
    for every encoder, and no row of attention is ever empty.
    """

    def __init__(self, text_widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(width))
        self.projections = nn.ModuleList(nn.Linear(text_width, width, bias=False) for text_width in text_widths)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in text_widths)

    def forward(self, text: Sequence[TextFeatures]) -> tuple[Tensor, Tensor]:
        """-> context (B, 1 + sum of L, D) in the parameters' dtype, mask (B, 1 + sum of L) bool."""
        batch = text[0].features.shape[0]
        parts = [self.null.expand(batch, 1, -1)]
        masks = [torch.ones(batch, 1, dtype=torch.bool, device=text[0].mask.device)]
        for (features, mask), projection, norm in zip(text, self.projections, self.norms, strict=True):
            parts.append(norm(projection(features.to(self.null.dtype))))
            masks.append(mask)
        return torch.cat(parts, dim=1), torch.cat(masks, dim=1)


def draw_dropped(batch: int, share: float, generator: torch.Generator) -> Tensor:
    """(batch,) bool: which samples lose their text, each with probability `share` (0..1), for guidance later."""
    if not 0 <= share <= 1:
        raise ValueError(f"given a dropout share of {share}; expected 0 to 1; 0.1 is usual")
    return torch.rand(batch, generator=generator, device=generator.device) < share


def drop_text(text: Sequence[TextFeatures], is_dropped: Tensor) -> list[TextFeatures]:
    """The same features with every encoder's mask cleared for the samples where `is_dropped` (B,) is True."""
    for part in text:
        if is_dropped.shape != part.mask.shape[:1] or is_dropped.dtype != torch.bool:
            raise ValueError(
                f"given is_dropped {tuple(is_dropped.shape)} of {is_dropped.dtype}; expected bool "
                f"{tuple(part.mask.shape[:1])}, one per prompt; draw it with draw_dropped"
            )
    return [TextFeatures(part.features, part.mask & ~is_dropped.to(part.mask.device)[:, None]) for part in text]


def without_text(text: Sequence[TextFeatures]) -> list[TextFeatures]:
    """The unconditional side of guidance: the same shapes, every token masked."""
    return [TextFeatures(part.features, torch.zeros_like(part.mask)) for part in text]
