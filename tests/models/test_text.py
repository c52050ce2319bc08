"""Promises of text conditioning: what encoders see, what becomes of it, and that real loaders load real formats."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.text import (
    Reader,
    TextFeatures,
    TextProjections,
    default_readers,
    draw_dropped,
    drop_text,
    encode,
    paper_readers,
    quoted_text,
    with_fps,
    without_text,
)
from models.text.encoders import ByteEncoder, TransformersEncoder, byt5, fetch_folder, metaclip, minilm, ul2
from models.text.torchvision_import import import_torchvision

import_torchvision()  # before any import of transformers, as the loaders do it

WORDS = ["a", "dog", "runs", "over", "the", "beach", "FPS", "-", "16", "sign", "saying"]
PROMPT = 'a dog runs over the sign saying "OPEN"'


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- prompts


@pytest.mark.parametrize(
    ("prompt", "quoted"),
    [
        ('a sign that says "OPEN"', "OPEN"),
        ("a sign that says “Open now”, in rain", "Open now"),
        ('"ONE" and "TWO"', "ONE\nTWO"),
        ("das Schild „Bäckerei“ leuchtet", "Bäckerei"),
        ("l'enseigne «Café» s'allume", "Café"),
        ("看板に「営業中」とある", "営業中"),
        ("a poster 'Don't panic' on the dog's door", "Don't panic"),
        ("a card ‘It’s on’ here", "It’s on"),
        ("the dog's owner isn't the cat's", ""),
        ("a 19' screen, 3' wide", ""),
        ("no text at all", ""),
        ('an empty "" quote and an open "end', ""),
        ("", ""),
    ],
)
def test_quoted_text_is_what_stands_between_quotation_marks_and_no_apostrophe(prompt: str, quoted: str) -> None:
    assert quoted_text(prompt) == quoted


@given(st.text(max_size=60))
def test_any_prompt_can_be_searched_for_quotes(prompt: str) -> None:
    assert '"' not in quoted_text(prompt.replace("'", ""))


def test_the_frame_rate_stands_in_front() -> None:
    assert with_fps("a dog", 16) == "FPS-16 a dog"
    assert with_fps("a dog", Fraction(24000, 1001)) == "FPS-24 a dog"
    with pytest.raises(ValueError, match="expected at least 1"):
        with_fps("a dog", 0.2)


# --- bytes


def test_bytes_are_one_hot_with_their_place_and_masked_behind_their_end() -> None:
    features, mask = ByteEncoder()(["Hé", "", "abcd"])
    assert features.shape == (3, 4, 288) and mask.sum(1).tolist() == [3, 0, 4]
    assert features[0, :3, :256].argmax(-1).tolist() == list("Hé".encode())
    assert not features[~mask].any()
    assert (features[2, 0, 256:] - features[2, 1, 256:]).abs().max() > 0.1  # order can be seen
    assert ByteEncoder()([""]).features.shape == (1, 1, 288)


def test_bytes_do_not_depend_on_the_rest_of_the_batch() -> None:
    alone, together = ByteEncoder()(["dog"]), ByteEncoder()(["dog", "a longer text"])
    assert torch.equal(alone.features[0], together.features[0, :3])


# --- encoders with weights


def word_tokenizer(folder: Path, *, markers: dict[str, str]) -> None:
    """A tokenizer of eleven words in the library's own format, end marker added as T5 does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([*markers.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=markers["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    end = markers["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, vocabulary[end])]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **markers).save_pretrained(folder)


def t5_folder(folder: Path, width: int) -> Path:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=400, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ul2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = t5_folder(tmp_path_factory.mktemp("ul2"), width=32)
    word_tokenizer(folder, markers={"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"})
    return folder


