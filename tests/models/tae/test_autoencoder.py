"""The TAE's contract: sizes, images, identity start, padding, precision, compilation, errors."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.tae.autoencoder import (
    TAE_BASE,
    TAE_SMALL,
    TAE_TINY,
    ImageAutoencoder,
    ImageAutoencoderConfig,
    Posterior,
    TAEConfig,
    TemporalAutoencoder,
    inflate,
    latent_size,
)
from models.tae.layers import TemporalAttention, TemporalConv, TemporalUpConv

MINI = TAEConfig(ImageAutoencoderConfig(widths=(8, 8, 16, 16), blocks_per_level=1, norm_groups=4))


def _video(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _mini(*, is_shaken: bool = False, seed: int = 0) -> TemporalAutoencoder:
    """A small TAE; shaken: with random temporal layers, as after training."""
    torch.manual_seed(seed)
    tae = TemporalAutoencoder(MINI).eval()
    if is_shaken:
        with torch.no_grad():
            for parameter in tae.temporal_parameters().values():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return tae


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 16, 17, 33, 256])
def test_any_number_of_frames_gives_a_latent_per_eight_and_comes_back(frames: int) -> None:
    tae, video = _mini(), _video(1, 3, frames, 16, 16)
    with torch.no_grad():
        reconstruction, posterior = tae(video)
    assert posterior.mean.shape == posterior.log_variance.shape == (1, 16, -(-frames // 8), 2, 2)
    assert reconstruction.shape == video.shape


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 8), (15, 17), (33, 20)])
def test_any_size_is_padded_at_the_far_end_and_cropped_again(size: tuple[int, int]) -> None:
    tae, video = _mini(is_shaken=True), _video(2, 3, 3, *size)
    padded = F.pad(video, (0, -size[1] % 8, 0, -size[0] % 8, 0, 0), mode="replicate")
    with torch.no_grad():
        posterior, whole = tae.encode(video), tae.encode(padded)
        torch.testing.assert_close(posterior.mean, whole.mean)
        assert posterior.mean.shape[2:] == latent_size(MINI, (3, *size))
        assert tae.decode(posterior.mean, (3, *size)).shape == video.shape


def test_spurious_frames_and_padding_are_dropped_and_nothing_else() -> None:
    tae, latents = _mini(is_shaken=True), torch.randn(1, 16, 2, 2, 3)
    with torch.no_grad():
        every, some = tae.decode(latents), tae.decode(latents, (11, 13, 24))
    assert every.shape == (1, 3, 16, 16, 24)
    assert torch.equal(some, every[:, :, :11, :13])


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_the_named_configurations_build_and_keep_their_shapes_on_the_meta_device(name: str) -> None:
    config = {"tiny": TAE_TINY, "small": TAE_SMALL, "base": TAE_BASE}[name]
    with torch.device("meta"):
        tae = TemporalAutoencoder(config)
        reconstruction, posterior = tae(torch.empty(1, 3, 33, 72, 64))
    assert posterior.mean.shape == (1, 16, 5, 9, 8)
    assert reconstruction.shape == (1, 3, 33, 72, 64)
    millions = sum(parameter.numel() for parameter in tae.parameters()) / 1e6
    assert millions == pytest.approx({"tiny": 1.20, "small": 28.60, "base": 114.06}[name], abs=0.01)


@pytest.mark.parametrize("temporal_factor", [1, 2, 4, 8])
def test_an_inflated_autoencoder_equals_the_image_autoencoder_on_images(temporal_factor: int) -> None:
    torch.manual_seed(1)
    image_autoencoder = ImageAutoencoder(MINI.image).eval()
    tae = inflate(image_autoencoder, temporal_factor)
    images = _video(3, 3, 1, 24, 20)
    with torch.no_grad():
        expected, image_posterior = image_autoencoder(images)
        given, posterior = tae(images)
    torch.testing.assert_close(posterior.mean, image_posterior.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(posterior.log_variance, image_posterior.log_variance, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_an_inflated_autoencoder_starts_on_videos_as_the_image_autoencoder_on_every_eighth_frame() -> None:
    image_autoencoder = ImageAutoencoder(MINI.image).eval()
    tae, video = inflate(image_autoencoder), _video(1, 3, 17, 16, 16)
    with torch.no_grad():
        latents = tae.encode(video).mean
        torch.testing.assert_close(latents, image_autoencoder.encode(video[:, :, ::8]).mean, atol=1e-5, rtol=1e-5)
        held = image_autoencoder.decode(latents).repeat_interleave(8, dim=2)
        torch.testing.assert_close(tae.decode(latents), held, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_temporal_layer_from_the_first_step_on() -> None:
    tae, video = _mini(), _video(1, 3, 9, 16, 16)
    (tae(video)[0] - video).square().mean().backward()
    behind_zero = {
        f"{name}.{part}"
        for name, module in tae.named_modules()
        if isinstance(module, TemporalAttention)
        for part, _ in module.named_parameters()
        if not part.startswith("out.")
    }
    for name, parameter in tae.temporal_parameters().items():
        assert parameter.grad is not None, name
        assert (name in behind_zero) != bool(parameter.grad.any()), name  # all but what lies behind a zero projection
    with torch.no_grad():
        for parameter in tae.parameters():
            parameter.sub_(0.1 * parameter.grad)
    tae.zero_grad()
    (tae(video)[0] - video).square().mean().backward()
    still_zero = [name for name, parameter in tae.temporal_parameters().items() if not parameter.grad.any()]
    assert all(name.endswith("key.bias") for name in still_zero)  # softmax ignores a constant added to all scores


def test_only_temporal_layers_carry_information_between_frames() -> None:
    image_autoencoder, video = ImageAutoencoder(MINI.image).eval(), _video(1, 3, 3, 16, 16)
    with torch.no_grad():
        alone = torch.cat([image_autoencoder(video[:, :, [i]])[0] for i in range(3)], dim=2)
        torch.testing.assert_close(image_autoencoder(video)[0], alone, atol=1e-5, rtol=1e-5)


def _frames(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_temporal_convolution_is_conv3d_over_replicated_ends(frames: int, stride: int) -> None:
    torch.manual_seed(0)
    layer, x = TemporalConv(4, stride), torch.randn(2, 4, frames, 3, 5, requires_grad=True)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    ends = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    expected = F.conv3d(ends, layer.weight[..., None, None], layer.bias, stride=(stride, 1, 1))
    given = layer(_frames(x), frames).unflatten(0, (2, -1)).transpose(1, 2)
    assert given.shape[2] == layer.out_frames(frames)
    _same_with_gradients(given, expected, x, layer.weight, layer.bias)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_folded_upsampling_is_nearest_then_convolution(frames: int) -> None:
    torch.manual_seed(0)
    layer, x = TemporalUpConv(4), torch.randn(2, 4, frames, 3, 5, requires_grad=True)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    doubled = x.repeat_interleave(2, dim=2)
    ends = torch.cat([doubled[:, :, :1], doubled, doubled[:, :, -1:]], dim=2)
    expected = F.conv3d(ends, layer.weight[..., None, None], layer.bias)
    given = layer(_frames(x), frames).unflatten(0, (2, -1)).transpose(1, 2)
    _same_with_gradients(given, expected, x, layer.weight, layer.bias)


def _same_with_gradients(given: Tensor, expected: Tensor, *leaves: Tensor) -> None:
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(expected)
    ours = torch.autograd.grad((given * weight).sum(), leaves)
    theirs = torch.autograd.grad((expected * weight).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)


def _gradients(tae: TemporalAutoencoder, video: Tensor) -> dict[str, Tensor]:
    tae.zero_grad()
    (tae(video)[0].float() - video).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in tae.named_parameters()}


def test_recomputation_changes_no_gradient_and_keeps_fewer_activations() -> None:
    tae, video = _mini(is_shaken=True).train(), _video(1, 3, 9, 16, 16)

    def kept_bytes() -> int:
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            tae(video)[0].sum()
        return sum(kept.values())

    plain, plain_bytes = _gradients(tae, video), kept_bytes()
    tae.recompute = True
    again, again_bytes = _gradients(tae, video), kept_bytes()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert again_bytes < plain_bytes / 2


def test_compiled_equals_eager_to_1e_5_forward_and_1e_4_of_the_largest_gradient() -> None:
    tae, video = _mini(is_shaken=True).train(), _video(1, 3, 9, 16, 20)
    compiled = copy.deepcopy(tae)
    compiled.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(video)[0], tae(video)[0], atol=1e-5, rtol=1e-5)
    eager, other = _gradients(tae, video), _gradients(compiled, video)
    for name, gradient in eager.items():
        assert (gradient - other[name]).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7, name


@pytest.mark.parametrize("is_autocast", [False, True])
def test_bf16_agrees_with_fp32_to_25_db_below_the_signal(is_autocast: bool) -> None:
    tae, video = _mini(is_shaken=True), _video(1, 3, 9, 16, 16)
    with torch.no_grad():
        expected = tae(video)[0]
        if is_autocast:
            with torch.autocast("cpu", torch.bfloat16):
                given = tae(video)[0]
        else:
            given = copy.deepcopy(tae).bfloat16()(video.bfloat16())[0]
            assert given.dtype == torch.bfloat16
    error = (given.float() - expected).square().mean() / expected.square().mean()
    assert -10 * torch.log10(error) >= 25


def test_a_bf16_model_trains_with_finite_gradients_near_the_fp32_ones() -> None:
    tae, video = _mini(is_shaken=True), _video(1, 3, 9, 16, 16)
    full = _gradients(tae, video)
    half = copy.deepcopy(tae).bfloat16()
    (half(video.bfloat16())[0].float() - video).square().mean().backward()
    flat = torch.cat([full[name].flatten() for name, _ in half.named_parameters()])
    other = torch.cat([parameter.grad.float().flatten() for parameter in half.parameters()])
    assert F.cosine_similarity(flat, other, dim=0) > 0.99


def test_latents_are_the_mean_or_drawn_with_the_callers_noise() -> None:
    tae, video = _mini(), _video(1, 3, 2, 8, 8)
    posterior = tae.encode(video)
    noise = torch.randn(posterior.mean.shape)
    assert torch.equal(posterior.sample(torch.zeros_like(noise)), posterior.mean)
    torch.testing.assert_close(
        posterior.sample(noise), posterior.mean + noise * posterior.log_variance.exp().sqrt(), atol=1e-6, rtol=1e-6
    )
    torch.testing.assert_close(tae(video, noise)[0], tae.decode(posterior.sample(noise), (2, 8, 8)))
    with pytest.raises(ValueError, match="noise of shape"):
        posterior.sample(noise[:, :1])


def test_a_saved_tae_comes_back_equal(tmp_path: Path) -> None:
    tae, video = _mini(is_shaken=True), _video(1, 3, 2, 8, 8)
    tae.save_pretrained(tmp_path)
    loaded = TemporalAutoencoder.from_pretrained(tmp_path)
    assert loaded.config == tae.config
    with torch.no_grad():
        torch.testing.assert_close(loaded(video)[0], tae(video)[0], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="TAEConfig"):
        ImageAutoencoder.from_pretrained(tmp_path)


NAN = float("nan")


@pytest.mark.parametrize(
    ("video", "complaint"),
    [
        (torch.zeros(3, 4, 16, 16), "rank 4"),
        (torch.zeros(1, 4, 16, 16, 3), "4 channels"),
        (torch.zeros(1, 3, 0, 16, 16), "empty axis"),
        (torch.zeros(0, 3, 4, 16, 16), "empty axis"),
        (torch.zeros(1, 3, 4, 16, 16, dtype=torch.uint8), r"127\.5"),
        (torch.zeros(1, 3, 4, 16, 16, dtype=torch.float64), "dtype of the weights"),
        (torch.full((1, 3, 4, 16, 16), 255.0), r"within -1\.\.1"),
        (torch.full((1, 3, 4, 16, 16), -1.5), r"within -1\.\.1"),
        (torch.full((1, 3, 4, 16, 16), NAN), "nan"),
        (torch.full((1, 3, 4, 16, 16), float("inf")), "inf"),
        ([[1.0]], "torch.Tensor"),
    ],
)
def test_a_wrong_video_is_refused_with_what_was_expected(video: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _mini().encode(video)


@pytest.mark.parametrize(
    ("latents", "size", "complaint"),
    [
        (torch.zeros(16, 2, 2, 2), None, "rank 4"),
        (torch.zeros(1, 4, 2, 2, 2), None, "4 channels"),
        (torch.zeros(1, 16, 0, 2, 2), None, "empty axis"),
        (torch.full((1, 16, 2, 2, 2), NAN), None, "finite"),
        (torch.zeros(1, 16, 2, 2, 2).half(), None, "dtype of the weights"),
        (torch.zeros(1, 16, 2, 2, 2), (8, 16, 16), "given size"),
        (torch.zeros(1, 16, 2, 2, 2), (17, 16, 16), "given size"),
        (torch.zeros(1, 16, 2, 2, 2), (16, 8, 16), "given size"),
        (torch.zeros(1, 16, 2, 2, 2), (16, 16), "given size"),
    ],
)
def test_wrong_latents_or_size_are_refused(latents: Tensor, size: tuple[int, int, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _mini().decode(latents, size)


def test_nan_in_a_single_pixel_is_noticed() -> None:
    video = torch.zeros(1, 3, 4, 16, 16)
    video[0, 1, 2, 3, 4] = NAN
    with pytest.raises(ValueError, match="NaN"):
        _mini().encode(video)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImageAutoencoderConfig(widths=()),
        lambda: ImageAutoencoderConfig(widths=(8,), norm_groups=3),
        lambda: ImageAutoencoderConfig(latent_channels=0),
        lambda: TAEConfig(temporal_factor=16),
        lambda: TAEConfig(temporal_factor=3),
    ],
)
def test_an_impossible_configuration_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()  # type: ignore[operator]


def test_the_posterior_is_a_tree_of_two_tensors() -> None:
    posterior = Posterior(torch.zeros(1), torch.ones(1))
    assert posterior == (torch.zeros(1), torch.ones(1))
