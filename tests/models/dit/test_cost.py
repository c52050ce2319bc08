"""The cost by formula against the network as built and torch's own counter."""

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.dit import CONFIGS, DiT
from models.dit.cost import flops_per_token, forward_cost, parameters, tokens

from .helpers import SMALL, TINY, built, latents, text_for


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_by_formula_are_those_of_the_built_network(name: str) -> None:
    with torch.device("meta"):
        model = DiT(CONFIGS[name])
    assert parameters(CONFIGS[name]) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "count"), [("1B", 1e9), ("5B", 5e9), ("30B", 30e9)])
def test_a_model_has_the_size_of_its_name_within_five_percent(name: str, count: float) -> None:
    assert parameters(CONFIGS[name]) == pytest.approx(count, rel=0.05)


def test_thirty_billion_run_a_768_px_video_of_256_frames_on_meta_as_73728_tokens() -> None:
    config = CONFIGS["30B"]
    seen = []
    with torch.device("meta"), torch.no_grad():
        model = DiT(config).bfloat16()
        model.patch.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
        out = model(torch.empty(1, 16, 32, 96, 96), torch.empty(1), meta_text(config.text_widths))
    assert out.shape == (1, 16, 32, 96, 96)
    assert seen == [(1, 73_728, 6144)]
    assert tokens(frames_px=256, height_px=768, width_px=768) == 73_728
    assert tokens(256, 256, 256) == 8_192 and tokens(1, 256, 256) == 256


def test_the_docs_page_prints_the_parameters_of_every_configuration() -> None:
    page = (Path(__file__).parents[3] / "docs/models/dit.md").read_text(encoding="utf-8")
    for name, config in CONFIGS.items():
        assert f"| `{name}` | {config.depth} | {config.width} | " in page and f"| {parameters(config):,} |" in page


def meta_text(widths: tuple[int, ...]) -> list:
    from models.text import TextFeatures

    return [TextFeatures(torch.empty(1, 5, width), torch.empty(1, 5, dtype=torch.bool)) for width in widths]


@pytest.mark.parametrize("config", [TINY, SMALL])
@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 16, 12)])
def test_flops_by_formula_are_a_profilers_within_one_percent(config, shape: tuple[int, int, int]) -> None:
    model, text = built(config), text_for([9], config)
    x, t = latents(1, 16, *shape), torch.tensor([0.4])
    # the plain kernel is made of matrix products, which the counter knows on a CPU; the fused one it does not
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x, t, text)
    count = shape[0] * shape[1] * shape[2] // 4
    cost = forward_cost(config, count, (9, 9))
    assert cost.forward == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert flops_per_token(config, count, (9, 9)) * count == pytest.approx(cost.forward)


def test_backward_costs_twice_forward() -> None:
    model, x, t, text = built(TINY), latents(1, 16, 4, 16, 16), torch.tensor([0.4]), text_for([9], TINY)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x, t, text).square().mean().backward()
    assert forward_cost(TINY, 256, (9, 9)).training == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_attention_is_over_half_of_the_operations_at_full_length() -> None:
    cost = forward_cost(CONFIGS["30B"], 73_728, (512, 256, 256))
    # 59 % where every parameter is charged to every token; modulation and the keys and values of text are not
    assert cost.attention / cost.forward == pytest.approx(0.634, abs=0.002)


@pytest.mark.parametrize("video", [(0, 256, 256), (8, 250, 256), (8, 256, 0)])
def test_a_video_that_makes_no_tokens_is_refused(video: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        tokens(*video)
