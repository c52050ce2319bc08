"""What the transformer accepts, said before it computes: every refusal names what came, what fits and the mend."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.dit.config import LATENT_SCALE_PX, PATCH, DiTConfig
from models.text.features import TextFeatures

AXES = {4: "(C, T, H, W)", 5: "(B, C, T, H, W)"}


def check_latents(latents: Tensor, config: DiTConfig, *, rank: int) -> None:
    """ValueError unless `latents` is a finite float tensor of `rank` axes that the configuration's tables cover."""
    shape = tuple(latents.shape)
    if latents.ndim != rank:
        raise ValueError(
            f"given latents of shape {shape}; expected {rank} axes {AXES[rank]}; an image is a video of one frame: "
            "add the missing axis with unsqueeze"
        )
    if not latents.is_floating_point():
        raise ValueError(f"given latents of {latents.dtype}; expected a floating dtype; encode the video with the TAE")
    channels, frames, height, width = shape[-4:]
    if channels != config.in_channels:
        raise ValueError(
            f"given latents {shape} with {channels} channels; expected {config.in_channels}, {AXES[rank]}; "
            "use the autoencoder this model was trained with, or a model configured for these channels"
        )
    if 0 in shape:
        raise ValueError(f"given empty latents {shape}; expected at least one of each axis; drop the sample")
    if height % PATCH or width % PATCH:
        raise ValueError(
            f"given latents of {height} x {width}; expected even height and width (patches are {PATCH} x {PATCH}); "
            f"crop the video to multiples of {PATCH * LATENT_SCALE_PX} pixels"
        )
    given = (frames, height // PATCH, width // PATCH)
    most = (config.max_frames, config.max_rows, config.max_columns)
    if any(g > m for g, m in zip(given, most, strict=True)):
        raise ValueError(
            f"given {given} patches in time, height, width; expected at most {most}, the model's position tables; "
            "grow them with models.dit.positions, or give a smaller video"
        )
    _check_finite(latents, "latents")


def check_packed(latents: list[Tensor], config: DiTConfig) -> None:
    """`check_latents` for each video of a packed batch, which must not be empty."""
    if not latents:
        raise ValueError("given an empty list of latents; expected at least one video (C, T, H, W); drop the batch")
    for video in latents:
        check_latents(video, config, rank=4)


def check_batch(batch: int, t: Tensor, text: Sequence[TextFeatures], config: DiTConfig) -> None:
    """ValueError unless `t` and `text` belong to `batch` samples and to the configuration's encoders."""
    if t.shape != (batch,) or not t.is_floating_point():
        raise ValueError(
            f"given t of shape {tuple(t.shape)} and {t.dtype}; expected floats of shape ({batch},), one time per video; "
            "use t.expand(batch) for a common time"
        )
    if t.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"given t from {t.min()} to {t.max()}; expected 0 (noise) to 1 (data); rescale the time")
    if len(text) != len(config.text_widths):
        raise ValueError(
            f"given features of {len(text)} text encoders; expected {len(config.text_widths)}, of widths "
            f"{config.text_widths}; encode with the encoders of this model"
        )
    for features, width in zip(text, config.text_widths, strict=True):
        _check_text(features, batch, width)


def _check_text(text: TextFeatures, batch: int, width: int) -> None:
    shape = tuple(text.features.shape)
    if len(shape) != 3 or shape[0] != batch or shape[2] != width:
        raise ValueError(
            f"given text features {shape}; expected ({batch}, tokens, {width}); encode one prompt per video, with this "
            "model's encoders in the order of its text_widths"
        )
    if text.mask.shape != shape[:2] or text.mask.dtype != torch.bool:
        raise ValueError(
            f"given a text mask {tuple(text.mask.shape)} of {text.mask.dtype}; expected bool {shape[:2]}, True where a "
            "token is real; convert it with .bool()"
        )
    _check_finite(text.features, "text features")


def _check_finite(x: Tensor, what: str) -> None:
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(torch.isfinite(x).all()):
        raise ValueError(f"given {what} {tuple(x.shape)} with NaN or infinity; expected finite values; drop the sample")
