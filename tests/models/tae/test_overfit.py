"""The whole TAE learns: one real clip in 100 steps. The same trained network serves the tiling tests."""

import copy
import math

import pytest
import torch
from torch import Tensor

from models.tae.autoencoder import TemporalAutoencoder


def _psnr_db(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / (a - b).square().mean().item())


@pytest.mark.slow
@pytest.mark.xdist_group("trained_tae")
def test_tae_tiny_overfits_one_real_clip_to_30_db_in_100_steps(
    trained_tae: TemporalAutoencoder, bikes_clip: Tensor
) -> None:
    with torch.no_grad():
        reconstruction, _ = trained_tae(bikes_clip)
    assert reconstruction.shape == (1, 3, 16, 64, 64)
    assert _psnr_db(reconstruction, bikes_clip) >= 30


@pytest.mark.slow
@pytest.mark.xdist_group("trained_tae")
def test_bf16_agrees_with_fp32_to_40_db_on_the_trained_tae(
    trained_tae: TemporalAutoencoder, bikes_clip: Tensor
) -> None:
    half = copy.deepcopy(trained_tae).bfloat16()
    with torch.no_grad():
        full = trained_tae(bikes_clip)[0]
        assert _psnr_db(half(bikes_clip.bfloat16())[0].float(), full) >= 40
        with torch.autocast("cpu", torch.bfloat16):
            mixed = trained_tae(bikes_clip)[0]
    assert _psnr_db(mixed.float(), full) >= 40
