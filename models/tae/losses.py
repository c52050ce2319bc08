"""The TAE's losses on pixels and latents: reconstruction, KL, outlier penalty (Movie Gen 3.1.1).

Belongs here: functions of tensors that return one scalar. Does not belong here: losses that need a network
(`perceptual.py`, `discriminator.py`) and their weights in a run (`training`).

Every loss is a mean, so that its size does not depend on clip length, resolution or batch. LDM-style training sums the
reconstruction over a sample instead, and the paper's outlier weight of 1e5 was chosen beside such sums. A frame of
3 x H x W pixels has 3 H W terms, so beside means the same balance is 1e5 / (3 H W): 0.5 at 256 px, 0.13 at 512 px
(`outlier_weight`). Reimplementations that kept 1e5 beside means had to lower it.
"""

import torch
from torch import Tensor

from models.tae.autoencoder import Posterior
from models.tae.checks import validate_axes

PAPER_OUTLIER_WEIGHT = 1e5
PAPER_OUTLIER_RADIUS = 3.0


def reconstruction_loss(reconstruction: Tensor, video: Tensor) -> Tensor:
    """Mean absolute difference of two B C T H W videos in -1..1 (L1). 0 is perfect, 2 black for white."""
    if reconstruction.shape != video.shape:
        raise ValueError(
            f"given a reconstruction of shape {tuple(reconstruction.shape)} for a video of {tuple(video.shape)}; expected "
            "equal shapes B C T H W; decode with size=video.shape[2:]"
        )
    return (reconstruction.float() - video.float()).abs().mean()


def kl_loss(posterior: Posterior) -> Tensor:
    """Mean over all latent values of KL(posterior || standard normal), in nats per value; 0 for mean 0, variance 1.

    LDM sums it per sample; its weight of 1e-6 beside a summed reconstruction is 1e-6 times latent values over pixel values
    beside our means, about 1e-8 for 8x8x8 and 16 channels.
    """
    mean, log_variance = posterior.mean.float(), posterior.log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def outlier_penalty(latents: Tensor, radius: float = PAPER_OUTLIER_RADIUS) -> Tensor:
    """Movie Gen's outlier penalty (OPL) of latents B C T H W: sampled ones or the mean; a scalar >= 0, in fp32.

    For one latent frame X the paper writes 1/(HW) sum_ij max(||X_ij - Mean(X)|| - r ||Std(X)||, 0). We read Mean and Std as
    vectors over channels, taken over the H*W positions (Std of the population), and the norms as Euclidean over channels;
    T is folded into the batch, and frames are averaged. Mean and Std are constants for the gradient: otherwise the
    cheapest way to shrink the penalty is to push all ordinary latents outwards, which the term exists to prevent.
    Positions within `radius` get a gradient of exactly zero.
    """
    validate_axes(latents, "latents", latents.shape[1] if latents.ndim > 1 else 0, None)
    x = latents.float()
    axes = (3, 4)
    center = x.detach().mean(axes, keepdim=True)
    spread = x.detach().std(axes, correction=0, keepdim=True)
    distance = torch.linalg.vector_norm(x - center, dim=1)  # B T H W
    bound = radius * torch.linalg.vector_norm(spread, dim=1)  # B T 1 1
    return (distance - bound).clamp_min(0).mean()


def outlier_weight(height_px: int, width_px: int, channels: int = 3) -> float:
    """The weight of `outlier_penalty` beside mean-reduced losses that balances as the paper's 1e5 beside summed ones."""
    return PAPER_OUTLIER_WEIGHT / (channels * height_px * width_px)
