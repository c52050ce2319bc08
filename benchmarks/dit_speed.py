"""Speed and memory of our block stack beside the nearest ones of diffusers, in one run on one machine.

    python benchmarks/dit_speed.py                                  # seconds on a CPU: does it run, and what is the ratio
    python benchmarks/dit_speed.py --width 3072 --depth 8 --frames 32 --side 32 --compile    # on a GPU

Belongs here: forward and backward of transformer blocks at equal width, depth, heads, tokens, text tokens and feed-forward
parameters, on random inputs. Does not belong here: data, optimisers, several devices.

The rivals: Wan's blocks (self-attention, cross-attention, two-matrix feed-forward, shared modulation with a table per layer:
ours but for SwiGLU, RMSNorm and positions) and LTX's (the same family, with RMSNorm). Recomputation is torch's checkpoint
around each block, the same for all. Rounds take turns, so that a busy machine slows all alike; the median is printed. Memory
is the peak above the weights during one forward and backward: the allocator's figure on CUDA, on a CPU the bytes of live
tensors (kernels' own workspace is not seen there).
"""

import argparse
import statistics
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakIdKeyDictionary

from models.dit import DiT, DiTConfig
from models.text.torchvision_import import import_torchvision

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bfloat16 peak by part of the device's name, from the vendor's data sheets."""


@dataclass(frozen=True)
class Sizes:
    """What all contenders share."""

    width: int
    depth: int
    heads: int
    batch: int
    frames: int
    side: int
    text_tokens: int

    @property
    def ffn_width(self) -> int:
        """Inner width of a SwiGLU with as many parameters as two matrices of width x 4 width; a multiple of 64."""
        return round(8 * self.width / 3 / 64) * 64

    @property
    def tokens(self) -> int:
        return self.frames * (self.side // 2) ** 2

    @property
    def training_flops(self) -> int:
        """Of one forward and backward of the stack: the block's share of `models.dit.cost`, by the same counting."""
        d, tokens, text = self.width, self.tokens, self.text_tokens
        linear = 2 * tokens * (6 * d * d + 3 * d * self.ffn_width) + 2 * text * 2 * d * d
        return 3 * self.batch * self.depth * (linear + 4 * tokens * (tokens + text) * d)


@dataclass(frozen=True)
class Contender:
    """A stack of blocks and the call of one of them: (block, x) -> x."""

    name: str
    blocks: nn.ModuleList
    call: Callable[[nn.Module, Tensor], Tensor]
    x: Tensor


