"""Promises of the transformer: what changes nothing, how it begins, what it can learn, what it refuses."""

import dataclasses
import functools

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models import flow
from models.dit import CONFIGS, DiT, DiTConfig
from models.dit.model import SwiGLU, patchify, unpatchify
from models.text import TextFeatures, drop_text, without_text

from .helpers import SMALL, TINY, built, latents, rows, seeded, text_for, trained

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
"""Float32, another order of summation."""


def test_patches_put_every_latent_pixel_in_one_token_and_back() -> None:
    x = latents(2, 5, 3, 4, 6)
    tokens = patchify(x)
    assert tokens.shape == (2, 3 * 2 * 3, 20)
    assert torch.equal(tokens[1, 7], x[1, :, 1, 0:2, 2:4].flatten())  # frame 1, patch row 0, column 1
    assert torch.equal(unpatchify(tokens, (3, 2, 3)), x)


def test_patch_embedding_is_a_convolution_of_stride_1_2_2() -> None:
    model, x = trained(), latents(1, 16, 2, 4, 4)
    kernel = model.patch.weight.unflatten(1, (16, 1, 2, 2))
    expected = torch.nn.functional.conv3d(x, kernel, stride=(1, 2, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.patch(patchify(x)), expected, **TOLERANCE)


@torch.no_grad()
def test_order_in_the_batch_changes_nothing() -> None:
    model, x, t, text = trained(), latents(3, 16, 2, 4, 6), torch.tensor([0.1, 0.5, 0.9]), text_for([4, 0, 7])
    order = [2, 0, 1]
    torch.testing.assert_close(model(x[order], t[order], rows(text, order)), model(x, t, text)[order], **TOLERANCE)


@torch.no_grad()
def test_padding_of_text_changes_nothing() -> None:
    model, x, t, text = trained(), latents(2, 16, 2, 4, 4), torch.tensor([0.2, 0.7]), text_for([3, 5])
    longer = [
        TextFeatures(
            torch.nn.functional.pad(part.features, (0, 0, 0, 9), value=1e3), torch.nn.functional.pad(part.mask, (0, 9))
        )
        for part in text
    ]
    torch.testing.assert_close(model(x, t, longer), model(x, t, text), **TOLERANCE)


@torch.no_grad()
def test_cross_attention_ignores_what_stands_in_padded_text_and_sees_what_stands_in_real_text() -> None:
    model, x, t, text = trained(), latents(2, 16, 1, 4, 4), torch.tensor([0.2, 0.7]), text_for([3, 6])
    before = model(x, t, text)
    changed = [TextFeatures(part.features.clone(), part.mask) for part in text]
    for part in changed:
        part.features[0, 3:] += 50.0
    torch.testing.assert_close(model(x, t, changed), before, **TOLERANCE)
    for part in changed:
        part.features[0, 2] += 50.0
    assert (model(x, t, changed)[0] - before[0]).abs().max() > 1e-3


@torch.no_grad()
def test_packing_videos_of_different_shapes_changes_nothing() -> None:
    model, t, text = trained(), torch.tensor([0.1, 0.4, 0.6, 0.9]), text_for([4, 0, 7, 2])
    videos = [latents(16, *grid, seed=i) for i, grid in enumerate([(1, 4, 4), (3, 2, 6), (4, 8, 8), (2, 6, 2)])]
    packed = model(videos, t, text)
    for i, video in enumerate(videos):
        alone = model(video[None], t[i : i + 1], rows(text, [i]))[0]
        assert packed[i].shape == video.shape
        torch.testing.assert_close(packed[i], alone, **TOLERANCE)


def test_packed_and_dense_batches_give_the_same_gradients() -> None:
    model, x, t, text = trained(), latents(2, 16, 2, 4, 4), torch.tensor([0.1, 0.8]), text_for([4, 2])
    model(x, t, text).square().mean().backward()
    dense = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    torch.stack(model(list(x), t, text)).square().mean().backward()
    for parameter, gradient in zip(model.parameters(), dense, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_a_dropped_text_shows_the_learned_token_alone() -> None:
    model, x, t, text = trained(), latents(2, 16, 1, 4, 4), torch.tensor([0.2, 0.7]), text_for([3, 6])
    dropped = model(x, t, drop_text(text, torch.tensor([True, False])))
    torch.testing.assert_close(dropped[0], model(x, t, without_text(text))[0], **TOLERANCE)
    torch.testing.assert_close(dropped[1], model(x, t, text)[1], **TOLERANCE)
    assert torch.isfinite(dropped).all()


@torch.no_grad()
def test_every_token_sees_every_other_and_its_own_place() -> None:
    model, t, text = trained(), torch.tensor([0.3]), text_for([3])
    x = latents(1, 16, 3, 4, 4)
    base = model(x, t, text)
    late = x.clone()
    late[:, :, 2, 3, 3] += 3.0
    assert ((model(late, t, text) - base)[:, :, 0, 0, 0].abs() > 1e-5).any()  # attention is not causal
    flipped = model(x.flip(2), t, text).flip(2)
    assert (flipped - base).abs().max() > 1e-3  # frames are told apart


def test_the_zero_head_gives_a_first_loss_of_two() -> None:
    model, data = built(TINY), latents(8, 16, 4, 16, 16)
    noise = latents(8, 16, 4, 16, 16, seed=9)
    t = flow.draw_logit_normal(8, seeded(5))
    text = text_for([5] * 8, TINY)
    velocity = model(flow.interpolate(noise, data, t), t, text)
    loss = (velocity - flow.velocity_target(noise, data)).square().mean()
    assert not velocity.any()
    assert loss.item() == pytest.approx(2.0, rel=0.03)


def test_after_one_step_every_parameter_that_a_loss_reaches_has_a_gradient() -> None:
    model = trained()
    model(latents(1, 16, 4, 16, 16), torch.tensor([0.4]), text_for([3])).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.slow
def test_tiny_memorises_one_sample_within_200_steps() -> None:
    losses = memorise(steps=200)
    assert losses[0] == pytest.approx(2.0, rel=0.06)  # 4 x 8,192 numbers only
    assert sum(losses[-10:]) / 10 < 0.15


def memorise(steps: int) -> list[float]:
    generator = seeded(0)
    model = built(TINY)
    coarse = torch.randn(1, 16, 2, 4, 4, generator=generator)
    data = torch.nn.functional.interpolate(coarse, size=(2, 16, 16), mode="trilinear")
    data = ((data - data.mean()) / data.std()).expand(4, -1, -1, -1, -1)
    text = rows(text_for([6], TINY), [0] * 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, (step + 1) / 20)
        t = flow.draw_logit_normal(4, generator)
        noise = torch.randn(data.shape, generator=generator)
        velocity = model(flow.interpolate(noise, data, t), t, text)
        loss = (velocity - flow.velocity_target(noise, data)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def test_bfloat16_agrees_with_float32_to_two_percent() -> None:
    model, x, t, text = built(TINY), latents(2, 16, 4, 8, 8), torch.tensor([0.3, 0.8]), text_for([5, 2], TINY)
    torch.nn.init.normal_(model.head.out.weight, std=0.02, generator=seeded(8))
    full = model(x, t, text)
    half = model.to(torch.bfloat16)(x, t, text)
    assert half.dtype == x.dtype  # answered in the caller's dtype
    assert (half - full).norm() / full.norm() < 0.02


def test_compiled_blocks_agree_with_eager_forward_and_backward() -> None:
    eager, x, t, text = trained(), latents(2, 16, 2, 4, 4), torch.tensor([0.3, 0.8]), text_for([5, 2])
    compiled = trained()
    for block in compiled.blocks:
        block.compile(fullgraph=True, backend="aot_eager")
    for batch in (x, list(x)):
        results = []
        for model in (eager, compiled):
            model.zero_grad()
            out = model(batch, t, text)
            out = out if isinstance(out, Tensor) else torch.stack(out)
            out.square().mean().backward()
            results.append([out.detach(), *[parameter.grad.clone() for parameter in model.parameters()]])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_feed_forward_has_the_value_and_gradients_of_plain_swiglu() -> None:
    gate, up = (latents(3, 7, seed=i).double().requires_grad_() for i in (0, 1))
    torch.testing.assert_close(SwiGLU.apply(gate, up), gate * torch.sigmoid(gate) * up)
    assert torch.autograd.gradcheck(SwiGLU.apply, (gate, up))


def test_recomputed_blocks_give_the_gradients_of_kept_ones() -> None:
    kept, recomputed = trained(), trained()
    for block in recomputed.blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    for model in (kept, recomputed):
        model(latents(1, 16, 2, 4, 4), torch.tensor([0.4]), text_for([3])).square().mean().backward()
    for one, other in zip(kept.parameters(), recomputed.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_the_same_seed_gives_the_same_network_and_meta_costs_nothing() -> None:
    one, other = built(seed=4), built(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with torch.device("meta"):
        model = DiT(SMALL)
    model.to_empty(device="cpu")
    model.init_weights(seeded(4))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), model.parameters(), strict=True))


@torch.no_grad()
def test_a_saved_network_loads_and_answers_the_same(tmp_path) -> None:
    model, x, t, text = trained().eval(), latents(1, 16, 2, 4, 4), torch.tensor([0.3]), text_for([5])
    model.save_pretrained(tmp_path)
    loaded = DiT.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert torch.equal(loaded(x, t, text), model(x, t, text))
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"width": 64', '"width": 128'))
    with pytest.raises(ValueError, match=r"given .* expected"):
        DiT.from_pretrained(tmp_path)


GOOD = {"latents": latents(2, 16, 2, 4, 4), "t": torch.tensor([0.3, 0.8]), "text": text_for([5, 2])}


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"latents": latents(16, 2, 4, 4)}, "5 axes .* unsqueeze"),
        ({"latents": latents(2, 4, 2, 4, 4)}, "4 channels; expected 16"),
        ({"latents": latents(2, 16, 0, 4, 4)}, "empty latents"),
        ({"latents": latents(2, 16, 2, 5, 4)}, "even height and width .* multiples of 16 pixels"),
        ({"latents": latents(2, 16, 5, 4, 4)}, "at most .* position tables; grow them"),
        ({"latents": latents(2, 16, 2, 4, 4).round().int()}, "floating dtype"),
        ({"latents": torch.full((2, 16, 2, 4, 4), float("nan"))}, "NaN or infinity"),
        ({"latents": []}, "empty list"),
        ({"latents": [latents(1, 16, 2, 4, 4)]}, "4 axes"),
        ({"t": torch.tensor([0.3])}, r"expected floats of shape \(2,\)"),
        ({"t": torch.tensor([0.3, 1.2])}, r"expected 0 \(noise\) to 1"),
        ({"t": torch.tensor([0.3, float("nan")])}, r"expected 0 \(noise\) to 1"),
        ({"text": text_for([5, 2])[:1]}, "expected 2, of widths"),
        ({"text": text_for([5, 2])[::-1]}, "encoders in the order of its text_widths"),
        ({"text": text_for([5, 2, 1])}, "one prompt per video"),
        ({"text": [TextFeatures(f, m.float()) for f, m in text_for([5, 2])]}, r"convert it with .bool"),
        ({"text": [TextFeatures(f * float("inf"), m) for f, m in text_for([5, 2])]}, "NaN or infinity"),
    ],
)
def test_bad_input_is_refused_with_the_mend(change: dict, mend: str) -> None:
    given = GOOD | change
    with pytest.raises(ValueError, match=mend):
        built()(given["latents"], given["t"], given["text"])


@pytest.mark.parametrize("change", [{"depth": 0}, {"heads": 5}, {"width": 64.0}, {"text_widths": (0,)}])
def test_a_configuration_that_makes_no_network_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(SMALL, **change)


def test_every_named_configuration_has_whole_heads() -> None:
    assert set(CONFIGS) == {"tiny", "1B", "5B", "30B"}
    assert all(isinstance(c, DiTConfig) and c.head_width * c.heads == c.width for c in CONFIGS.values())
    assert CONFIGS["30B"].head_width == 128
