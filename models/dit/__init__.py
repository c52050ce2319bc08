"""The Movie Gen transformer (arXiv 2410.13720, the part on the backbone): one network that turns noisy latents into a velocity.

Belongs here: the network (`model.py`), its attention (`attention.py`), its sizes (`config.py`), the growth of its position
tables between training stages (`positions.py`) and its cost by formula (`cost.py`). Does not belong here: how it is spread
over devices (`training/parallel.py`), noise, schedules and samplers (`models/flow.py`), text encoders (`models/text`).

Tensor axes are always B C T H W: batch, channels, frames, height, width, in latent units unless a name says `_px`.
"""

from models.dit.config import CONFIGS, DiTConfig
from models.dit.model import DiT

__all__ = ["CONFIGS", "DiT", "DiTConfig"]
