"""The temporal autoencoder (TAE, Movie Gen 3.1.1) and the image autoencoder that it is inflated from.

Belongs here: configurations, encoder, decoder, the two public modules and inflation. Does not belong here: the layers
(`layers.py`), losses, tiling, foreign weights (`diffusers_weights.py`).

Axes are always B C T H W. Videos are floating point in -1..1, T in frames, H and W in pixels; an image is a video of one
frame. A latent frame stands for 8 frames of 8x8 pixels at the default configuration: T' = ceil(T / 8), H' = ceil(H / 8),
W' = ceil(W / 8). A side that is no multiple of 8 is padded at its far end by repeating the last row or column, and cropped
again on decoding; time needs no padding, because its stride-2 convolutions take any T.
"""

import os
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.hub import from_pretrained, save_pretrained
from models.tae.checks import validate_latents, validate_video
from models.tae.layers import (
    NORM_EPS,
    Conv,
    Downsample,
    Level,
    MidBlock,
    ResBlock,
    TemporalConv,
    TemporalUpConv,
    Upsample,
    run,
)

LOG_VARIANCE_RANGE = (-30.0, 20.0)  # LDM's clamp: exp stays finite in fp32 and bf16


@dataclass(frozen=True)
class ImageAutoencoderConfig:
    """An LDM-style image autoencoder. Each width is one level; each level after the first halves H and W.

    `latent_shift` and `latent_scale` are carried for models that work on the latents (z - shift) * scale; the
    autoencoder itself neither applies nor learns them. `has_quant_conv` adds the 1x1 convolutions that the first LDM
    autoencoders have around the latent and later ones dropped.
    """

    channels: int = 3
    latent_channels: int = 16
    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks_per_level: int = 2
    norm_groups: int = 32
    has_attention: bool = True
    has_quant_conv: bool = False
    latent_shift: float = 0.0
    latent_scale: float = 1.0

    def __post_init__(self) -> None:
        counts = (self.channels, self.latent_channels, self.blocks_per_level, self.norm_groups, *self.widths)
        if not self.widths or min(counts) < 1:
            raise ValueError(f"given {self}; expected at least one width and every count at least 1; correct it")
        if uneven := [width for width in self.widths if width % self.norm_groups]:
            raise ValueError(
                f"given widths {uneven} with norm_groups {self.norm_groups}; expected multiples of it; change either"
            )

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent position along H and W."""
        return 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class TAEConfig:
    """A temporal autoencoder: its image autoencoder and the frames per latent frame, a power of two."""

    image: ImageAutoencoderConfig = ImageAutoencoderConfig()
    temporal_factor: int = 8

    def __post_init__(self) -> None:
        factors = [2**i for i in range(len(self.image.widths))]
        if self.temporal_factor not in factors:
            raise ValueError(
                f"given temporal_factor {self.temporal_factor} with {len(self.image.widths)} widths; expected one of "
                f"{factors}, since time is halved together with space; add widths or lower the factor"
            )

    @property
    def temporal_levels(self) -> int:
        """How many of the spatial halvings, from the pixels on, halve time as well."""
        return self.temporal_factor.bit_length() - 1


TAE_TINY = TAEConfig(ImageAutoencoderConfig(widths=(16, 32, 48, 64), blocks_per_level=1, norm_groups=16))
TAE_SMALL = TAEConfig(ImageAutoencoderConfig(widths=(64, 128, 256, 256), blocks_per_level=2))
TAE_BASE = TAEConfig()


class Posterior(NamedTuple):
    """The encoder's diagonal Gaussian over latents, both B C T' H' W'."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Latents drawn with standard normal `noise` of the mean's shape; the caller owns the generator."""
        if noise.shape != self.mean.shape:
            raise ValueError(
                f"given noise of shape {tuple(noise.shape)}; expected {tuple(self.mean.shape)}, the latents' shape; "
                "draw it with torch.randn(posterior.mean.shape, generator=...)"
            )
        return self.mean + torch.exp(0.5 * self.log_variance) * noise.to(self.mean.dtype)


class Encoder(nn.Module):
    """Frames B*T C H W -> moments B*T' 2C' H' W' (mean and log-variance on channels); see `layers.py` for frames."""

    def __init__(self, config: ImageAutoencoderConfig, *, is_temporal: bool, temporal_levels: int) -> None:
        super().__init__()
        widths, groups = config.widths, config.norm_groups
        self.conv_in = Conv(config.channels, widths[0], is_temporal=is_temporal)
        self.levels = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            ins = [before] + [width] * (config.blocks_per_level - 1)
            blocks = [ResBlock(i, width, groups, is_temporal=is_temporal) for i in ins]
            down = None
            if level < len(widths) - 1:
                stride = 2 if level < temporal_levels else 1
                down = Downsample(width, TemporalConv(width, stride) if is_temporal else None)
            self.levels.append(Level(blocks, down))
            before = width
        self.mid = MidBlock(before, groups, is_temporal=is_temporal, has_attention=config.has_attention)
        self.norm_out = nn.GroupNorm(groups, before, NORM_EPS)
        self.conv_out = Conv(before, 2 * config.latent_channels, is_temporal=is_temporal)
        self.quant = (
            nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1) if config.has_quant_conv else None
        )

    def forward(self, x: Tensor, frames: int, *, recompute: bool = False) -> tuple[Tensor, int]:
        x = self.conv_in(x, frames)
        for level in self.levels:
            x, frames = level(x, frames, recompute=recompute)
        x = run(self.mid, x, frames, recompute=recompute)
        x = self.conv_out(F.silu(self.norm_out(x)), frames)
        return (x if self.quant is None else self.quant(x)), frames


