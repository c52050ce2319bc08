"""Text conditioning (paper, text embeddings): prompts in, features for cross-attention out.

Belongs here: what an encoder is and which there are (`encoders.py`, `open_clip_encoder.py`), what each of them reads
(`prompts.py`), and the trained projections that the transformer owns (`features.py`). Does not belong here: caching of
features (`training/`), captioning (`pipelines/`).

Encoders are frozen and are no part of the transformer's weights; projections are trained and are.
"""

from models.text.conditioner import Reader, default_readers, encode, paper_readers
from models.text.features import TextFeatures, TextProjections, draw_dropped, drop_text, without_text
from models.text.prompts import quoted_text, with_fps

__all__ = [
    "Reader",
    "TextFeatures",
    "TextProjections",
    "default_readers",
    "draw_dropped",
    "drop_text",
    "encode",
    "paper_readers",
    "quoted_text",
    "with_fps",
    "without_text",
]
