"""Text encoders: the interface, the one without weights, and those of the transformers library.

Belongs here: frozen networks (or none) that turn texts into features with a mask. Does not belong here: what text an
encoder is given (`prompts.py`), projections (`features.py`).

Weights come from a local folder or, on a machine that reaches it, from the Hugging Face hub by "owner/name"; in both cases
only safetensors and JSON or plain text are read, never a pickle and never code.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.text.features import TextFeatures
from models.text.torchvision_import import import_torchvision

SAFE_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")


class TextEncoder(Protocol):
    """Texts -> features. An empty text gives no tokens; a text above `max_tokens` raises ValueError, nothing is cut."""

    name: str
    """For messages and fingerprints."""
    width: int
    """Channels of the features."""
    max_tokens: int
    """The longest text, in the encoder's tokens, markers included."""

    def __call__(self, texts: Sequence[str]) -> TextFeatures:
        """(B, L, width) and mask (B, L); L is the longest of the batch, at least 1."""
        ...


class ByteEncoder:
    """UTF-8 bytes as one-hot vectors beside sines of their place: no weights, no download, the same on every machine.

    The projection after it is then a learned table with a row per byte. Stands in for ByT5 where that cannot be had.
    """

    name = "bytes"
    width = 256 + 32
    place_features = 32

    def __init__(self, max_tokens: int = 256) -> None:
        _check_cap(max_tokens)
        self.max_tokens = max_tokens

    def __call__(self, texts: Sequence[str]) -> TextFeatures:
        rows = [text.encode("utf-8") for text in texts]
        lengths = torch.tensor([len(row) for row in rows])
        check_lengths(self, texts, lengths)
        longest = max(1, int(lengths.max()))
        values = torch.tensor([list(row.ljust(longest, b"\0")) for row in rows])
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        one_hot = nn.functional.one_hot(values, 256).float()
        place = _place_sines(longest, self.place_features).expand(len(rows), -1, -1)
        return TextFeatures(torch.cat([one_hot, place], dim=-1) * mask[..., None], mask)


class TransformersEncoder:
    """A frozen encoder of the transformers library: the last hidden state of every token."""

    def __init__(self, name: str, model: nn.Module, tokenizer: Any, *, width: int, max_tokens: int) -> None:
        _check_cap(max_tokens)
        self.name = name
        self.width = width
        self.max_tokens = max_tokens
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> TextFeatures:
        check_texts(texts)
        batch = self._tokenizer(list(texts), padding=True, truncation=False, return_tensors="pt")
        check_lengths(self, texts, batch["attention_mask"].sum(1))
        device = next(self._model.parameters()).device
        ids, seen = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        features = self._model(input_ids=ids, attention_mask=seen).last_hidden_state
        return TextFeatures(features, seen.bool() & has_text(texts, device))


def minilm(source: str | os.PathLike[str], *, max_tokens: int = 256, **options: Any) -> TransformersEncoder:
    """MiniLM-L6, 384 channels: the default, because its weights travel inside a PyPI package (docs/models/text.md).

    `options` of all loaders: `dtype` (torch.dtype, float32), `device` ("cpu"), `revision` (hub commit).
    """
    return _load("minilm", source, "BertModel", max_tokens=max_tokens, **options)


def ul2(source: str | os.PathLike[str], *, max_tokens: int = 512, **options: Any) -> TransformersEncoder:
    """The encoder of UL2 (google/ul2, 4096 channels; any T5-shaped one fits), for whole prompts. Options as `minilm`."""
    return _load("ul2", source, "T5EncoderModel", max_tokens=max_tokens, **options)


def byt5(source: str | os.PathLike[str], *, max_tokens: int = 256, **options: Any) -> TransformersEncoder:
    """The encoder of ByT5 (google/byt5-small, 1472 channels), to be given quoted text only. Options as `minilm`."""
    return _load("byt5", source, "T5EncoderModel", max_tokens=max_tokens, **options)


def metaclip(source: str | os.PathLike[str], **options: Any) -> TransformersEncoder:
    """The text tower of MetaCLIP in transformers format; the cap is its position table (77; the paper's own has 256).

    Options as `minilm`. For open_clip's format see `models.text.open_clip_encoder`.
    """
    return _load("metaclip", source, "CLIPTextModel", max_tokens=None, **options)


def fetch_folder(source: str | os.PathLike[str], revision: str | None = None) -> Path:
    """A local folder as it is, or the safe files of the hub repository "owner/name"; ValueError if neither is to be had."""
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"no folder {name}; expected a local folder or a hub name owner/name; check the path")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(SAFE_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"no folder {name}, and the hub did not give it ({type(error).__name__}: {error}); expected either; download it "
            "where the hub can be reached and pass the folder"
        ) from error


def require_safetensors(folder: Path) -> None:
    """ValueError unless the folder holds weights as safetensors; pickles are never opened."""
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"no .safetensors in {folder} (given {sorted(p.name for p in folder.iterdir())[:8]}); expected weights in that "
            "format, because others can run code; convert them where you trust them"
        )


def check_texts(texts: Sequence[str]) -> None:
    """ValueError unless `texts` is a non-empty sequence of strings, which one string is not."""
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"given {texts!r} as texts; expected a list of at least one string; wrap one prompt in a list")


def check_lengths(encoder: TextEncoder, texts: Sequence[str], lengths: Tensor) -> None:
    """ValueError that names the first text with more tokens than the encoder's cap."""
    check_texts(texts)
    longest = int(lengths.argmax())
    if int(lengths[longest]) > encoder.max_tokens:
        raise ValueError(
            f"text {longest} of the batch ({texts[longest][:60]!r} ...) has {int(lengths[longest])} tokens for {encoder.name}; "
            f"expected at most {encoder.max_tokens}; shorten the caption, or build the encoder with a larger max_tokens where "
            "it allows one"
        )


def has_text(texts: Sequence[str], device: torch.device) -> Tensor:
    """(B, 1) bool, False for an empty text: its markers are no text."""
    return torch.tensor([bool(text) for text in texts], device=device)[:, None]


def _load(
    name: str,
    source: str | os.PathLike[str],
    architecture: str,
    *,
    max_tokens: int | None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> TransformersEncoder:
    import_torchvision()
    import transformers

    folder = fetch_folder(source, revision)
    require_safetensors(folder)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = getattr(transformers, architecture).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{folder} does not load as {architecture} ({error}); expected weights, config.json and tokenizer files of "
            "that model; check that the folder is whole"
        ) from error
    cap = max_tokens if max_tokens is not None else int(model.config.max_position_embeddings)
    return TransformersEncoder(name, model.to(device), tokenizer, width=int(model.config.hidden_size), max_tokens=cap)


def _check_cap(max_tokens: int) -> None:
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise ValueError(f"given max_tokens {max_tokens!r}; expected a whole number of at least 1; 256 is usual")


def _place_sines(length: int, features: int) -> Tensor:
    """(length, features): sines and cosines of the place at wavelengths from 6 to 6,000 bytes."""
    rates = 1000.0 ** (-torch.arange(features // 2) / (features // 2))
    angles = torch.arange(length)[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
