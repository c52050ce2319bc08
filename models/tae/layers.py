"""The 2.5D layers of the temporal autoencoder: spatial layers over frames, temporal layers over the pixels' histories.

Belongs here: convolution, normalisation, attention and residual blocks, with and without their temporal half. Does not
belong here: how they are stacked (`autoencoder.py`) and the public contract on videos (same).

Inside the network a video of shape B C T H W is held as *frames*, B*T C H W in channels_last memory, with the number of
frames T passed beside it. Memory order is then B T H W C, so that a spatial layer sees images and a temporal convolution
sees the same bytes as B C T H*W without a copy. Normalisation is per frame: an image and a frame of a video are treated
alike, and nothing but temporal layers carries information from one frame to another.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

TEMPORAL_KERNEL = 3  # frames; the smallest symmetric window (the paper does not report its own)
NORM_EPS = 1e-6  # the LDM autoencoder's


class _PadTime(torch.autograd.Function):
    """Repeats the first and the last frame of B T N C once: replicate padding that saves nothing for backward.

    F.pad(mode="replicate") keeps its whole input alive and its CUDA backward adds in no fixed order; a plain torch.cat
    makes backward write two full tensors of zeros. Measured, forward and backward with the convolution, 16 frames of
    32 x 64 x 64 on one core: cat 65 ms, F.pad 43 ms, this 25-47 ms, no padding at all 27 ms.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], x, x[:, -1:]], dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        inner = grad[:, 1:-1].clone()
        inner[:, 0] += grad[:, 0]
        inner[:, -1] += grad[:, -1]
        return inner


def pad_time(x: Tensor, frames: int) -> Tensor:
    """Frames (B*T C H W) as B C T+2 H*W, the first and last frame repeated; channels stay innermost in memory."""
    channels, height, width = x.shape[1:]
    histories = x.permute(0, 2, 3, 1).reshape(-1, frames, height * width, channels)
    padded: Tensor = _PadTime.apply(histories)
    return padded.permute(0, 3, 1, 2)


def _as_frames(histories: Tensor, height: int, width: int) -> Tensor:
    """The reverse view: B T N C in memory back to frames."""
    return histories.reshape(-1, height, width, histories.shape[-1]).permute(0, 3, 1, 2)


class TemporalConv(nn.Module):
    """1D convolution over time, 3 frames wide, with symmetric replicate padding (paper 3.1.1), starting as the identity.

    With `stride` 2 it keeps frames 0, 2, 4, ..: T frames become ceil(T / 2), so any T goes through.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.zeros(channels, channels, TEMPORAL_KERNEL))
        self.bias = nn.Parameter(torch.zeros(channels))
        _start_as_identity(self.weight)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        height, width = x.shape[2:]
        if frames == 1:  # every tap sees the one frame: a third of the work, and images are a quarter of all batches
            return F.conv2d(x, self.weight.sum(2)[..., None, None], self.bias)
        out = F.conv2d(pad_time(x, frames), self.weight[..., None], self.bias, stride=(self.stride, 1))
        return _as_frames(out.permute(0, 2, 3, 1), height, width)

    def out_frames(self, frames: int) -> int:
        return -(-frames // self.stride)


class TemporalUpConv(nn.Module):
    """Nearest-neighbour doubling in time, then the convolution of `TemporalConv`: T frames become 2 T.

    The doubled video is never made. Of the three taps over doubled frames two always see the same source frame, so each
    output frame is a two-tap convolution of the source: even ones W0 x[i-1] + (W1 + W2) x[i], odd ones
    (W0 + W1) x[i] + W2 x[i+1]. Same function, two thirds of the multiplications.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels, TEMPORAL_KERNEL))
        self.bias = nn.Parameter(torch.zeros(channels))
        _start_as_identity(self.weight)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        height, width = x.shape[2:]
        before, here, after = self.weight.unbind(2)
        even, odd = torch.stack([before, here + after], 2), torch.stack([before + here, after], 2)
        out = F.conv2d(pad_time(x, frames), torch.cat([even, odd])[..., None], self.bias.repeat(2))
        out = out.permute(0, 2, 3, 1).unflatten(3, (2, -1))  # B T+1 N 2 C: position i holds even i and odd i-1
        return _as_frames(torch.stack([out[:, :-1, :, 0], out[:, 1:, :, 1]], dim=2), height, width)

    def out_frames(self, frames: int) -> int:
        return 2 * frames


