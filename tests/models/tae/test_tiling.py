"""Tiles against the whole: exact where no context is missing, close on a trained network, seamless."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.tae.autoencoder import ImageAutoencoderConfig, TAEConfig, TemporalAutoencoder
from models.tae.tiling import Tiling, decode_tiled, encode_tiled, fade, spans

MINI = TAEConfig(ImageAutoencoderConfig(widths=(8, 8, 16, 16), blocks_per_level=1, norm_groups=4))
WHOLE_FRAMES = Tiling()


def _psnr_db(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / (a - b).square().mean().item())


def _mini(*, is_shaken: bool) -> TemporalAutoencoder:
    torch.manual_seed(0)
    tae = TemporalAutoencoder(MINI).eval()
    if is_shaken:
        with torch.no_grad():
            for parameter in tae.temporal_parameters().values():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return tae


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 6))
def test_spans_cover_everything_and_fades_always_sum_to_one(length: int, tile: int, overlap: int) -> None:
    axis = spans(length, tile, min(overlap, tile // 2))
    total = torch.zeros(length)
    for index, (start, end) in enumerate(axis):
        assert 0 < end - start <= tile
        total[start:end] += fade(axis, index, device=total.device, dtype=total.dtype)
    torch.testing.assert_close(total, torch.ones(length))
    assert all(end < next_end for (_, end), (_, next_end) in itertools.pairwise(axis))


def test_a_fade_goes_from_the_tile_before_to_the_tile_after() -> None:
    axis = spans(6, 4, 2)
    assert axis == [(0, 4), (2, 6)]
    assert fade(axis, 0, device=torch.device("cpu"), dtype=torch.float32).tolist() == [1, 1, 1, 0.5]
    assert fade(axis, 1, device=torch.device("cpu"), dtype=torch.float32).tolist() == [0, 0.5, 1, 1]


@pytest.mark.parametrize("frames", [1, 9, 32])
def test_one_tile_is_the_whole(frames: int) -> None:
    tae, video = _mini(is_shaken=True), torch.rand(1, 3, frames, 20, 16) * 2 - 1
    with torch.no_grad():
        tiled, whole = encode_tiled(tae, video), tae.encode(video)
        assert torch.equal(tiled.mean, whole.mean)
        assert torch.equal(tiled.log_variance, whole.log_variance)
        size = (frames, 20, 16)
        assert torch.equal(decode_tiled(tae, whole.mean, size), tae.decode(whole.mean, size))


@pytest.mark.parametrize("frames", [33, 64, 71])
def test_the_encoder_is_exact_where_temporal_layers_look_at_no_neighbour(frames: int) -> None:
    tae, video = _mini(is_shaken=False), torch.rand(1, 3, frames, 16, 16) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(encode_tiled(tae, video).mean, tae.encode(video).mean, atol=1e-5, rtol=1e-5)


def test_the_encoder_is_exact_where_a_tiles_repeated_end_frames_are_what_follows() -> None:
    tae = _mini(is_shaken=True)
    video = (torch.rand(1, 3, 1, 16, 16) * 2 - 1).expand(1, 3, 70, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(encode_tiled(tae, video).mean, tae.encode(video).mean, atol=1e-5, rtol=1e-5)


def test_the_encoder_is_exact_on_latents_whose_window_lies_inside_their_tile() -> None:
    torch.manual_seed(0)
    config = TAEConfig(
        ImageAutoencoderConfig(widths=(8, 8, 8, 8), blocks_per_level=1, norm_groups=4, has_attention=False)
    )
    tae, video = TemporalAutoencoder(config).eval(), torch.rand(1, 3, 512, 8, 8) * 2 - 1
    with torch.no_grad():
        for parameter in tae.temporal_parameters().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
        whole, tiled = tae.encode(video).mean, encode_tiled(tae, video, Tiling(frames=256)).mean
    differs = ((whole - tiled).abs() > 1e-5).any(dim=(0, 1)).flatten(1).any(1).tolist()
    assert not any(differs[:22]) and not any(differs[42:])  # the window is 10 latent frames to each side of frame 256
    assert any(differs[22:42])


@pytest.mark.slow
@pytest.mark.xdist_group("trained_tae")
def test_decoding_a_trained_tiny_tae_in_tiles_is_within_45_db_of_the_whole(
    trained_tae: TemporalAutoencoder, bikes: Tensor
) -> None:
    with torch.no_grad():
        latents = trained_tae.encode(bikes).mean
        whole, tiled = trained_tae.decode(latents), decode_tiled(trained_tae, latents)
    assert _psnr_db(tiled, whole) >= 45
    by_frame = [_psnr_db(tiled[:, :, t], whole[:, :, t]) for t in range(whole.shape[2])]
    assert min(by_frame) >= 40  # no frame is a seam


@pytest.mark.slow
@pytest.mark.xdist_group("trained_tae")
def test_tiling_in_space_is_within_25_db_of_the_whole_and_its_error_has_no_edge(
    trained_tae: TemporalAutoencoder, bikes_clip: Tensor
) -> None:
    """Normalisation and attention see a tile only, so space is an approximation, worst on frames as small as these."""
    with torch.no_grad():
        latents = trained_tae.encode(bikes_clip).mean
        whole = trained_tae.decode(latents)
        tiled = decode_tiled(trained_tae, latents, tiling=Tiling(side_px=48, overlap_px=24))
    assert _psnr_db(tiled, whole) >= 25
    assert _column_steps(tiled - whole).max() <= 2 * _column_steps(whole).mean()


def _column_steps(video: Tensor) -> Tensor:
    """Mean absolute difference from each column of pixels to the next: W-1 values."""
    return (video[..., 1:] - video[..., :-1]).abs().mean((0, 1, 2, 3))


def test_sizes_of_tiles_need_not_divide_the_video() -> None:
    tae, tiling = _mini(is_shaken=True), Tiling(frames=16, decode_overlap_frames=8, side_px=32, overlap_px=16)
    video = torch.rand(2, 3, 37, 50, 41) * 2 - 1
    with torch.no_grad():
        posterior = encode_tiled(tae, video, tiling)
        assert posterior.mean.shape == tae.encode(video).mean.shape
        assert decode_tiled(tae, posterior.mean, (37, 50, 41), tiling).shape == video.shape


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tiling(frames=0),
        lambda: Tiling(decode_overlap_frames=24),
        lambda: Tiling(side_px=64, overlap_px=-8),
        lambda: Tiling(side_px=0),
        lambda: encode_tiled(_mini(is_shaken=False), torch.zeros(1, 3, 9, 16, 16), Tiling(frames=20)),
        lambda: decode_tiled(
            _mini(is_shaken=False), torch.zeros(1, 16, 2, 2, 2), None, Tiling(side_px=20, overlap_px=8)
        ),
        lambda: encode_tiled(_mini(is_shaken=False), torch.zeros(3, 9, 16, 16)),
        lambda: decode_tiled(_mini(is_shaken=False), torch.zeros(1, 4, 2, 2, 2)),
        lambda: decode_tiled(_mini(is_shaken=False), torch.zeros(1, 16, 2, 2, 2), (40, 16, 16)),
    ],
)
def test_impossible_tiles_and_wrong_tensors_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()  # type: ignore[operator]
