"""Weights in diffusers' format: the real AutoencoderKL, made small, and ours give the same pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.tae.autoencoder import inflate
from models.tae.diffusers_weights import DIFFUSERS_WEIGHTS_NAME, load_diffusers_image_autoencoder
from models.text.torchvision_import import import_torchvision

import_torchvision()  # diffusers reaches torchvision through transformers
diffusers = pytest.importorskip("diffusers")


def _diffusers_autoencoder(**changes: Any) -> Any:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "latent_channels": 4,
    }
    return diffusers.AutoencoderKL(**(settings | changes)).eval()


SD3_LIKE = {
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "shift_factor": 0.0609,
    "scaling_factor": 1.5305,
}


@pytest.mark.parametrize("changes", [{}, SD3_LIKE, {"mid_block_add_attention": False}], ids=["sd1", "sd3", "no_attn"])
def test_a_diffusers_autoencoder_gives_the_same_latents_and_pictures_as_image_autoencoder_and_as_tae(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    theirs = _diffusers_autoencoder(**changes)
    theirs.save_pretrained(tmp_path)
    ours = load_diffusers_image_autoencoder(tmp_path)
    tae = inflate(ours)
    images = torch.rand(2, 3, 24, 32) * 2 - 1
    with torch.no_grad():
        distribution = theirs.encode(images).latent_dist
        decoded = theirs.decode(distribution.mean).sample
        for model in (ours, tae):
            reconstruction, posterior = model(images[:, :, None])
            torch.testing.assert_close(posterior.mean[:, :, 0], distribution.mean, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(posterior.log_variance[:, :, 0], distribution.logvar, atol=1e-5, rtol=1e-5)
            # two threads add in another order than one: 1.03e-5 was seen in one of 4,608 values
            torch.testing.assert_close(reconstruction[:, :, 0], decoded, atol=2e-5, rtol=1e-5)
    assert ours.config.latent_scale == pytest.approx(changes.get("scaling_factor", 0.18215))
    assert ours.config.latent_shift == pytest.approx(changes.get("shift_factor", 0.0))


def test_old_attention_names_and_shapes_are_read_as_well(tmp_path: Path) -> None:
    theirs = _diffusers_autoencoder()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / DIFFUSERS_WEIGHTS_NAME
    old = {}
    for name, tensor in load_file(path).items():
        for new_part, old_part in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(new_part, old_part)  # noqa: PLW2901
        is_projection = "attentions" in name and tensor.ndim == 2
        old[name] = tensor[:, :, None, None].contiguous() if is_projection else tensor
    save_file(old, path)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        given = load_diffusers_image_autoencoder(tmp_path).encode(image[:, :, None]).mean[:, :, 0]
        torch.testing.assert_close(given, theirs.encode(image).latent_dist.mean, atol=1e-5, rtol=1e-5)


def test_a_folder_with_only_a_pickle_is_refused(tmp_path: Path) -> None:
    _diffusers_autoencoder().save_pretrained(tmp_path)
    (tmp_path / DIFFUSERS_WEIGHTS_NAME).rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="can run code"):
        load_diffusers_image_autoencoder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"_class_name": "AutoencoderTiny"}, "AutoencoderTiny"),
        ({"act_fn": "relu"}, "act_fn"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 4}, "down_block_types"),
        ({"latent_channels": 8}, "of another shape"),
        ({"layers_per_block": 1}, "unexpected"),
    ],
)
def test_another_autoencoder_or_shape_is_refused(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    _diffusers_autoencoder().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=complaint):
        load_diffusers_image_autoencoder(tmp_path)