@pytest.fixture(scope="session")
def byt5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ByT5Tokenizer

    folder = t5_folder(tmp_path_factory.mktemp("byt5"), width=24)
    ByT5Tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def metaclip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("metaclip")
    config = CLIPTextConfig(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, eos_token_id=1
    )
    CLIPTextModel(config).save_pretrained(folder)
    word_tokenizer(folder, markers={"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"})
    return folder


@pytest.fixture(scope="session")
def minilm_encoder(weights_path) -> TransformersEncoder:
    return minilm(weights_path("minilm-l6"))


@pytest.fixture
def every_encoder(ul2_folder: Path, byt5_folder: Path, metaclip_folder: Path) -> list[TransformersEncoder]:
    return [ul2(ul2_folder), byt5(byt5_folder), metaclip(metaclip_folder)]


def test_each_hub_format_gives_features_of_its_width_and_padding_changes_nothing(every_encoder) -> None:
    for encoder in every_encoder:
        features, mask = encoder(["a dog", "the dog runs over the beach", ""])
        assert features.shape[2] == encoder.width and features.dtype == torch.float32
        assert mask.dtype == torch.bool and mask[0].sum() < mask[1].sum() and not mask[2].any()
        alone = encoder(["a dog"])
        assert not features.requires_grad
        torch.testing.assert_close(features[0, : int(mask[0].sum())], alone.features[0], rtol=1e-4, atol=1e-5)


def test_the_paper_trio_reads_prompt_quotes_and_prompt(ul2_folder, byt5_folder, metaclip_folder) -> None:
    readers = paper_readers(ul2_folder, byt5_folder, metaclip_folder, dtype=torch.bfloat16)
    text = encode(readers, [PROMPT, "a dog"])
    assert [part.features.shape[2] for part in text] == [32, 24, 16]
    assert all(part.features.dtype == torch.bfloat16 for part in text)
    assert text[1].mask.sum(1).tolist() == [5, 0]  # O P E N and the end mark; nothing quoted, nothing seen
    assert text[0].mask[1].any() and text[2].mask[1].any()


