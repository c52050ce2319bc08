"""Shared by the TAE's tests: a real clip, and a tiny TAE trained on it once."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.tae.autoencoder import TAE_TINY, TemporalAutoencoder

STEPS, WARM_UP_STEPS, LEARNING_RATE = 100, 20, 1e-3


@pytest.fixture(scope="session")
def bikes_path(samples: Path) -> Path:
    """A 10 s video of a city, 640x272, 25 frames/s."""
    return samples / "bikes.mp4"


@pytest.fixture(scope="session")
def perceptual_weights_path(weights_path: Callable[[str], Path]) -> Path:
    """The LPIPS VGG-16 weights, 59 MB."""
    return weights_path("stlpips-vgg")


@pytest.fixture(scope="session")
def bikes(bikes_path: Path) -> Tensor:
    """The first 64 frames of bikes.mp4, 64 px square at x 448, y 192, not scaled: 1 3 64 64 64, -1..1.

    Trivial baselines on the first 16 frames: the clip's mean colour 15.2 dB, average pooling by 8x8x8 with trilinear
    upsampling 25.8 dB. Squares of fine low-contrast texture are much harder (docs/models/tae.md has a figure).
    """
    import av

    frames = []
    with av.open(str(bikes_path)) as container:
        for frame in container.decode(video=0):
            frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24"))[192:256, 448:512])
            if len(frames) == 64:
                break
    return (torch.stack(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1).contiguous()


@pytest.fixture(scope="session")
def bikes_clip(bikes: Tensor) -> Tensor:
    """The first 16 frames of it: 1 3 16 64 64."""
    return bikes[:, :, :16].contiguous()


@pytest.fixture(scope="session")
def trained_tae(bikes_clip: Tensor) -> TemporalAutoencoder:
    """TAE tiny after 100 steps on one clip: L1 + L2, Adam, rate 1e-3 after 20 warm-up steps, cosine to zero."""
    torch.manual_seed(0)
    tae = TemporalAutoencoder(TAE_TINY).train()
    optimizer = torch.optim.Adam(tae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    for step in range(STEPS):
        rate = min(1, (step + 1) / WARM_UP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * step / STEPS))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        error = tae(bikes_clip)[0] - bikes_clip
        optimizer.zero_grad()
        (error.abs().mean() + error.square().mean()).backward()
        optimizer.step()
    return tae.eval()
