"""Promises of the attention function, against attention written out."""

import math

import pytest
import torch
from torch import Tensor

from models.dit.attention import Spans, attention

from .helpers import latents, seeded


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(queries, heads, d) x (keys, heads, d): softmax of scaled products, a head at a time."""
    heads = []
    for h in range(q.shape[1]):
        scores = q[:, h] @ k[:, h].T / math.sqrt(q.shape[2])
        heads.append(torch.softmax(scores, dim=-1) @ v[:, h])
    return torch.stack(heads, dim=1)


def test_dense_attention_is_attention() -> None:
    q, k, v = latents(2, 5, 3, 8), latents(2, 7, 3, 8, seed=4), latents(2, 7, 3, 8, seed=5)
    out = attention(q, k, v)
    for b in range(2):
        torch.testing.assert_close(out[b], written_out(q[b], k[b], v[b]))


def test_masked_keys_are_as_if_absent() -> None:
    q, k, v = latents(1, 5, 3, 8), latents(1, 7, 3, 8, seed=4), latents(1, 7, 3, 8, seed=5)
    mask = torch.tensor([[True, False, True, True, False, False, True]])
    torch.testing.assert_close(attention(q, k, v, key_mask=mask), attention(q, k[:, mask[0]], v[:, mask[0]]))


def test_packed_samples_see_their_own_keys_only() -> None:
    q, k, v = latents(1, 9, 2, 8), latents(1, 6, 2, 8, seed=4), latents(1, 6, 2, 8, seed=5)
    spans = Spans(torch.tensor([0, 4, 5, 9], dtype=torch.int32), torch.tensor([0, 1, 4, 6], dtype=torch.int32), 4, 3)
    out = attention(q, k, v, spans=spans)
    for (a, b), (c, d) in [((0, 4), (0, 1)), ((4, 5), (1, 4)), ((5, 9), (4, 6))]:
        torch.testing.assert_close(out[0, a:b], written_out(q[0, a:b], k[0, c:d], v[0, c:d]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the variable-length kernel is CUDA's")
def test_the_variable_length_kernel_agrees_with_the_reference_on_cuda() -> None:
    q, k, v = (torch.randn(1, n, 4, 64, generator=seeded(n)).bfloat16().cuda() for n in (300, 301, 301))
    queries = torch.tensor([0, 100, 300], dtype=torch.int32, device="cuda")
    keys = torch.tensor([0, 1, 301], dtype=torch.int32, device="cuda")
    spans = Spans(queries, keys, 200, 300)
    on_cpu = Spans(queries.cpu(), keys.cpu(), 200, 300)
    reference = attention(q.float().cpu(), k.float().cpu(), v.float().cpu(), spans=on_cpu)
    torch.testing.assert_close(attention(q, k, v, spans=spans).float().cpu(), reference, rtol=2e-2, atol=2e-2)
    with pytest.raises(ValueError, match="bfloat16"):
        attention(q.float(), k.float(), v.float(), spans=spans)
