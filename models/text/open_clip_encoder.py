"""MetaCLIP's text tower in open_clip's format: a folder with open_clip_config.json and safetensors weights."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.text.encoders import check_lengths, check_texts, fetch_folder, has_text, require_safetensors
from models.text.features import TextFeatures
from models.text.torchvision_import import import_torchvision


class OpenClipEncoder:
    """A frozen text tower of open_clip: the hidden state of every token after the last norm, before pooling."""

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name = name
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.width = int(self._model.ln_final.weight.shape[0])
        self.max_tokens = int(self._model.context_length)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> TextFeatures:
        check_texts(texts)
        # counted before the tokenizer sees them as a batch, because open_clip's cuts what is too long without a word
        lengths = torch.tensor([len(self._tokenizer.encode(text)) + 2 for text in texts])  # + start and end
        check_lengths(self, texts, lengths)
        device = self._model.positional_embedding.device
        ids = self._tokenizer(list(texts)).to(device)
        longest = int(lengths.max())
        mask = (torch.arange(longest)[None, :] < lengths[:, None]).to(device)
        return TextFeatures(self._hidden(ids)[:, :longest], mask & has_text(texts, device))

    def _hidden(self, ids: Tensor) -> Tensor:
        model = self._model
        x = model.token_embedding(ids) + model.positional_embedding
        return model.ln_final(model.transformer(x, attn_mask=model.attn_mask))


def open_clip_metaclip(
    source: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> OpenClipEncoder:
    """The text tower of an open_clip model from a local folder or the hub ("owner/name"); the image tower is dropped.

    ValueError for a missing folder, weights that are not safetensors, or a model whose text tower is not CLIP's own.
    """
    import_torchvision()
    import open_clip

    folder = fetch_folder(source, revision)
    require_safetensors(folder)
    try:
        model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{folder} does not load with open_clip ({error}); expected open_clip_config.json and matching weights; check "
            "that the folder is whole"
        ) from error
    if not hasattr(model, "token_embedding") or not hasattr(tokenizer, "encode"):
        raise ValueError(
            f"{folder} is a {type(model).__name__} with another text tower; expected CLIP's own, as MetaCLIP has; load it "
            "with models.text.encoders instead"
        )
    del model.visual
    return OpenClipEncoder("metaclip", model.to(device=device, dtype=dtype), tokenizer)