class Decoder(nn.Module):
    """Latent frames B*T' C' H' W' -> frames B*T C H W; the encoder's levels from the coarsest to the pixels."""

    def __init__(self, config: ImageAutoencoderConfig, *, is_temporal: bool, temporal_levels: int) -> None:
        super().__init__()
        widths, groups = config.widths, config.norm_groups
        self.quant = nn.Conv2d(config.latent_channels, config.latent_channels, 1) if config.has_quant_conv else None
        before = widths[-1]
        self.conv_in = Conv(config.latent_channels, before, is_temporal=is_temporal)
        self.mid = MidBlock(before, groups, is_temporal=is_temporal, has_attention=config.has_attention)
        self.levels = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            ins = [before] + [width] * config.blocks_per_level
            blocks = [ResBlock(i, width, groups, is_temporal=is_temporal) for i in ins]
            up = None
            if level > 0:  # undoes the encoder's step from level - 1 to level
                temporal = TemporalUpConv(width) if level <= temporal_levels else TemporalConv(width)
                up = Upsample(width, temporal if is_temporal else None)
            self.levels.append(Level(blocks, up))
            before = width
        self.norm_out = nn.GroupNorm(groups, before, NORM_EPS)
        self.conv_out = Conv(before, config.channels, is_temporal=is_temporal)

    def forward(self, x: Tensor, frames: int, *, recompute: bool = False) -> tuple[Tensor, int]:
        x = self.conv_in(x if self.quant is None else self.quant(x), frames)
        x = run(self.mid, x, frames, recompute=recompute)
        for level in self.levels:
            x, frames = level(x, frames, recompute=recompute)
        return run(self._head, x, frames, recompute=recompute), frames

    def _head(self, x: Tensor, frames: int) -> Tensor:
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)), frames)
        return out