def ours(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Contender:
    config = DiTConfig(
        depth=sizes.depth, width=sizes.width, ffn_width=sizes.ffn_width, heads=sizes.heads, text_widths=(1,),
        max_frames=sizes.frames, max_rows=sizes.side // 2, max_columns=sizes.side // 2,
    )  # fmt: skip
    model = DiT(config)
    model.init_weights(torch.Generator().manual_seed(0))
    model.to(device, dtype)
    with torch.no_grad():
        positions = model.positions(sizes.frames, sizes.side // 2, sizes.side // 2)[None]
    x, text, modulation, mask = _inputs(sizes, device, dtype)
    return Contender(
        "reelmill", model.blocks, lambda block, x: block(x, positions, modulation, text, text_mask=mask), x
    )


def wan(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Contender:
    from diffusers import WanTransformer3DModel

    model: Any = WanTransformer3DModel(
        num_attention_heads=sizes.heads, attention_head_dim=sizes.width // sizes.heads, text_dim=sizes.width,
        ffn_dim=sizes.ffn_width * 3 // 2, num_layers=sizes.depth,
    )  # fmt: skip
    model.blocks.to(device, dtype)
    rotary = model.rope(torch.empty(1, 16, sizes.frames, sizes.side, sizes.side, device=device))
    x, text, modulation, _ = _inputs(sizes, device, dtype)
    return Contender("diffusers Wan", model.blocks, lambda block, x: block(x, text, modulation, rotary), x)


def ltx(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Contender:
    from diffusers import LTXVideoTransformer3DModel

    model: Any = LTXVideoTransformer3DModel(
        num_attention_heads=sizes.heads, attention_head_dim=sizes.width // sizes.heads, cross_attention_dim=sizes.width,
        num_layers=sizes.depth,
    )  # fmt: skip
    blocks = model.transformer_blocks.to(device, dtype)
    x, text, modulation, mask = _inputs(sizes, device, dtype)
    rotary = model.rope(x, sizes.frames, sizes.side // 2, sizes.side // 2, None)
    bias = torch.zeros_like(mask, dtype=dtype)[:, None]  # its mask is added to the scores
    return Contender(
        "diffusers LTX", blocks, lambda block, x: block(x, text, modulation.flatten(1)[:, None], rotary, bias), x
    )


def _inputs(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (B, S, D), text (B, L, D), modulation (B, 6, D), text mask (B, L) of ones."""
    x = torch.randn(sizes.batch, sizes.tokens, sizes.width, device=device, dtype=dtype)
    text = torch.randn(sizes.batch, sizes.text_tokens, sizes.width, device=device, dtype=dtype)
    modulation = 0.1 * torch.randn(sizes.batch, 6, sizes.width, device=device, dtype=dtype)
    return x, text, modulation, torch.ones(text.shape[:2], dtype=torch.bool, device=device)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make and that are still referenced; remembers the most."""

    def __init__(self, not_counted: Iterable[Tensor]) -> None:
        super().__init__()
        self.now_bytes = self.peak_bytes = 0
        self._seen: Any = WeakIdKeyDictionary()
        for tensor in not_counted:  # views of weights would count the weights
            self._seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        if storage in self._seen:
            return
        self._seen[storage] = True
        self.now_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)
        weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, count_bytes: int) -> None:
        self.now_bytes -= count_bytes


def step(contender: Contender, is_recomputing: bool) -> None:
    """One forward and backward, gradients dropped."""
    x = contender.x.detach().requires_grad_()
    for block in contender.blocks:
        x = checkpoint(contender.call, block, x, use_reentrant=False) if is_recomputing else contender.call(block, x)
    x.float().square().mean().backward()
    contender.blocks.zero_grad(set_to_none=True)


def peak_mib(contender: Contender, is_recomputing: bool) -> float:
    """Most memory above weights and inputs during one step, gradients of the weights included."""
    if contender.x.is_cuda:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(contender, is_recomputing)
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with LiveBytes([*contender.blocks.parameters(), contender.x]) as live:
        step(contender, is_recomputing)
    return live.peak_bytes / 2**20


def step_s(contender: Contender, is_recomputing: bool) -> float:
    synchronize = torch.cuda.synchronize if contender.x.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    step(contender, is_recomputing)
    synchronize()
    return time.perf_counter() - start


def compare(contenders: list[Contender], sizes: Sizes, rounds: int, peak_tflops: float | None) -> None:
    """Two tables, activations kept and recomputed; ratios are to the first contender, ours: above 1, ours is ahead."""
    for is_recomputing in (False, True):
        for contender in contenders:
            step(contender, is_recomputing)
            step(contender, is_recomputing)
        memory_mib = [peak_mib(contender, is_recomputing) for contender in contenders]
        turns = [[step_s(contender, is_recomputing) for contender in contenders] for _ in range(rounds)]
        medians_s = [statistics.median(times) for times in zip(*turns, strict=True)]
        title = "blocks recomputed" if is_recomputing else "activations kept"
        print(f"{title:20}{'parameters':>12}{'step ms':>10}{'MiB':>10}{'MFU':>8}{'time x':>9}{'memory x':>10}")
        for contender, time_s, mib in zip(contenders, medians_s, memory_mib, strict=True):
            count = sum(parameter.numel() for parameter in contender.blocks.parameters())
            mfu = "-" if peak_tflops is None else f"{sizes.training_flops / time_s / peak_tflops / 1e12:.1%}"
            print(
                f"{contender.name:20}{count / 1e6:>10.1f} M{time_s * 1e3:>10.1f}{mib:>10.1f}{mfu:>8}"
                f"{time_s / medians_s[0]:>9.2f}{mib / memory_mib[0]:>10.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Our transformer blocks beside diffusers': time, memory, MFU.")
    parser.add_argument("--width", type=int, default=256, help="channels of the residual stream")
    parser.add_argument("--depth", type=int, default=6, help="blocks")
    parser.add_argument("--heads", type=int, help="attention heads (width / 64, from width 2048 on width / 128)")
    parser.add_argument("--batch", type=int, default=1, help="videos per step")
    parser.add_argument("--frames", type=int, default=4, help="latent frames")
    parser.add_argument("--side", type=int, default=32, help="latent height and width")
    parser.add_argument("--text-tokens", type=int, default=64, help="text tokens per video")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps per contender, after two untimed")
    parser.add_argument("--compile", action="store_true", help="compile the blocks of all contenders (inductor)")
    parser.add_argument("--peak-tflops", type=float, help="of the device in bfloat16, where its name is not known")
    args = parser.parse_args()
    heads = args.heads or args.width // (128 if args.width >= 2048 else 64)
    sizes = Sizes(args.width, args.depth, heads, args.batch, args.frames, args.side, args.text_tokens)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    import_torchvision()
    contenders = [make(sizes, device, dtype) for make in (ours, wan, ltx)]
    if args.compile:
        for contender in contenders:
            for block in contender.blocks:
                block.compile(fullgraph=True)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{name}, {dtype}, {'compiled' if args.compile else 'eager'}, torch {torch.__version__}; {sizes.depth} blocks of "
        f"{sizes.width}, {sizes.batch} x {sizes.tokens} tokens, {sizes.training_flops / 1e9:.1f} GFLOP a step by formula"
    )
    peak = args.peak_tflops or next((value for key, value in PEAK_TFLOPS.items() if key in name), None)
    compare(contenders, sizes, args.rounds, peak)


if __name__ == "__main__":
    main()
