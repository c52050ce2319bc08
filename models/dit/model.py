"""The transformer: patches in, velocity out. One device, one precision, no text encoder and no noise.

Block order follows Fig. 8 of the paper: add positions; scale-and-shift norm, self-attention, gate; cross-attention; scale-
and-shift norm, feed-forward, gate. What the paper leaves open, and what we chose, stands in docs/models/dit.md.

Shapes: B batch, C channels, T H W latent frames, rows, columns; S = T (H/2) (W/2) tokens of a video; D = `config.width`;
L text tokens of all encoders together. A packed batch has batch axis 1 and its samples one after another along S.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dit import checks
from models.dit.attention import Spans, attention
from models.dit.config import PATCH, DiTConfig
from models.hub import from_pretrained, save_pretrained
from models.text.features import TextFeatures, TextProjections

TIMESTEP_FEATURES = 256
MODULATIONS = 6  # shift, scale and gate, once for self-attention and once for the feed-forward


class Packing(NamedTuple):
    """What blocks need to know of a packed batch; None in its place means a dense one."""

    owners: Tensor
    """(S,) int64: the sample each token belongs to."""
    own: Spans
    """Spans of self-attention."""
    text: Spans
    """Spans of cross-attention."""


class Attention(nn.Module):
    """Multi-head attention without biases; queries from `x`, keys and values from `context`."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, context: Tensor, *, key_mask: Tensor | None = None, spans: Spans | None = None
    ) -> Tensor:
        # -1 for the number of heads: under tensor parallelism a rank holds only some of them
        heads = (-1, self.head_width)
        q = self.query(x).unflatten(-1, heads)
        k = self.key(context).unflatten(-1, heads)
        v = self.value(context).unflatten(-1, heads)
        return self.out(attention(q, k, v, key_mask=key_mask, spans=spans).flatten(-2))


class SwiGLU(torch.autograd.Function):
    """silu(gate) * up, keeping its two inputs only: silu(gate) is computed again in backward.

    Plain autograd keeps it too, the widest tensor of a block after these two; this saves a tenth of a block's activations
    for one cheap operation. Compiled blocks do the same by themselves.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        # in place on fresh tensors: three wide tensors live here at most, and this is a block's peak under recomputation
        return torch.ops.aten.silu_backward(grads[0], gate).mul_(up), F.silu(gate).mul_(grads[0])


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, width: int, ffn_width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, ffn_width, bias=False)
        self.up = nn.Linear(width, ffn_width, bias=False)
        self.down = nn.Linear(ffn_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(SwiGLU.apply(self.gate(x), self.up(x)))


class Block(nn.Module):
    """One layer. Its inputs are plain tensors, so that it can be compiled, recomputed and sharded on its own."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.modulation_bias = nn.Parameter(torch.zeros(MODULATIONS, config.width))
        self.self_norm = nn.RMSNorm(config.width, eps=1e-5)
        self.self_attention = Attention(config.width, config.head_width)
        self.cross_norm = nn.RMSNorm(config.width, eps=1e-5)
        self.cross_attention = Attention(config.width, config.head_width)
        self.ffn_norm = nn.RMSNorm(config.width, eps=1e-5)
        self.ffn = FeedForward(config.width, config.ffn_width)

    def forward(
        self,
        x: Tensor,  # (B, S, D)
        positions: Tensor,  # (1, S, D)
        modulation: Tensor,  # (B, 6, D), of every sample, also in a packed batch
        text: Tensor,  # (B, L, D)
        *,
        text_mask: Tensor | None = None,  # (B, L) bool; None in a packed batch
        packing: Packing | None = None,
    ) -> Tensor:  # (B, S, D)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = _per_token(modulation + self.modulation_bias, packing)
        own, cross = (None, None) if packing is None else (packing.own, packing.text)
        x = x + positions
        h = _modulated(self.self_norm(x), shift_a, scale_a)
        x = torch.addcmul(x, gate_a, self.self_attention(h, h, spans=own))
        x = x + self.cross_attention(self.cross_norm(x), text, key_mask=text_mask, spans=cross)
        h = _modulated(self.ffn_norm(x), shift_f, scale_f)
        return torch.addcmul(x, gate_f, self.ffn(h))