class ImageAutoencoder(nn.Module):
    """The spatial autoencoder alone: the same network without its temporal layers, each frame on its own.

    It takes and gives videos B C T H W like the TAE, with T kept: an image is T = 1.
    """

    def __init__(self, config: ImageAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, is_temporal=False, temporal_levels=0)
        self.decoder = Decoder(config, is_temporal=False, temporal_levels=0)

    def encode(self, video: Tensor) -> Posterior:
        """B C T H W in -1..1 -> a posterior over B C' T H' W'. Errors as `TemporalAutoencoder.encode`."""
        return _encode(self.encoder, self.config, video, recompute=False)

    def decode(self, latents: Tensor, size: tuple[int, int, int] | None = None) -> Tensor:
        """B C' T H' W' -> B C T H W, cropped to `size` (T, H, W) where given; roughly -1..1, not clamped."""
        return _decode(self.decoder, self.config, 1, latents, size, recompute=False)

    def forward(self, video: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior]:
        """Reconstruction and posterior, as `TemporalAutoencoder.forward`."""
        posterior = self.encode(video)
        latents = posterior.mean if noise is None else posterior.sample(noise)
        return self.decode(latents, tuple(video.shape[2:])), posterior  # type: ignore[arg-type]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors into `folder`; see `models.hub`."""
        save_pretrained(self, self.config, folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read such a folder; ValueError as `models.hub.from_pretrained`."""
        return from_pretrained(folder, ImageAutoencoderConfig, cls)


class TemporalAutoencoder(nn.Module):
    """Movie Gen's TAE (3.1.1): an image autoencoder with a temporal layer after every spatial one, 8x8x8 by default.

    Temporal layers start as the identity, so a TAE made by `inflate` gives on images exactly what its image autoencoder
    gives. `recompute = True` drops the activations inside each block during training and computes them again in
    backward: about a third more time for a fraction of the memory, and the same gradients.
    """

    def __init__(self, config: TAEConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.encoder = Encoder(config.image, is_temporal=True, temporal_levels=config.temporal_levels)
        self.decoder = Decoder(config.image, is_temporal=True, temporal_levels=config.temporal_levels)

    def encode(self, video: Tensor) -> Posterior:
        """Video -> posterior over latents.

        `video`: B C T H W, the dtype of the weights, -1..1, any T, H, W from 1. Result: mean and log-variance, each
        B C' ceil(T/8) ceil(H/8) ceil(W/8). Raises ValueError on another rank, channel count, dtype or range, on an empty
        axis and on NaN (`checks.py` says when values are looked at).
        """
        return _encode(self.encoder, self.config.image, video, recompute=self.recompute)

    def decode(self, latents: Tensor, size: tuple[int, int, int] | None = None) -> Tensor:
        """Latents -> video, B C T H W, roughly -1..1 and not clamped.

        `latents`: B C' T' H' W', the dtype of the weights. The network makes 8 T' frames of 8 H' x 8 W' pixels; `size`
        (T, H, W), in frames and pixels, is what was encoded: the spurious frames and the padding beyond it are dropped.
        Raises ValueError on wrong latents and on a `size` that such latents cannot come from.
        """
        return _decode(
            self.decoder, self.config.image, self.config.temporal_factor, latents, size, recompute=self.recompute
        )

    def forward(self, video: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior]:
        """Reconstruction (the video's shape) and posterior; latents are the mean, or drawn with `noise` if given."""
        posterior = self.encode(video)
        latents = posterior.mean if noise is None else posterior.sample(noise)
        return self.decode(latents, tuple(video.shape[2:])), posterior  # type: ignore[arg-type]

    def temporal_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that inflation added, by name; all others came from the image autoencoder."""
        return {name: parameter for name, parameter in self.named_parameters() if "temporal" in name}

    @property
    def last_layer(self) -> Tensor:
        """The last spatial weight of the decoder, at which the adaptive adversarial weight is measured."""
        return self.decoder.conv_out.spatial.weight

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors into `folder`; see `models.hub`."""
        save_pretrained(self, self.config, folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read such a folder; ValueError as `models.hub.from_pretrained`."""
        return from_pretrained(folder, TAEConfig, cls)


def inflate(image_autoencoder: ImageAutoencoder, temporal_factor: int = 8) -> TemporalAutoencoder:
    """A TAE with copies of the image autoencoder's weights and temporal layers that start as the identity."""
    parameter = next(image_autoencoder.parameters())
    tae = TemporalAutoencoder(TAEConfig(image_autoencoder.config, temporal_factor))
    result = tae.load_state_dict(image_autoencoder.state_dict(), strict=False)
    assert not result.unexpected_keys and all("temporal" in name for name in result.missing_keys)
    return tae.to(parameter.device, parameter.dtype).train(image_autoencoder.training)


def latent_size(config: TAEConfig, size: tuple[int, int, int]) -> tuple[int, int, int]:
    """The (T', H', W') of the latents of a video of (T, H, W)."""
    frames, height, width = size
    factor = config.image.spatial_factor
    return -(-frames // config.temporal_factor), -(-height // factor), -(-width // factor)


def _encode(encoder: Encoder, config: ImageAutoencoderConfig, video: Tensor, *, recompute: bool) -> Posterior:
    validate_video(video, config.channels, dtype=encoder.conv_in.spatial.weight.dtype)
    batch, _, frames, height, width = video.shape
    x = _to_frames(video)
    right, below = -width % config.spatial_factor, -height % config.spatial_factor
    if right or below:
        x = F.pad(x, (0, right, 0, below), mode="replicate")
    moments, _ = encoder(x, frames, recompute=recompute)
    mean, log_variance = _to_video(moments, batch).chunk(2, dim=1)
    return Posterior(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))


def _decode(
    decoder: Decoder,
    config: ImageAutoencoderConfig,
    temporal_factor: int,
    latents: Tensor,
    size: tuple[int, int, int] | None,
    *,
    recompute: bool,
) -> Tensor:
    validate_latents(latents, config.latent_channels, dtype=decoder.conv_in.spatial.weight.dtype)
    validate_size(latents, (temporal_factor, config.spatial_factor, config.spatial_factor), size)
    video = _to_video(decoder(_to_frames(latents), latents.shape[2], recompute=recompute)[0], latents.shape[0])
    if size is None:
        return video
    return video[:, :, : size[0], : size[1], : size[2]]


def validate_size(latents: Tensor, factors: tuple[int, int, int], size: tuple[int, int, int] | None) -> None:
    """ValueError unless a video of `size` (T, H, W) has latents of this shape, given the factors of compression."""
    given = tuple(latents.shape[2:])
    if size is None or (len(size) == 3 and given == tuple(-(-n // f) for n, f in zip(size, factors, strict=True))):
        return
    most = tuple(n * f for n, f in zip(given, factors, strict=True))
    raise ValueError(
        f"given size {size} for latents of (T', H', W') = {given}; expected (T, H, W) within one latent step below {most}; "
        "pass the (T, H, W) of the video that was encoded, or none to keep every frame and pixel"
    )


def _to_frames(video: Tensor) -> Tensor:
    """B C T H W -> B*T C H W in channels_last memory."""
    return video.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _to_video(frames: Tensor, batch: int) -> Tensor:
    """B*T C H W -> B C T H W."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2).contiguous()
