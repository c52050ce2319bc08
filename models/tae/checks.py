"""What a video or a latent must look like on entry, and the error when it does not.

Belongs here: checks of tensors handed in by a caller. Does not belong here: checks of configurations (their dataclasses).

Values (range, NaN) are read with one `aminmax` over the tensor, one pass that also carries NaN and infinity out. On a GPU
that costs one synchronisation per call; it is paid, because a video in 0..255 or 0..1 trains without any error and wrongly.
Under torch.compile and on the meta device there are no values, so only shapes and dtypes are checked.
"""

import torch
from torch import Tensor

AXES = "B C T H W"
RANGE_SLACK = 1e-2  # bf16 and resizing filters overshoot 1 by this much; 0..255 or 0..2 data does not hide in it


def validate_video(video: Tensor, channels: int, *, dtype: torch.dtype | None = None) -> None:
    """ValueError unless `video` is B C T H W with `channels` channels, no empty axis, floating, finite, within -1..1.

    `dtype` is the dtype the network computes in; a video of another one is refused, except under autocast.
    """
    validate_axes(video, "video", channels, dtype)
    low, high = _extremes(video)
    if not (low >= -1 - RANGE_SLACK and high <= 1 + RANGE_SLACK):  # also false for NaN
        raise ValueError(
            f"given a video with values from {low:g} to {high:g}; expected finite values within -1..1; "
            "scale it (for uint8: video / 127.5 - 1) and drop or repair clips with NaN"
        )


def validate_latents(latents: Tensor, channels: int, *, dtype: torch.dtype | None = None) -> None:
    """ValueError unless `latents` are B C T' H' W' with `channels` channels, no empty axis, floating and finite."""
    validate_axes(latents, "latents", channels, dtype)
    low, high = _extremes(latents)
    if not (low > -float("inf") and high < float("inf")):
        raise ValueError(
            f"given latents with values from {low:g} to {high:g}; expected finite ones; look for the step that made "
            "them NaN or infinite (a too high learning rate, fp16 overflow)"
        )


def validate_axes(x: Tensor, what: str, channels: int, dtype: torch.dtype | None) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"given {what} as {type(x).__name__}; expected a torch.Tensor {AXES}; convert it first")
    shape = tuple(x.shape)
    if x.ndim != 5:
        raise ValueError(
            f"given {what} of rank {x.ndim}, shape {shape}; expected rank 5, {AXES}; an image is a video of one frame: "
            "image[:, :, None]"
        )
    if x.shape[1] != channels:
        raise ValueError(
            f"given {what} with {x.shape[1]} channels, shape {shape}; expected {channels} on axis 1 of {AXES}; permute "
            "the axes or take the matching configuration"
        )
    if 0 in shape:
        raise ValueError(f"given {what} of shape {shape} with an empty axis; expected at least 1 on each of {AXES}")
    if not x.is_floating_point():
        raise ValueError(f"given {what} of dtype {x.dtype}; expected floating point; for uint8: video / 127.5 - 1")
    if dtype is not None and x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"given {what} of dtype {x.dtype}; expected {dtype}, the dtype of the weights; use {what}.to({dtype}) or "
            "convert the model"
        )


def _extremes(x: Tensor) -> tuple[float, float]:
    """Smallest and largest value, both NaN if any is; (0, 0) where values cannot be looked at."""
    if x.is_meta or torch.compiler.is_compiling():
        return 0.0, 0.0
    low, high = torch.stack(torch.aminmax(x.detach())).tolist()
    return low, high