def _start_as_identity(weight: Tensor) -> None:
    if not weight.is_meta:
        with torch.no_grad():
            weight[:, :, TEMPORAL_KERNEL // 2] = torch.eye(weight.shape[0])


class Conv(nn.Module):
    """3x3 spatial convolution, followed in a temporal autoencoder by its temporal one (paper 3.1.1)."""

    def __init__(self, in_channels: int, out_channels: int, *, is_temporal: bool) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.temporal = TemporalConv(out_channels) if is_temporal else None

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = self.spatial(x)
        return x if self.temporal is None else self.temporal(x, frames)


class Downsample(nn.Module):
    """Halves H and W, rounding down, and where the temporal convolution after it has stride 2 also T, rounding up.

    The spatial stride-2 convolution is the LDM autoencoder's: one row and column of zeros on the far side only.
    """

    def __init__(self, channels: int, temporal: TemporalConv | None) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 3, stride=2)
        self.temporal = temporal

    def forward(self, x: Tensor, frames: int) -> tuple[Tensor, int]:
        x = self.spatial(F.pad(x, (0, 1, 0, 1)))
        return (x, frames) if self.temporal is None else (self.temporal(x, frames), self.temporal.out_frames(frames))


class Upsample(nn.Module):
    """Doubles H and W by nearest neighbour, then convolves; with a `TemporalUpConv` after it T is doubled as well."""

    def __init__(self, channels: int, temporal: TemporalConv | TemporalUpConv | None) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1)
        self.temporal = temporal

    def forward(self, x: Tensor, frames: int) -> tuple[Tensor, int]:
        x = self.spatial(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return (x, frames) if self.temporal is None else (self.temporal(x, frames), self.temporal.out_frames(frames))


class ResBlock(nn.Module):
    """Two normalised convolutions beside a shortcut, which is a 1x1 convolution where the width changes.

    The 1x1 convolution mixes channels and has no extent in space, so it gets no temporal partner.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int, *, is_temporal: bool) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, NORM_EPS)
        self.conv1 = Conv(in_channels, out_channels, is_temporal=is_temporal)
        self.norm2 = nn.GroupNorm(groups, out_channels, NORM_EPS)
        self.conv2 = Conv(out_channels, out_channels, is_temporal=is_temporal)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, frames: int) -> Tensor:
        residual = self.conv1(F.silu(self.norm1(x)), frames)
        residual = self.conv2(F.silu(self.norm2(residual)), frames)
        out: Tensor = self.shortcut(x) + residual
        return out


class _Attention(nn.Module):
    """Normalisation, projections and output of one single-head attention, shared by space and time."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, NORM_EPS)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def attend(self, tokens: Tensor) -> Tensor:
        """... N C -> ... N C, each token looking at all N of its row."""
        return self.out(F.scaled_dot_product_attention(self.query(tokens), self.key(tokens), self.value(tokens)))


class SpatialAttention(_Attention):
    """Single-head attention among the H*W positions of each frame, with a residual connection."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # B*T, H*W, C
        return x + self.attend(tokens).transpose(1, 2).unflatten(2, x.shape[2:])


class TemporalAttention(_Attention):
    """Single-head attention among the T frames at each position (paper 3.1.1), with a residual connection.

    The output projection starts at zero, so the block begins as the identity; it has no position signal, because the
    temporal convolutions around it carry order, and so it takes any T.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, groups)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        height, width = x.shape[2:]
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(-1, frames, height * width, x.shape[1])
        out = self.attend(tokens.transpose(1, 2)).transpose(1, 2)  # B, H*W, T, C and back
        return x + _as_frames(out, height, width)


class Level(nn.Module):
    """Residual blocks of one resolution, then the step to the next resolution where there is one."""

    def __init__(self, blocks: list[ResBlock], resample: Downsample | Upsample | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample

    def forward(self, x: Tensor, frames: int, *, recompute: bool) -> tuple[Tensor, int]:
        for block in self.blocks:
            x = run(block, x, frames, recompute=recompute)
        if self.resample is not None:
            x, frames = run(self.resample, x, frames, recompute=recompute)
        return x, frames


class MidBlock(nn.Module):
    """The bottleneck: residual block, spatial and then temporal attention, residual block."""

    def __init__(self, channels: int, groups: int, *, is_temporal: bool, has_attention: bool) -> None:
        super().__init__()
        self.block1 = ResBlock(channels, channels, groups, is_temporal=is_temporal)
        self.attention = SpatialAttention(channels, groups) if has_attention else None
        self.temporal_attention = TemporalAttention(channels, groups) if has_attention and is_temporal else None
        self.block2 = ResBlock(channels, channels, groups, is_temporal=is_temporal)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = self.block1(x, frames)
        if self.attention is not None:
            x = self.attention(x)
        if self.temporal_attention is not None:
            x = self.temporal_attention(x, frames)
        out: Tensor = self.block2(x, frames)
        return out


def run(block: Callable[..., Any], x: Tensor, frames: int, *, recompute: bool) -> Any:
    """`block(x, frames)`; with `recompute` its inner activations are dropped and computed again in backward."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, x, frames, use_reentrant=False)
    return block(x, frames)
