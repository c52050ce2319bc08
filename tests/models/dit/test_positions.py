"""Promises of the growth between stages: old positions keep their function."""

import dataclasses

import pytest
import torch

from models.dit.positions import extend_positions, stretch_positions

from .helpers import SMALL, latents, seeded, text_for, trained


@torch.no_grad()
@pytest.mark.parametrize("factor", [2, 3])
def test_extending_keeps_every_output_on_the_old_range_bit_for_bit(factor: int) -> None:
    old = trained()
    new = extend_positions(old, generator=seeded(0), frames=9, rows=8 * factor, columns=8 * factor)
    t, text = torch.tensor([0.4]), text_for([3])
    for shape in [(1, 4, 4), (4, 16, 16), (3, 6, 10)]:
        x = latents(1, 16, *shape)
        assert torch.equal(new(x, t, text), old(x, t, text))
    assert new(latents(1, 16, 9, 16 * factor, 2), t, text).isfinite().all()  # and the new range is usable


@torch.no_grad()
def test_an_image_model_gains_time_without_changing_its_images() -> None:
    image_model = trained(dataclasses.replace(SMALL, max_frames=1))
    video_model = extend_positions(image_model, generator=seeded(0), frames=32)
    x, t, text = latents(1, 16, 1, 8, 8), torch.tensor([0.4]), text_for([3])
    assert torch.equal(video_model(x, t, text), image_model(x, t, text))
    still = x.expand(-1, -1, 4, -1, -1)
    out = video_model(still, t, text)
    assert (out[:, :, 0] - out[:, :, 3]).abs().max() > 1e-4  # frames are told apart from the first step


@torch.no_grad()
@pytest.mark.parametrize("factor", [2, 3])
def test_stretching_keeps_the_function_of_a_place_at_the_finer_scale(factor: int) -> None:
    old = trained()
    new = stretch_positions(old, factor)
    assert new.config.max_rows == 8 * factor and new.config.max_frames == SMALL.max_frames
    # the same network asked at every factor-th position of its table answers as the old one did
    asked = trained()
    asked.load_state_dict(
        new.state_dict()
        | {f"positions.{axis}": new.state_dict()[f"positions.{axis}"][::factor] for axis in ("height", "width")}
    )
    x, t, text = latents(1, 16, 4, 16, 16), torch.tensor([0.4]), text_for([3])
    assert torch.equal(asked(x, t, text), old(x, t, text))
    between = new.positions.height[1]
    low, high = old.positions.height[0], old.positions.height[1]
    torch.testing.assert_close(between, low + (high - low) / factor)


def test_growing_leaves_the_given_network_as_it_is() -> None:
    old = trained()
    new = extend_positions(old, generator=seeded(0), rows=16)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), trained().parameters(), strict=True))
    assert new.training == old.training and all(p.requires_grad for p in new.parameters())


def test_shrinking_and_senseless_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="lose trained rows"):
        extend_positions(trained(), generator=seeded(0), rows=4)
    for factor in (0, 1.5):
        with pytest.raises(ValueError, match="whole number"):
            stretch_positions(trained(), factor)
