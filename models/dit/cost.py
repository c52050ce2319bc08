"""Parameters and floating-point operations of the transformer by formula; tests hold both against the built model.

One multiply and one add count as two operations. Only matrix products and attention are counted, as torch's counter does;
norms, modulation and softmax are left out (they move memory rather than compute).
"""

from dataclasses import dataclass

from models.dit.config import LATENT_SCALE_PX, PATCH, DiTConfig
from models.dit.model import MODULATIONS, TIMESTEP_FEATURES


@dataclass(frozen=True)
class ForwardCost:
    """Operations of one forward pass of one sample."""

    linear: int
    """Matrix products with weights."""
    attention: int
    """The two products of attention, self and cross."""

    @property
    def forward(self) -> int:
        """All of one forward pass."""
        return self.linear + self.attention

    @property
    def training(self) -> int:
        """Forward and backward: three times forward. The model FLOPs of MFU; recomputation is not in it."""
        return 3 * self.forward

    @property
    def training_with_recomputation(self) -> int:
        """Forward, forward again, backward: the hardware FLOPs of HFU under full recomputation."""
        return 4 * self.forward


def tokens(frames_px: int, height_px: int, width_px: int) -> int:
    """Tokens of a video in pixels: ceil(frames / 8) x height / 16 x width / 16. 768 x 768 x 256 gives 73,728."""
    side = LATENT_SCALE_PX * PATCH
    if min(frames_px, height_px, width_px) < 1 or height_px % side or width_px % side:
        raise ValueError(
            f"given {frames_px} frames of {height_px} x {width_px}; expected at least one frame and sides that are "
            f"multiples of {side}; crop the video"
        )
    return -(-frames_px // LATENT_SCALE_PX) * (height_px // side) * (width_px // side)


def parameters(config: DiTConfig) -> int:
    """Learned numbers of the whole network, text projections and position tables included."""
    d, patch = config.width, PATCH * PATCH
    block = 8 * d * d + 3 * d * config.ffn_width + (3 + MODULATIONS) * d
    outside = (
        d * patch * config.in_channels
        + d * (config.max_frames + config.max_rows + config.max_columns)
        + config.modulation_width * (TIMESTEP_FEATURES + MODULATIONS * d)
        + sum(d * width + 2 * d for width in config.text_widths)
        + d  # the token for no text
        + 3 * d  # the head's norm and two modulation biases
        + d * patch * config.out_channels
    )
    return config.depth * block + outside


def forward_cost(config: DiTConfig, tokens: int, text_tokens: tuple[int, ...]) -> ForwardCost:
    """Cost of one sample of `tokens` latent tokens with `text_tokens` of each encoder, padding counted as text.

    Cross-attention's keys and values are computed per text token, all else of a block per latent token.
    """
    d, patch = config.width, PATCH * PATCH
    context = 1 + sum(text_tokens)
    block = 2 * tokens * (6 * d * d + 3 * d * config.ffn_width) + 2 * context * 2 * d * d
    outside = (
        2 * tokens * d * patch * (config.in_channels + config.out_channels)
        + 2 * config.modulation_width * (TIMESTEP_FEATURES + MODULATIONS * d)
        + sum(2 * n * width * d for n, width in zip(text_tokens, config.text_widths, strict=True))
    )
    return ForwardCost(config.depth * block + outside, config.depth * 4 * tokens * (tokens + context) * d)


def flops_per_token(config: DiTConfig, tokens: int, text_tokens: tuple[int, ...]) -> float:
    """Forward operations per latent token of a sample of that length (attention grows with it)."""
    return forward_cost(config, tokens, text_tokens).forward / tokens
