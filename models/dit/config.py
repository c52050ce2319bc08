"""Sizes of the transformer, checked where they are made. The network that has them is in `model.py`."""

import dataclasses
from dataclasses import dataclass

PATCH = 2
"""Side of a patch in latent pixels: patches are 1 x 2 x 2 (frames, height, width), as in the paper."""

LATENT_SCALE_PX = 8
"""Pixels per latent pixel and frames per latent frame: the TAE compresses 8 x 8 x 8."""

PAPER_TEXT_WIDTHS = (4096, 1472, 1280)
"""Feature widths of the paper's encoders: UL2-20B, ByT5-small, MetaCLIP's text tower."""


@dataclass(frozen=True)
class DiTConfig:
    """Everything that decides the shape of the network; ValueError for a value that makes no network.

    Two networks with equal configurations have equal parameter names and shapes.
    """

    depth: int
    """Number of blocks."""
    width: int
    """Channels of the residual stream; a multiple of `heads`."""
    ffn_width: int
    """Inner width of the SwiGLU feed-forward (three matrices of width x ffn_width)."""
    heads: int
    """Attention heads, the same for queries, keys and values."""
    text_widths: tuple[int, ...] = PAPER_TEXT_WIDTHS
    """Feature width of each text encoder, in the order in which features are given."""
    in_channels: int = 16
    """Latent channels read: 16, or 32 for the upsampler, which also reads the degraded video."""
    out_channels: int = 16
    """Channels of the predicted velocity."""
    max_frames: int = 32
    """Rows of the position table in time, latent frames."""
    max_rows: int = 96
    """Rows of the position table in height, patches: 16 pixels each."""
    max_columns: int = 96
    """Rows of the position table in width, patches: 16 pixels each."""

    def __post_init__(self) -> None:
        sizes = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "text_widths"
        }
        sizes |= {f"text_widths[{i}]": width for i, width in enumerate(self.text_widths)}
        for name, value in sizes.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"DiTConfig.{name} is {value!r}; expected a whole number of at least 1; correct it")
        if self.width % self.heads:
            raise ValueError(
                f"DiTConfig.width {self.width} is no multiple of heads {self.heads}; expected equal heads; "
                f"take a width of {self.width // self.heads * self.heads or self.heads} or other heads"
            )

    @property
    def head_width(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def modulation_width(self) -> int:
        """Hidden width of the one MLP that turns t into scales, shifts and gates for all layers."""
        return 4 * self.width


CONFIGS: dict[str, DiTConfig] = {
    "tiny": DiTConfig(
        depth=4,
        width=128,
        ffn_width=384,
        heads=4,
        text_widths=(384, 288),  # MiniLM and bytes
        max_frames=8,
        max_rows=16,
        max_columns=16,
    ),
    "1B": DiTConfig(depth=24, width=1536, ffn_width=4096, heads=16),
    "5B": DiTConfig(depth=32, width=3072, ffn_width=8192, heads=24),
    "30B": DiTConfig(depth=48, width=6144, ffn_width=16384, heads=48),
}
"""Sizes by name. 1B, 5B and 30B have the paper's dimensions; `tiny` is for tests and demos."""