class TimestepModulation(nn.Module):
    """t -> the six modulation vectors shared by all layers, (B,) -> (B, 6, D)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(TIMESTEP_FEATURES, config.modulation_width, bias=False)
        self.out = nn.Linear(config.modulation_width, MODULATIONS * config.width, bias=False)

    def forward(self, t: Tensor) -> Tensor:
        features = timestep_features(t).to(self.hidden.weight.dtype)
        return self.out(F.silu(self.hidden(features))).unflatten(-1, (MODULATIONS, -1))


class Positions(nn.Module):
    """Factorised learnable positions, the sum of one row per axis (NaViT; paper, backbone)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.time = nn.Parameter(torch.zeros(config.max_frames, config.width))
        self.height = nn.Parameter(torch.zeros(config.max_rows, config.width))
        self.width = nn.Parameter(torch.zeros(config.max_columns, config.width))

    def forward(self, frames: int, rows: int, columns: int) -> Tensor:
        """(frames x rows x columns, D), frames slowest."""
        grid = self.time[:frames, None, None] + self.height[None, :rows, None] + self.width[None, None, :columns]
        return grid.flatten(0, 2)


class Head(nn.Module):
    """Modulated norm and the projection to patches of velocity; begins at zero, so that training begins at loss 2.0."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.modulation_bias = nn.Parameter(torch.zeros(2, config.width))
        self.norm = nn.RMSNorm(config.width, eps=1e-5)
        self.out = nn.Linear(config.width, config.out_channels * PATCH * PATCH, bias=False)

    def forward(self, x: Tensor, modulation: Tensor, packing: Packing | None = None) -> Tensor:
        shift, scale = _per_token(modulation[:, :2] + self.modulation_bias, packing)
        return self.out(_modulated(self.norm(x), shift, scale))


class DiT(nn.Module):
    """The Movie Gen transformer.

    Building it gives shapes only; call `init_weights` before training, or load weights. On the meta device
    (`with torch.device("meta"): DiT(config)`) it costs no memory at any size.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Linear(config.in_channels * PATCH * PATCH, config.width, bias=False)
        self.positions = Positions(config)
        self.timestep = TimestepModulation(config)
        self.text = TextProjections(config.text_widths, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head = Head(config)

    def forward(
        self, latents: Tensor | Sequence[Tensor], t: Tensor, text: Sequence[TextFeatures]
    ) -> Tensor | list[Tensor]:
        """Velocity at time t (0 noise, 1 data), of the shape of `latents` with `config.out_channels` channels.

        `latents` is one tensor (B, in_channels, T, H, W) or, for videos of different shapes packed into one sequence, a
        list of B tensors (in_channels, T, H, W); the answer has the same form and dtype. H and W are even. `t` is (B,) in
        [0, 1]. `text` has one entry per text encoder of the configuration, each with batch B. ValueError for anything
        else; NaN and range are looked for on the CPU only, because reading a value back would stall a GPU's queue.
        """
        if isinstance(latents, Tensor):
            return self._dense(latents, t, text)
        return self._packed(list(latents), t, text)

    def _dense(self, latents: Tensor, t: Tensor, text: Sequence[TextFeatures]) -> Tensor:
        checks.check_latents(latents, self.config, rank=5)
        checks.check_batch(latents.shape[0], t, text, self.config)
        context, text_mask = self.text(text)  # (B, L, D), (B, L)
        x = self.patch(patchify(latents).to(self.patch.weight.dtype))  # (B, S, D)
        positions = self.positions(*grid_of(latents))[None]  # (1, S, D)
        modulation = self.timestep(t)  # (B, 6, D)
        for block in self.blocks:
            x = block(x, positions, modulation, context, text_mask=text_mask)
        velocity = self.head(x, modulation)  # (B, S, out_channels x 4)
        return unpatchify(velocity, grid_of(latents)).to(latents.dtype)

    def _packed(self, latents: list[Tensor], t: Tensor, text: Sequence[TextFeatures]) -> list[Tensor]:
        checks.check_packed(latents, self.config)
        checks.check_batch(len(latents), t, text, self.config)
        grids = [grid_of(video) for video in latents]
        context, text_mask = self.text(text)
        packing = _pack([math.prod(grid) for grid in grids], text_mask)
        tokens = torch.cat([patchify(video[None])[0] for video in latents])
        x = self.patch(tokens.to(self.patch.weight.dtype))[None]  # (1, S, D)
        positions = torch.cat([self.positions(*grid) for grid in grids])[None]
        modulation = self.timestep(t)  # (B, 6, D)
        words = context[text_mask][None]  # (1, all real text tokens, D)
        for block in self.blocks:
            x = block(x, positions, modulation, words, packing=packing)
        pieces = self.head(x, modulation, packing)[0].split([math.prod(grid) for grid in grids])
        return [
            unpatchify(piece[None], grid)[0].to(video.dtype)
            for piece, grid, video in zip(pieces, grids, latents, strict=True)
        ]

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the starting weights, on whatever device the parameters are.

        Matrices get a normal of deviation 0.02 cut at two deviations, those that end a residual branch 0.02 / sqrt(3 depth)
        so that the stream's variance does not grow with depth; norms are one; the modulation's last matrix and the head
        are zero, its gates' biases one: each layer begins as a plain pre-norm transformer layer whatever t is.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _draw(module.weight, 0.02, generator)
            elif isinstance(module, nn.RMSNorm | nn.LayerNorm):
                module.reset_parameters()
        for block in self.blocks:
            assert isinstance(block, Block)
            for end in (block.self_attention.out, block.cross_attention.out, block.ffn.down):
                _draw(end.weight, 0.02 / math.sqrt(3 * self.config.depth), generator)
            block.modulation_bias.zero_()
            block.modulation_bias[2::3] = 1
        for table in self.positions.parameters():
            _draw(table, 0.02, generator)
        _draw(self.text.null, 0.02, generator)
        self.timestep.out.weight.zero_()
        self.head.modulation_bias.zero_()
        self.head.out.weight.zero_()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors into `folder`; see `models.hub`."""
        save_pretrained(self, self.config, folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """The network saved in `folder`, on the CPU, in eval mode; ValueError as `models.hub` describes."""
        return from_pretrained(folder, DiTConfig, cls)


def timestep_features(t: Tensor) -> Tensor:
    """Sines and cosines of 1000 t at periods from 2 pi to 2 pi 10,000: (B,) -> (B, 256), float32."""
    half = TIMESTEP_FEATURES // 2
    rates = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10_000.0) / half))
    angles = 1000.0 * t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def grid_of(latents: Tensor) -> tuple[int, int, int]:
    """Patches along frames, height, width of latents (..., C, T, H, W)."""
    frames, height, width = latents.shape[-3:]
    return frames, height // PATCH, width // PATCH


def patchify(latents: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B, S, C x 4): frames slowest, columns fastest; inside a token channel, row, column."""
    b, c, frames, h, w = latents.shape
    x = latents.reshape(b, c, frames, h // PATCH, PATCH, w // PATCH, PATCH)
    return x.permute(0, 2, 3, 5, 1, 4, 6).reshape(b, frames * (h // PATCH) * (w // PATCH), c * PATCH * PATCH)


def unpatchify(tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The reverse of `patchify`: (B, S, C x 4) -> (B, C, T, H, W) for a grid of patches (frames, rows, columns)."""
    frames, rows, columns = grid
    x = tokens.reshape(tokens.shape[0], frames, rows, columns, -1, PATCH, PATCH)
    return x.permute(0, 4, 1, 2, 5, 3, 6).reshape(tokens.shape[0], -1, frames, rows * PATCH, columns * PATCH)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


def _per_token(vectors: Tensor, packing: Packing | None) -> tuple[Tensor, ...]:
    """(B, n, D) -> n tensors that broadcast against the tokens: (B, 1, D), or (1, S, D) in a packed batch."""
    if packing is None:
        return vectors.unsqueeze(2).unbind(1)
    # one gather per vector, not one of all: six at once would hold six times the activations
    return tuple(vector[packing.owners][None] for vector in vectors.unbind(1))


def _pack(lengths: list[int], text_mask: Tensor) -> Packing:
    device = text_mask.device
    counts = torch.tensor(lengths, device=device)
    words = text_mask.sum(1)
    tokens, text = _offsets(counts), _offsets(words)
    longest_text = int(words.max())
    return Packing(
        owners=torch.repeat_interleave(torch.arange(len(lengths), device=device), counts, output_size=sum(lengths)),
        own=Spans(tokens, tokens, max(lengths), max(lengths)),
        text=Spans(tokens, text, max(lengths), longest_text),
    )


def _offsets(counts: Tensor) -> Tensor:
    return F.pad(counts.cumsum(0), (1, 0)).to(torch.int32)


def _draw(parameter: Tensor, std: float, generator: torch.Generator | None) -> None:
    nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std, generator=generator)
