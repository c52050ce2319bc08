"""Promises of the upsampler: it starts as the model it came from, and long videos show no window."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models import flow
from models.dit import DiT, DiTConfig
from models.dit.positions import extend_positions
from models.text import TextFeatures
from models.upsampler import conditioned_velocity, upsampler_from, window_spans, windowed_velocity

IMAGE_MODEL = DiTConfig(
    depth=2, width=32, ffn_width=48, heads=2, text_widths=(8,), in_channels=4, out_channels=4, max_frames=1,
    max_rows=4, max_columns=4,
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text_to_image_model() -> DiT:
    model = DiT(IMAGE_MODEL)
    model.init_weights(seeded())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(1)), alpha=0.05)
    return model


def upsampler() -> DiT:
    return upsampler_from(extend_positions(text_to_image_model(), generator=seeded(), frames=14), condition_channels=4)


TEXT = [TextFeatures(torch.randn(1, 3, 8, generator=seeded(2)), torch.ones(1, 3, dtype=torch.bool))]


@torch.no_grad()
def test_a_new_upsampler_answers_as_its_image_model_whatever_the_degraded_input() -> None:
    image_model, model = text_to_image_model(), upsampler()
    x, t = torch.randn(1, 4, 1, 8, 8, generator=seeded(3)), torch.tensor([0.4])
    expected = image_model(x, t, TEXT)
    for seed in (4, 5):
        degraded = 10 * torch.randn(x.shape, generator=seeded(seed))
        torch.testing.assert_close(conditioned_velocity(model, TEXT)(x, t, degraded), expected, rtol=1e-5, atol=1e-6)


def test_training_moves_the_new_weights_from_zero() -> None:
    model = upsampler()
    x, degraded = torch.randn(2, 1, 4, 14, 4, 4, generator=seeded(3)).unbind(0)
    conditioned_velocity(model, TEXT)(x, torch.tensor([0.4]), degraded).square().mean().backward()
    gradient = model.patch.weight.grad
    assert not model.patch.weight[:, 16:].any()
    assert gradient[:, 16:].abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 9, 14])
def test_a_video_that_fits_gives_bit_for_bit_what_one_window_gives(frames: int) -> None:
    model = upsampler()
    noise, degraded = torch.randn(2, 1, 4, frames, 4, 4, generator=seeded(3)).unbind(0)
    velocity = conditioned_velocity(model, TEXT)
    times = flow.linear_times(4)
    for solver in (flow.euler, flow.heun):
        windowed = solver(windowed_velocity(velocity, degraded), noise, times)
        assert torch.equal(windowed, solver(lambda x, t: velocity(x, t, degraded), noise, times))


@torch.no_grad()
def test_a_longer_video_is_the_weighted_mean_of_its_windows_at_each_step() -> None:
    velocity = conditioned_velocity(upsampler(), TEXT)
    x, degraded = torch.randn(2, 1, 4, 20, 4, 4, generator=seeded(3)).unbind(0)
    t = torch.tensor([0.3])
    first = velocity(x[:, :, 0:14], t, degraded[:, :, 0:14])
    last = velocity(x[:, :, 6:20], t, degraded[:, :, 6:20])
    out = windowed_velocity(velocity, degraded)(x, t)
    torch.testing.assert_close(out[:, :, :6], first[:, :, :6])
    torch.testing.assert_close(out[:, :, 14:], last[:, :, 8:])
    # the last window is moved back, so these two share eight frames: ramps of 1/5 ... 4/5, full in between
    down = torch.tensor([1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    share = (down / (down + down.flip(0)))[:, None, None]
    torch.testing.assert_close(out[:, :, 6:14], share * first[:, :, 6:] + (1 - share) * last[:, :, :8])


def same_everywhere(x: Tensor, t: Tensor, degraded: Tensor) -> Tensor:
    """The exact velocity of a model whose videos are the degraded one plus one number per video, drawn from N(0, 1).

    The hardest case for windows: nothing in the degraded input tells what the number is, so each window finds its own in
    its own noise. Linear and Gaussian, hence in closed form: along the mean variance 1, across it none.
    """
    at, keep = t[:, None, None, None, None], 1 - flow.SIGMA_MIN
    noise_share = 1 - keep * at
    count = x[0].numel()
    rest = x - at * degraded
    mean = rest.mean(dim=(1, 2, 3, 4), keepdim=True)
    along = (at - keep * noise_share / count) / (at**2 + noise_share**2 / count) * mean
    return degraded + along - keep / noise_share * (rest - mean)


def largest_step(video: Tensor) -> float:
    """The stated measure of a seam: the largest step of brightness between neighbouring frames."""
    brightness = video.mean(dim=(0, 1, 3, 4))
    return brightness.diff().abs().max().item()


def test_a_longer_video_shows_no_seam_where_windows_disagree() -> None:
    steps: dict[int, list[float]] = {0: [], 4: []}
    for seed in range(8):
        noise = torch.randn(1, 4, 64, 4, 4, generator=seeded(seed), dtype=torch.float64)
        for overlap, found in steps.items():
            velocity = windowed_velocity(same_everywhere, torch.zeros_like(noise), overlap_frames=overlap)
            found.append(largest_step(flow.euler(velocity, noise, flow.linear_quadratic_times(20))))
    # measured over these eight: 1.73 on average without overlap, 0.12 with (1 is the deviation windows disagree by)
    assert math.fsum(steps[0]) / 8 > 1.0
    assert math.fsum(steps[4]) / 8 < 0.2 and max(steps[4]) < 0.3, steps


@given(st.integers(1, 200), st.integers(1, 20), st.data())
def test_windows_cover_every_frame_and_neighbours_share_the_overlap(frames: int, window: int, data) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    spans = window_spans(frames, window, overlap)
    assert {frame for start, end in spans for frame in range(start, end)} == set(range(frames))
    assert all(end - start == min(window, frames) for start, end in spans)
    assert all(a[1] - b[0] >= overlap and b[0] > a[0] for a, b in itertools.pairwise(spans))


def test_bad_input_is_refused_with_the_mend() -> None:
    x, t = torch.zeros(1, 4, 2, 4, 4), torch.zeros(1)
    velocity = conditioned_velocity(upsampler(), TEXT)
    with pytest.raises(ValueError, match="scale the degraded video"):
        velocity(x, t, torch.zeros(1, 4, 2, 2, 2))
    with pytest.raises(ValueError, match="scale the degraded video"):
        windowed_velocity(velocity, torch.zeros(1, 4, 3, 4, 4))(x, t)
    with pytest.raises(ValueError, match=r"7 channels; expected 8"):
        velocity(x, t, torch.zeros(1, 3, 2, 4, 4))
    with pytest.raises(ValueError, match="overlap from 0 to below the window"):
        windowed_velocity(velocity, x, window_frames=4, overlap_frames=4)
    with pytest.raises(ValueError, match="at least 1"):
        upsampler_from(text_to_image_model(), 0)
