"""The perceptual loss, on random weights and on the real ones."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.tae.perceptual import PerceptualLoss, file_names, read_perceptual_weights


def _random_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    inputs, stage_widths = 3, [64, 128, 256, 512, 512]
    for name in file_names():
        stage = int(name[9]) - 1 if name.startswith("net.slice") else int(name[3]) if name.startswith("lin") else 0
        width = stage_widths[stage]
        if name.startswith("scaling_layer"):
            weights[name] = torch.ones(1, 3, 1, 1) * (0.0 if "shift" in name else 0.5)
        elif name.startswith("lin"):
            weights[name] = torch.rand(1, width, 1, 1, generator=generator)
        elif name.endswith("bias"):
            weights[name] = torch.zeros(width)
        else:
            weights[name] = torch.randn(width, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
            inputs = width
    return weights


def _video(frames: int = 2, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, frames, side // 8, side // 8, generator=generator) * 1.6 - 0.8
    return F.interpolate(coarse, size=(frames, side, side), mode="trilinear")


def test_on_random_weights_it_is_a_distance_whose_gradient_reaches_the_video_only() -> None:
    loss, video = PerceptualLoss(_random_weights()), _video()
    noisy = (video + 0.1 * torch.randn_like(video)).requires_grad_()
    distance = loss(noisy, video)
    distance.backward()
    assert loss(video, video) == 0
    assert distance > 0
    torch.testing.assert_close(loss(video, noisy), distance)
    assert noisy.grad is not None and noisy.grad.abs().sum() > 0 and noisy.grad.isfinite().all()
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_dead_features_give_a_finite_gradient() -> None:
    weights = {name: torch.zeros_like(value) if "net" in name else value for name, value in _random_weights().items()}
    video = _video().requires_grad_()
    PerceptualLoss(weights)(video, _video(side=32) * 0.5).backward()
    assert video.grad is not None and video.grad.isfinite().all()


def test_the_real_weights_forgive_a_shifted_pixel_and_punish_noise_of_the_same_error(
    perceptual_weights_path: Path, bikes: Tensor
) -> None:
    loss, video = PerceptualLoss(read_perceptual_weights(perceptual_weights_path)), bikes[:, :, :1]
    shifted = torch.roll(video, 1, dims=4)
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(3))
    error = (shifted - video).square().mean().sqrt()
    by_shift, by_little, by_noise = (
        loss(other, video).item() for other in (shifted, video + 0.5 * error * noise, video + error * noise)
    )
    assert 0 < by_little < by_noise
    assert by_shift < by_noise / 2


def test_the_real_weights_give_the_figure_of_the_packages_own_code(perceptual_weights_path: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    a, b = (torch.rand(1, 3, 2, 48, 40, generator=generator) * 2 - 1 for _ in range(2))
    distance = PerceptualLoss(read_perceptual_weights(perceptual_weights_path))(a, b).item()
    assert distance == pytest.approx(
        0.0671202, rel=1e-4
    )  # LPIPS(net="vgg", variant="shift_tolerant") of stlpips-pytorch


@pytest.mark.parametrize("shape", [(1, 3, 2, 31, 64), (1, 3, 64, 64), (1, 1, 2, 64, 64)])
def test_videos_it_cannot_judge_are_refused(shape: tuple[int, ...]) -> None:
    loss = PerceptualLoss(_random_weights())
    with pytest.raises(ValueError, match="expected"):
        loss(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match="equal shapes"):
        loss(torch.zeros(1, 3, 1, 32, 32), torch.zeros(1, 3, 2, 32, 32))


def test_weights_of_another_network_are_refused() -> None:
    weights = _random_weights()
    weights["lin0.model.1.weight"] = torch.zeros(1, 8, 1, 1)
    with pytest.raises(ValueError, match="of another shape"):
        PerceptualLoss(weights)
    with pytest.raises(ValueError, match="missing"):
        PerceptualLoss({})


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('a pickle ran code')",))


def test_a_file_that_would_run_code_or_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    torch.save(_Payload(), tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "noise.pth").write_bytes(b"not a checkpoint")
    for name in ("evil.pth", "list.pth", "noise.pth", "absent.pth"):
        with pytest.raises(ValueError, match="expected"):
            read_perceptual_weights(tmp_path / name)
