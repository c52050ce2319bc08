"""Small networks and inputs that several tests of the transformer share; every draw from a seed."""

import torch
from torch import Tensor

from models.dit import CONFIGS, DiT, DiTConfig
from models.text import TextFeatures

SMALL = DiTConfig(
    depth=2, width=64, ffn_width=96, heads=4, text_widths=(24, 16), max_frames=4, max_rows=8, max_columns=8
)
TINY = CONFIGS["tiny"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(config: DiTConfig = SMALL, seed: int = 0) -> DiT:
    """A network as training begins it."""
    model = DiT(config)
    model.init_weights(seeded(seed))
    return model


def trained(config: DiTConfig = SMALL, seed: int = 0) -> DiT:
    """A network whose every weight is non-zero, as after training: nothing hides behind a zero head or modulation."""
    model = built(config, seed)
    generator = seeded(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


def text_for(lengths: list[int], config: DiTConfig = SMALL, seed: int = 2) -> list[TextFeatures]:
    """Features of every encoder, sample b with lengths[b] real tokens; the padding holds numbers that must not matter."""
    generator = seeded(seed)
    longest = max(1, *lengths)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return [
        TextFeatures(torch.randn(len(lengths), longest, width, generator=generator), mask.clone())
        for width in config.text_widths
    ]


def rows(text: list[TextFeatures], index: list[int]) -> list[TextFeatures]:
    return [TextFeatures(part.features[index], part.mask[index]) for part in text]


def latents(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))
