"""The spatial upsampler: a transformer that also reads the degraded video, and windows for long ones (paper, spatial upsampling).

Belongs here: making such a network from a text-to-image one, its velocity given a degraded video, and MultiDiffusion over
windows in time. Does not belong here: the frame-wise image autoencoder, making degraded inputs for training, solvers.

Frames here are latent frames; the image autoencoder is frame-wise, so they are also the video's frames.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.dit.config import PATCH
from models.dit.model import DiT
from models.flow import Velocity
from models.text.features import TextFeatures

WINDOW_FRAMES = 14
"""Frames per window, the length the paper trains on."""
OVERLAP_FRAMES = 4
"""Frames that neighbouring windows share."""

ConditionedVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (B, C, T, H, W), t (B,), degraded (B, C', T, H, W)) -> dx/dt (B, C, T, H, W)."""


def upsampler_from(model: DiT, condition_channels: int) -> DiT:
    """A copy of `model` that reads `condition_channels` more channels, the new input weights zero.

    It gives exactly what `model` gives, whatever the new channels hold, until training moves them. Grow its table in time
    to 14 frames with `models.dit.positions.extend_positions` where it comes from an image model.
    """
    if condition_channels < 1:
        raise ValueError(
            f"given {condition_channels} condition channels; expected at least 1, those of the degraded latents"
        )
    config = dataclasses.replace(model.config, in_channels=model.config.in_channels + condition_channels)
    with torch.device("meta"):
        grown = DiT(config)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # patch tokens run channel, row, column, so new channels are new columns at the end
    old = state["patch.weight"]
    state["patch.weight"] = torch.cat([old, old.new_zeros(len(old), condition_channels * PATCH * PATCH)], dim=1)
    grown.load_state_dict(state, strict=True, assign=True)
    return grown.train(model.training)


def conditioned_velocity(model: DiT, text: Sequence[TextFeatures]) -> ConditionedVelocity:
    """The velocity of an upsampler: noise and degraded video joined on channels, one `text` for all windows."""

    def velocity(x: Tensor, t: Tensor, degraded: Tensor) -> Tensor:
        _check_degraded(x, degraded)
        out = model(torch.cat([x, degraded], dim=1), t, text)
        assert isinstance(out, Tensor)  # one tensor in, one out
        return out

    return velocity


def windowed_velocity(
    velocity: ConditionedVelocity,
    degraded: Tensor,
    *,
    window_frames: int = WINDOW_FRAMES,
    overlap_frames: int = OVERLAP_FRAMES,
) -> Velocity:
    """MultiDiffusion: the velocity of a video of any length, for any solver of `models.flow`.

    Each evaluation runs `velocity` on every window and averages where windows meet, weights rising linearly over the
    overlap; under Euler that is the weighted average of overlapping latents at each step. A video that fits into one window
    is passed through untouched. Memory is that of one window plus one float32 sum of the whole video.
    """
    spans = window_spans(degraded.shape[2], window_frames, overlap_frames)

    def whole(x: Tensor, t: Tensor) -> Tensor:
        _check_degraded(x, degraded)
        if len(spans) == 1:
            return velocity(x, t, degraded)
        total = torch.zeros_like(x, dtype=torch.float32)
        weights = torch.zeros(x.shape[2], 1, 1, device=x.device)
        for start, end in spans:
            weight = _ramp(end - start, overlap_frames, x.device)[:, None, None]
            total[:, :, start:end] += weight * velocity(x[:, :, start:end], t, degraded[:, :, start:end])
            weights[start:end] += weight
        return (total / weights).to(x.dtype)

    return whole


def window_spans(frames: int, window_frames: int, overlap_frames: int) -> list[tuple[int, int]]:
    """Half-open spans that cover `frames`, each of `window_frames`, the last moved back to end with the video."""
    if frames < 1 or not 0 <= overlap_frames < window_frames:
        raise ValueError(
            f"given {frames} frames, windows of {window_frames} with overlap {overlap_frames}; expected at least one frame "
            "and an overlap from 0 to below the window; the paper has 14 and 4"
        )
    if frames <= window_frames:
        return [(0, frames)]
    last = frames - window_frames
    starts = [*range(0, last, window_frames - overlap_frames), last]
    return [(start, start + window_frames) for start in starts]


def _ramp(frames: int, overlap_frames: int, device: torch.device) -> Tensor:
    """(frames,) weights: 1 in the middle, falling linearly over the overlap at both ends, never zero."""
    place = torch.arange(frames, device=device, dtype=torch.float32)
    to_edge = torch.minimum(place, frames - 1 - place) + 1
    return (to_edge / (overlap_frames + 1)).clamp(max=1.0)


def _check_degraded(x: Tensor, degraded: Tensor) -> None:
    same = [0, 2, 3, 4]
    if x.ndim != 5 or degraded.ndim != 5 or any(x.shape[i] != degraded.shape[i] for i in same):
        raise ValueError(
            f"given latents {tuple(x.shape)} and degraded ones {tuple(degraded.shape)}; expected (B, C, T, H, W) alike but "
            "for C; scale the degraded video to the output size in pixels before encoding it"
        )
