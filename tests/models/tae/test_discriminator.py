"""The patch discriminator, hinge losses and the adaptive weight."""

import pytest
import torch

from models.tae.autoencoder import ImageAutoencoderConfig, TAEConfig, TemporalAutoencoder
from models.tae.discriminator import (
    DiscriminatorConfig,
    VideoDiscriminator,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
)

TINY = DiscriminatorConfig(widths=(8, 16, 16), norm_groups=4)


@pytest.mark.parametrize(
    ("size", "logits"), [((1, 8, 8), (1, 1, 1)), ((9, 16, 24), (2, 2, 3)), ((17, 37, 8), (3, 4, 1))]
)
def test_a_logit_stands_for_a_block_of_any_video_or_image(
    size: tuple[int, int, int], logits: tuple[int, int, int]
) -> None:
    assert VideoDiscriminator(TINY)(torch.zeros(2, 3, *size)).shape == (2, 1, *logits)


def test_the_default_configuration_has_the_size_of_ldms() -> None:
    with torch.device("meta"):
        network = VideoDiscriminator(DiscriminatorConfig())
        assert network(torch.empty(1, 3, 16, 64, 64)).shape == (1, 1, 2, 8, 8)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(1.71, abs=0.01)


def test_at_the_start_it_is_an_image_discriminator_on_every_eighth_frame() -> None:
    torch.manual_seed(0)
    network, video = VideoDiscriminator(TINY), torch.rand(1, 3, 9, 16, 16) * 2 - 1
    each = torch.cat([network(video[:, :, [t]]) for t in (0, 8)], dim=2)
    torch.testing.assert_close(network(video), each, atol=1e-5, rtol=1e-5)


def test_hinge_losses_have_the_closed_values() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert discriminator_loss(real, fake) == pytest.approx(0.5 * (0.25 + 0.5))
    assert discriminator_loss(torch.zeros(3), torch.zeros(3)) == 1
    assert discriminator_loss(torch.ones(3) * 2, -torch.ones(3) * 2) == 0
    assert generator_loss(fake) == pytest.approx(1.5)


def test_it_learns_to_tell_moving_from_frozen_videos_that_share_their_frames() -> None:
    torch.manual_seed(0)
    network = VideoDiscriminator(TINY)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    for _ in range(150):
        still = (torch.rand(4, 3, 1, 16, 16) * 2 - 1).expand(4, 3, 8, 16, 16)
        moving = torch.stack([torch.roll(still[:, :, t], t, dims=3) for t in range(8)], dim=2)
        loss = discriminator_loss(network(moving), network(still))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5  # 1 without a clue


def test_the_adaptive_weight_makes_both_gradients_at_the_layer_equal() -> None:
    torch.manual_seed(0)
    image = ImageAutoencoderConfig(widths=(8, 8, 16, 16), blocks_per_level=1, norm_groups=4)
    tae, network = TemporalAutoencoder(TAEConfig(image)), VideoDiscriminator(TINY)
    video = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    reconstruction, _ = tae(video)
    pixels, fooling = (reconstruction - video).abs().mean(), generator_loss(network(reconstruction))
    weight = adaptive_weight(pixels, fooling, tae.last_layer)
    assert not weight.requires_grad
    norms = [
        torch.autograd.grad(loss, tae.last_layer, retain_graph=True)[0].norm() for loss in (pixels, weight * fooling)
    ]
    assert norms[1] == pytest.approx(norms[0].item(), rel=0.02)
    assert adaptive_weight(pixels, fooling, reconstruction) > 0  # sharded runs measure at the reconstruction
    (pixels + weight * fooling).backward()  # the graphs are still there
    assert tae.last_layer.grad is not None


def test_the_adaptive_weight_is_bounded_where_the_adversary_is_flat() -> None:
    layer = torch.ones(2, requires_grad=True)
    assert adaptive_weight(layer.sum() * 1e9, layer.sum() * 0, layer) == 1e4


def test_recomputation_changes_no_gradient() -> None:
    torch.manual_seed(0)
    network, video = VideoDiscriminator(TINY), torch.rand(1, 3, 9, 16, 16) * 2 - 1
    network(video).sum().backward()
    plain = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad()
    network.recompute = True
    network(video).sum().backward()
    again = [parameter.grad for parameter in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True) if b is not None)


@pytest.mark.parametrize("shape", [(3, 8, 16, 16), (1, 1, 8, 16, 16), (1, 3, 0, 16, 16), (1, 3, 8, 4, 16)])
def test_a_video_of_another_form_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        VideoDiscriminator(TINY)(torch.zeros(shape))


def test_an_impossible_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples"):
        DiscriminatorConfig(widths=(6,), norm_groups=4)
    with pytest.raises(ValueError, match="at least one width"):
        DiscriminatorConfig(widths=())