def test_minilm_carries_real_weights_that_tell_meanings_apart(minilm_encoder) -> None:
    features, mask = minilm_encoder(["a dog runs on a beach", "a puppy is running by the sea", "quarterly tax report"])
    assert features.shape[2] == minilm_encoder.width == 384
    means = (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    near, far = torch.cosine_similarity(means[:1], means[1:])
    assert near > 0.6 and far < 0.2


def test_the_default_reads_the_prompt_with_minilm_and_quotes_as_bytes(weights_path) -> None:
    text = encode(default_readers(weights_path("minilm-l6")), [with_fps(PROMPT, 16), "a dog"])
    assert [part.features.shape[2] for part in text] == [384, 288]
    assert text[1].mask.sum(1).tolist() == [4, 0]


def test_open_clip_weights_load_from_a_folder(tmp_path) -> None:
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.CLIP(**{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
    save_file(dict(model.state_dict()), tmp_path / "open_clip_model.safetensors")

    from models.text.open_clip_encoder import open_clip_metaclip

    encoder = open_clip_metaclip(tmp_path)
    features, mask = encoder(["a dog", "a dog runs on a beach", ""])
    assert features.shape == (3, 8, 16) and mask.sum(1).tolist() == [4, 8, 0]
    assert encoder.width == 16 and encoder.max_tokens == 12
    # pooled and projected, these are open_clip's own features of the text
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a dog"])
    expected = model.eval().encode_text(tokens)
    torch.testing.assert_close(features[0, 3] @ model.text_projection, expected[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="tokens for metaclip; expected at most 12"):
        encoder(["dog " * 30])
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(ValueError, match="does not load with open_clip"):
        open_clip_metaclip(tmp_path)


def test_text_above_the_cap_is_refused_and_never_cut(every_encoder) -> None:
    for encoder in [*every_encoder, ByteEncoder(max_tokens=9)]:
        with pytest.raises(ValueError, match=f"text 1 of the batch .* {encoder.name}; expected at most .* shorten"):
            encoder(["a", "dog " * 600])
    assert ByteEncoder(max_tokens=9)(["123456789"]).mask.all()


@pytest.mark.parametrize("texts", ["a dog", [], [3], None])
def test_what_is_no_list_of_texts_is_refused(every_encoder, texts) -> None:
    for encoder in every_encoder:
        with pytest.raises(ValueError, match="wrap one prompt in a list"):
            encoder(texts)


def test_a_folder_that_is_not_there_or_holds_a_pickle_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="local folder or a hub name"):
        ul2(tmp_path / "absent")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no \.safetensors .* convert"):
        ul2(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    with pytest.raises(ValueError, match="does not load as T5EncoderModel"):
        ul2(tmp_path)


def test_a_hub_name_fetches_safe_files_only_and_says_so_where_the_hub_is_out_of_reach(monkeypatch, tmp_path) -> None:
    import huggingface_hub

    asked = []

    def fetched(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert fetch_folder("google/ul2", "abc") == tmp_path
    name, revision, patterns = asked[0]
    assert (name, revision) == ("google/ul2", "abc")
    assert not any(pattern.endswith((".bin", ".pt", ".py", "*")) for pattern in patterns)

    def unreachable(name: str, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match="pass the folder"):
        fetch_folder("google/ul2")


# --- projections and dropout


def test_every_encoder_has_its_own_projection_and_norm_joined_end_to_end() -> None:
    projections = TextProjections((6, 4), width=8)
    torch.nn.init.normal_(projections.null, generator=seeded())
    text = [
        TextFeatures(torch.randn(2, 3, 6, generator=seeded()), torch.ones(2, 3, dtype=torch.bool)),
        TextFeatures(torch.randn(2, 2, 4, generator=seeded()), torch.tensor([[True, False], [False, False]])),
    ]
    context, mask = projections(text)
    assert context.shape == (2, 6, 8)
    assert mask.tolist() == [[True, True, True, True, True, False], [True, True, True, True, False, False]]
    assert torch.equal(context[1, 0], projections.null)
    for part, start, i in ((text[0], 1, 0), (text[1], 4, 1)):
        expected = projections.norms[i](projections.projections[i](part.features))
        torch.testing.assert_close(context[:, start : start + part.features.shape[1]], expected)
    torch.testing.assert_close(context[:, 1:].mean(-1), torch.zeros(2, 5), rtol=0, atol=1e-6)  # each is normalised


def test_dropout_takes_all_text_of_a_sample_at_the_given_rate_and_repeats_with_the_seed() -> None:
    dropped = draw_dropped(10_000, 0.1, seeded())
    assert 900 < dropped.sum() < 1100 and torch.equal(dropped, draw_dropped(10_000, 0.1, seeded()))
    assert not draw_dropped(100, 0.0, seeded()).any() and draw_dropped(100, 1.0, seeded()).all()
    text = [TextFeatures(torch.ones(3, 2, width), torch.ones(3, 2, dtype=torch.bool)) for width in (4, 5)]
    is_dropped = torch.tensor([False, True, False])
    for part in drop_text(text, is_dropped):
        assert part.mask.tolist() == [[True, True], [False, False], [True, True]]
    assert all(part.mask.all() for part in text)  # the caller's features stay as they were
    assert not any(part.mask.any() for part in without_text(text))


def test_dropout_refuses_what_it_cannot_use() -> None:
    text = [TextFeatures(torch.ones(3, 2, 4), torch.ones(3, 2, dtype=torch.bool))]
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            draw_dropped(3, share, seeded())
    for is_dropped in (torch.zeros(2, dtype=torch.bool), torch.zeros(3)):
        with pytest.raises(ValueError, match="one per prompt"):
            drop_text(text, is_dropped)


def test_readers_refuse_no_prompts() -> None:
    with pytest.raises(ValueError, match="wrap one prompt"):
        encode([Reader(ByteEncoder())], [])
