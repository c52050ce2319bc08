"""The one attention function of the transformer: dense, with masked keys, or packed.

Belongs here: which kernel computes softmax(q k / sqrt(d)) v, and nothing else. Does not belong here: projections and
heads (`model.py`) or the splitting of sequences over devices (`training/parallel.py`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Spans(NamedTuple):
    """Where each sample of a packed batch lies: sample b owns rows `offsets[b]` up to, not including, `offsets[b + 1]`."""

    query_offsets: Tensor
    """(B + 1,) int32, from 0 to the number of queries, not falling."""
    key_offsets: Tensor
    """(B + 1,) int32, from 0 to the number of keys, not falling."""
    max_queries: int
    """Queries of the longest sample."""
    max_keys: int
    """Keys of the longest sample."""


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None, spans: Spans | None = None) -> Tensor:
    """Full bidirectional attention, (B, queries, heads, head_width) -> the same shape as q.

    `k` and `v` are (B, keys, heads, head_width). With `key_mask` (B, keys), bool, only keys marked True are seen; each
    sample needs one. With `spans` the batch axis is 1 and each sample sees its own keys only. Packed batches run
    torch's variable-length kernel on CUDA, which takes bfloat16 and float16 only (ValueError otherwise), and
    `packed_reference` elsewhere.
    """
    if spans is None:
        mask = None if key_mask is None else key_mask[:, None, None, :]
        return _scaled_dot_product(q, k, v, mask)
    if not q.is_cuda:
        return packed_reference(q, k, v, spans)
    if q.dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(
            f"packed attention on CUDA was given {q.dtype}; expected bfloat16 or float16, the dtypes of the "
            "variable-length kernel; run the model in bfloat16, or give videos of one shape as one tensor"
        )
    from torch.nn.attention.varlen import varlen_attn

    packed = varlen_attn(q[0], k[0], v[0], spans.query_offsets, spans.key_offsets, spans.max_queries, spans.max_keys)
    assert isinstance(packed, Tensor)  # a tuple only where return_aux is asked for
    return packed[None]


def packed_reference(q: Tensor, k: Tensor, v: Tensor, spans: Spans) -> Tensor:
    """Packed attention said plainly: dense attention under a block-diagonal mask. Memory grows with queries x keys."""
    own = _owner(spans.query_offsets, q.shape[1])[:, None] == _owner(spans.key_offsets, k.shape[1])[None, :]
    return _scaled_dot_product(q, k, v, own[None, None])


def _owner(offsets: Tensor, length: int) -> Tensor:
    """Index of the sample that owns each of `length` rows, (length,)."""
    rows = torch.arange(length, device=offsets.device, dtype=offsets.dtype)
    return torch.searchsorted(offsets[1:].contiguous(), rows, right=True)


def _scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2)
