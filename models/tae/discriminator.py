"""The video patch discriminator and the adversarial losses of TAE training (LDM's, made 2.5D).

Belongs here: the network, hinge losses, the adaptive weight. Does not belong here: when it starts and how often it steps
(`training`). The paper says adversarial loss as in LDM and no more; LDM's is a PatchGAN with hinge loss whose weight
follows the size of the reconstruction gradient.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.tae.checks import validate_axes
from models.tae.layers import Conv, TemporalConv, run

LEAK = 0.2
ADAPTIVE_EPS, ADAPTIVE_MAX = 1e-4, 1e4  # LDM's guard and clamp


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Each width is one level that halves H and W (rounding down) and T (rounding up)."""

    channels: int = 3
    widths: tuple[int, ...] = (64, 128, 256)
    norm_groups: int = 32

    def __post_init__(self) -> None:
        if not self.widths or min(self.channels, self.norm_groups, *self.widths) < 1:
            raise ValueError(f"given {self}; expected at least one width and every count at least 1; correct it")
        if uneven := [width for width in self.widths if width % self.norm_groups]:
            raise ValueError(
                f"given widths {uneven}; expected multiples of norm_groups {self.norm_groups}; change either"
            )

    @property
    def factor(self) -> int:
        """Pixels, and frames, per logit."""
        return 2 ** len(self.widths)


class _Stage(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, groups: int | None) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
        self.temporal = TemporalConv(out_channels, stride=2)
        self.norm = nn.Identity() if groups is None else nn.GroupNorm(groups, out_channels)

    def forward(self, x: Tensor, frames: int) -> tuple[Tensor, int]:
        x = self.norm(self.temporal(self.spatial(x), frames))
        return F.leaky_relu(x, LEAK), self.temporal.out_frames(frames)


class VideoDiscriminator(nn.Module):
    """One logit per 8x8x8 block of a video (with the default widths): high where the block looks real.

    2.5D like the TAE, for the paper's reason, cost. Temporal layers start as the identity, so it begins as LDM's image
    discriminator on every eighth frame, and learns motion from there. Normalised by GroupNorm in place of LDM's
    BatchNorm: a batch of one, or mixed images and videos, then mean the same thing.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        ins = (config.channels, *config.widths[:-1])
        self.stages = nn.ModuleList(
            _Stage(i, o, config.norm_groups if index else None)
            for index, (i, o) in enumerate(zip(ins, config.widths, strict=True))
        )
        self.head = Conv(config.widths[-1], config.widths[-1], is_temporal=True)
        self.logit = Conv(config.widths[-1], 1, is_temporal=True)

    def forward(self, video: Tensor) -> Tensor:
        """Video B C T H W in -1..1, H and W from 8 px -> logits B 1 ceil(T/8) H//8 W//8."""
        validate_axes(video, "a video", self.config.channels, None)
        if min(video.shape[3:]) < self.config.factor:
            raise ValueError(
                f"given a video of {video.shape[3]} x {video.shape[4]} px; expected at least {self.config.factor} a side; "
                "train on larger crops or use fewer widths"
            )
        batch, _, frames = video.shape[:3]
        x = video.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x, frames = run(stage, x, frames, recompute=self.recompute)
        x = self.logit(F.leaky_relu(self.head(x, frames), LEAK), frames)
        return x.unflatten(0, (batch, frames)).transpose(1, 2)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge loss of the discriminator: 1 when it says 0 everywhere, 0 once real is above 1 and fake below -1."""
    return 0.5 * (F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean())


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Hinge loss of the autoencoder: minus the mean logit of its reconstructions."""
    return -fake_logits.float().mean()


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, layer: Tensor) -> Tensor:
    """How much to scale the adversarial loss so that its gradient at `layer` is as large as the reconstruction's (LDM).

    `layer` is a tensor that both losses depend on: `tae.last_layer`, or the reconstruction itself where parameters are
    sharded. Result: a scalar without gradient, within 0..1e4. Both graphs are kept for the backward pass that follows.
    """
    pixels, fooling = (
        torch.linalg.vector_norm(torch.autograd.grad(loss, layer, retain_graph=True)[0].float())
        for loss in (reconstruction_loss, adversarial_loss)
    )
    return (pixels / (fooling + ADAPTIVE_EPS)).clamp(0, ADAPTIVE_MAX).detach()
