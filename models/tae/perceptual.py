"""Perceptual loss: distance of VGG-16 features in the LPIPS form, frame by frame.

Belongs here: the feature network, the distance and the reader of its weights file. Does not belong here: fetching that
file (`pipelines/weights.py`) and the weight of the loss (`training`).

The paper names a perceptual loss as in LDM and no details. The weights at hand on a package registry are the
shift-tolerant LPIPS ones (package stlpips-pytorch 0.0.2, file weights/vST0.0/vgg_shift_tolerant.pth, BSD-2): VGG-16 whose
pooling takes the maximum at every position and then a 3x3 binomial blur of stride 2, so that the distance changes little
when both videos shift by a pixel. The network below is that one; plain VGG-16 weights do not fit it in meaning.
"""

import os
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.hub import load_weights
from models.tae.checks import validate_axes

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # widths of VGG-16's convolutions
MIN_SIDE_PX = 32  # below it the last blur has nothing to reflect
UNIT_EPS = 1e-10


class PerceptualLoss(nn.Module):
    """Mean LPIPS distance of two videos. `weights` are the tensors of the file above, by the file's names.

    All weights are frozen; the gradient goes to the videos only. Raises ValueError where tensors are missing, unexpected
    or of another shape.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))
        self.stages = nn.ModuleList()
        before = 3
        for widths in STAGES:
            ins = (before, *widths[:-1])
            convs = [nn.Conv2d(i, o, 3, padding=1) for i, o in zip(ins, widths, strict=True)]
            self.stages.append(nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU()))))
            before = widths[-1]
        self.mixes = nn.ParameterList([torch.zeros(1, widths[-1], 1, 1) for widths in STAGES])
        load_weights(self, _own_names(weights), source="the perceptual weights")
        self.requires_grad_(False).eval()

    def features(self, frames: Tensor) -> list[Tensor]:
        """Frames B*T 3 H W in -1..1 -> the last activation of each of the five stages, unit length over channels."""
        x = (frames - self.shift) / self.scale
        found = []
        for index, stage in enumerate(self.stages):
            x = stage(x if index == 0 else _blur_pool(x))
            found.append(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + UNIT_EPS))
        return found

    def forward(self, reconstruction: Tensor, video: Tensor) -> Tensor:
        """Two videos B 3 T H W in -1..1, H and W from 32 px -> a scalar >= 0, the mean over frames of LPIPS."""
        for x in (reconstruction, video):
            validate_axes(x, "a video", 3, None)
        if reconstruction.shape != video.shape or min(video.shape[3:]) < MIN_SIDE_PX:
            raise ValueError(
                f"given videos of shapes {tuple(reconstruction.shape)} and {tuple(video.shape)}; expected equal shapes with "
                f"H and W from {MIN_SIDE_PX} px; decode with size=video.shape[2:], and train on larger crops"
            )
        ours, theirs = (self.features(x.transpose(1, 2).flatten(0, 1)) for x in (reconstruction, video))
        distances = [((a - b).square() * mix).sum(1).mean() for a, b, mix in zip(ours, theirs, self.mixes, strict=True)]
        return torch.stack(distances).sum()


def read_perceptual_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of `vgg_shift_tolerant.pth`. The file is a pickle, so it is opened with `weights_only=True`, which
    accepts tensors and plain containers and runs no code; anything else in it raises ValueError."""
    if not os.path.isfile(path):  # noqa: PTH113
        raise ValueError(f"no file {path}; expected vgg_shift_tolerant.pth of stlpips-pytorch 0.0.2; fetch the weights")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises at least five unrelated types on a foreign file
        raise ValueError(
            f"{path} is not a plain file of tensors ({type(error).__name__}); expected vgg_shift_tolerant.pth of "
            "stlpips-pytorch 0.0.2; fetch it again and check its digest"
        ) from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(
            f"{path} holds no mapping of names to tensors; expected vgg_shift_tolerant.pth; fetch it again"
        )
    return dict(weights)


def file_names() -> dict[str, str]:
    """Name in the weights file -> name in `PerceptualLoss`. The file counts VGG's layers through, two per pooling."""
    names = {"scaling_layer.shift": "shift", "scaling_layer.scale": "scale"}
    position = 0
    for stage, widths in enumerate(STAGES):
        for conv in range(len(widths)):
            for kind in ("weight", "bias"):
                names[f"net.slice{stage + 1}.{position}.{kind}"] = f"stages.{stage}.{2 * conv}.{kind}"
            position += 2  # the convolution and its ReLU
        position += 2  # maximum and blur
        names[f"lin{stage}.model.1.weight"] = f"mixes.{stage}"
    return names


def _own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = file_names()
    return {names.get(name, name): value for name, value in weights.items() if not name.endswith(".filt")}


def _blur_pool(x: Tensor) -> Tensor:
    """2x2 maximum at stride 1, two reflected pixels around, 3x3 binomial blur at stride 2."""
    x = F.pad(F.max_pool2d(x, 2, stride=1), (2, 2, 2, 2), mode="reflect")
    row = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    kernel = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, stride=2, groups=x.shape[1])
