"""Losses on pixels and latents, above all the outlier penalty against a naive reading of the paper's equation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.tae.autoencoder import Posterior
from models.tae.losses import kl_loss, outlier_penalty, outlier_weight, reconstruction_loss


def _naive_penalty(latents: Tensor, radius: float) -> float:
    """1/(HW) sum_ij max(||X_ij - Mean(X)|| - r ||Std(X)||, 0), one number at a time; frames averaged."""
    batch, channels, frames, height, width = latents.shape
    total = 0.0
    for b in range(batch):
        for t in range(frames):
            x = latents[b, :, t].tolist()
            places = [(i, j) for i in range(height) for j in range(width)]
            mean = [sum(x[c][i][j] for i, j in places) / len(places) for c in range(channels)]
            std = [
                math.sqrt(sum((x[c][i][j] - mean[c]) ** 2 for i, j in places) / len(places)) for c in range(channels)
            ]
            bound = radius * math.sqrt(sum(s * s for s in std))
            excess = 0.0
            for i, j in places:
                distance = math.sqrt(sum((x[c][i][j] - mean[c]) ** 2 for c in range(channels)))
                excess += max(distance - bound, 0.0)
            total += excess / len(places)
    return total / (batch * frames)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, n) for n in (2, 5, 3, 5, 5)]),
    st.floats(0, 3),
    st.integers(0, 2**31),
)
def test_the_outlier_penalty_equals_a_naive_loop_of_the_equation(
    shape: tuple[int, ...], radius: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(shape, generator=generator) ** 3  # heavy tails, so that the bound is passed
    given_penalty = outlier_penalty(latents, radius).item()
    assert given_penalty == pytest.approx(_naive_penalty(latents, radius), rel=1e-4, abs=1e-5)


def test_the_outlier_penalty_is_zero_on_well_behaved_latents() -> None:
    assert outlier_penalty(torch.randn(2, 16, 3, 16, 16) * 5 + 2) == 0
    assert outlier_penalty(torch.zeros(1, 16, 1, 1, 1)) == 0
    assert outlier_penalty(torch.full((1, 4, 2, 3, 3), 7.0)) == 0


def _with_a_dot() -> Tensor:
    latents = torch.randn(2, 16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents[1, :, 2, 5, 6] += 20
    return latents.requires_grad_()


def test_the_outlier_penaltys_gradient_pulls_only_the_outlier_and_towards_the_mean() -> None:
    latents = _with_a_dot()
    penalty = outlier_penalty(latents)
    assert penalty > 0
    (gradient,) = torch.autograd.grad(penalty, latents)
    moved = gradient.abs().sum(1) > 0
    assert moved.nonzero().tolist() == [[1, 2, 5, 6]]
    with_mean = latents.detach()
    to_mean = with_mean[1, :, 2].mean((1, 2)) - with_mean[1, :, 2, 5, 6]
    assert torch.cosine_similarity(-gradient[1, :, 2, 5, 6], to_mean, dim=0) == pytest.approx(1, abs=1e-5)


def test_descending_the_outlier_penalty_removes_the_dot_and_leaves_the_rest() -> None:
    latents = _with_a_dot()
    before = latents.detach().clone()
    optimizer = torch.optim.SGD([latents], lr=1.0 * 2 * 3 * 16 * 16)  # the mean's denominator: steps of length 1
    for _ in range(80):
        optimizer.zero_grad()
        outlier_penalty(latents).backward()
        optimizer.step()
    assert outlier_penalty(latents) < 1e-3
    moved = (latents.detach() - before).abs().sum(1) > 0
    assert moved.nonzero().tolist() == [[1, 2, 5, 6]]


def test_the_outlier_penalty_is_computed_in_fp32_whatever_the_latents() -> None:
    latents = _with_a_dot().detach()
    half = outlier_penalty(latents.bfloat16())
    assert half.dtype == torch.float32
    assert half == pytest.approx(outlier_penalty(latents).item(), rel=1e-2)


def test_the_paper_weight_is_rescaled_to_mean_reduced_losses() -> None:
    assert outlier_weight(256, 256) == pytest.approx(0.5086, abs=1e-4)


def test_kl_equals_torchs_own_and_is_zero_at_the_standard_normal() -> None:
    mean, log_variance = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_loss(Posterior(mean, log_variance)), expected)
    assert kl_loss(Posterior(torch.zeros(3), torch.zeros(3))) == 0


def test_reconstruction_is_the_mean_absolute_difference() -> None:
    video = torch.full((1, 3, 2, 4, 4), -1.0)
    assert reconstruction_loss(-video, video) == 2
    assert reconstruction_loss(video, video) == 0
    with pytest.raises(ValueError, match="equal shapes"):
        reconstruction_loss(video[:, :, :1], video)


@pytest.mark.parametrize("latents", [torch.zeros(16, 4, 4), torch.zeros(1, 16, 0, 4, 4), torch.zeros(3)])
def test_latents_of_another_form_are_refused(latents: Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        outlier_penalty(latents)
