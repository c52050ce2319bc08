"""Image autoencoders in the diffusers format (`AutoencoderKL`) as our `ImageAutoencoder`, from a local folder.

Belongs here: the translation of that folder's config.json and tensor names. Does not belong here: downloading, and video
autoencoders. The networks are the same, so the outputs are too; Stable Diffusion 1.x, 2.x and XL (4 latent channels), 3.x
and FLUX.1 (16) come in this form. Their folder is usually named `vae` inside a pipeline's.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.hub import find_weights, load_weights, read_json, read_safetensors
from models.tae.autoencoder import ImageAutoencoder, ImageAutoencoderConfig

DIFFUSERS_WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"

RENAMES = (  # applied in order to each name of the file
    (r"^quant_conv\.", "encoder.quant."),
    (r"^post_quant_conv\.", "decoder.quant."),
    (r"\b(?:down|up)_blocks\.(\d+)\.resnets\.(\d+)\.", r"levels.\1.blocks.\2."),
    (r"\b(?:down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv\.", r"levels.\1.resample.spatial."),
    (r"\bmid_block\.resnets\.0\.", "mid.block1."),
    (r"\bmid_block\.resnets\.1\.", "mid.block2."),
    (r"\bmid_block\.attentions\.0\.", "mid.attention."),
    (r"\battention\.group_norm\.", "attention.norm."),
    (r"\battention\.(?:to_q|query)\.", "attention.query."),
    (r"\battention\.(?:to_k|key)\.", "attention.key."),
    (r"\battention\.(?:to_v|value)\.", "attention.value."),
    (r"\battention\.(?:to_out\.0|proj_attn)\.", "attention.out."),
    (r"\bconv_shortcut\.", "shortcut."),
    (r"\bconv_norm_out\.", "norm_out."),
    (r"\b(conv1|conv2|conv_in|conv_out)\.", r"\1.spatial."),
)


def load_diffusers_image_autoencoder(folder: str | os.PathLike[str]) -> ImageAutoencoder:
    """Read `config.json` and `diffusion_pytorch_model.safetensors` of an AutoencoderKL; dtype of the file, eval mode.

    Give the result to `inflate` for a TAE. Raises ValueError for a missing or unsafe file, another class of autoencoder, a
    setting that our network does not have, and tensors that do not fit.
    """
    config = translate_config(read_json(folder, "config.json"))
    weights = translate_weights(read_safetensors(find_weights(folder, DIFFUSERS_WEIGHTS_NAME)))
    with torch.device("meta"):
        model = ImageAutoencoder(config)
    load_weights(model, weights, source=str(folder))
    return model.eval()


def translate_config(data: Mapping[str, Any]) -> ImageAutoencoderConfig:
    """A diffusers AutoencoderKL config as ours; absent keys take diffusers' defaults."""
    widths = tuple(data.get("block_out_channels", (64,)))
    channels = data.get("in_channels", 3)
    has_quant_conv = data.get("use_quant_conv", True)
    expected = {
        "_class_name": ("AutoencoderKL", data.get("_class_name", "AutoencoderKL")),
        "down_block_types": (["DownEncoderBlock2D"] * len(widths), list(data.get("down_block_types", []))),
        "up_block_types": (["UpDecoderBlock2D"] * len(widths), list(data.get("up_block_types", []))),
        "act_fn": ("silu", data.get("act_fn", "silu")),
        "out_channels": (channels, data.get("out_channels", 3)),
        "use_post_quant_conv": (has_quant_conv, data.get("use_post_quant_conv", True)),
    }
    for name, (wanted, given) in expected.items():
        if given != wanted:
            raise ValueError(
                f"the folder's config.json has {name} {given!r}; expected {wanted!r}, a plain AutoencoderKL; choose the "
                "folder of such an autoencoder (`vae` of Stable Diffusion or FLUX.1)"
            )
    return ImageAutoencoderConfig(
        channels=channels,
        latent_channels=data.get("latent_channels", 4),
        widths=widths,
        blocks_per_level=data.get("layers_per_block", 1),
        norm_groups=data.get("norm_num_groups", 32),
        has_attention=data.get("mid_block_add_attention", True),
        has_quant_conv=has_quant_conv,
        latent_shift=float(data.get("shift_factor") or 0.0),
        latent_scale=float(data.get("scaling_factor") or 1.0),
    )


def translate_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by our names. Old files hold the attention projections as 1x1 convolutions; those become matrices."""
    translated = {}
    for name, tensor in weights.items():
        own = name
        for pattern, replacement in RENAMES:
            own = re.sub(pattern, replacement, own)
        is_old_projection = "mid.attention." in own and tensor.ndim == 4
        translated[own] = tensor[:, :, 0, 0] if is_old_projection else tensor
    return translated
