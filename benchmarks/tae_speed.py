"""Forward and backward time and peak memory of the TAE beside diffusers' video autoencoders, in one run.

    python benchmarks/tae_speed.py                          # CPU, a few minutes
    python benchmarks/tae_speed.py --base-width 128 --side 256 --dtype bfloat16    # on a GPU

The nearest autoencoders in diffusers 0.42: CogVideoX's set to 8x8x8 (LDM-style like ours, but full 3D convolutions),
HunyuanVideo's (the same kind, 4x8x8 at most), Cosmos' (8x8x8 of 2.5D convolutions, but behind a 4x4x4 wavelet patching, so
that no layer ever sees full resolution). Each is built twice: at our widths, and with its width scaled to our number of
parameters. All have 16 latent channels, random weights, and reconstruct the same clip; causal ones take 8k + 1 frames where
ours takes 8k, so times and memory are given per frame.

Rounds are interleaved (ours, rival, rival, .., ours, ..) so that a change of the machine's load meets all alike; the median
is printed. Memory is measured in a process of its own for each model: on a GPU the allocator's peak, on a CPU the growth of
the resident set.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.tae.autoencoder import ImageAutoencoderConfig, TAEConfig, TemporalAutoencoder
from models.text.torchvision_import import import_torchvision

GROUPS = 8
RIVALS = ("cogvideox 8x8x8", "cosmos 8x8x8", "hunyuanvideo 4x8x8")


@dataclass(frozen=True)
class Setting:
    """What is measured: widths are base_width times 1, 2, 4, 4; frames of side x side pixels, batch 1."""

    base_width: int = 32
    side: int = 64
    frames: int = 16
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True)
class Entry:
    """One row: which network, how wide, and whether it recomputes activations in backward."""

    kind: str
    base_width: int
    is_recomputing: bool = False

    @property
    def label(self) -> str:
        return f"{self.kind}, width {self.base_width}" + (", recompute" if self.is_recomputing else "")

    def frames(self, setting: Setting) -> int:
        return setting.frames if self.kind == "reelmill 8x8x8" else setting.frames + 1


def build(entry: Entry) -> nn.Module:
    """The network of one row, with random weights, on the current default device."""
    widths = tuple(entry.base_width * factor for factor in (1, 2, 4, 4))
    if entry.kind == "reelmill 8x8x8":
        tae = TemporalAutoencoder(TAEConfig(ImageAutoencoderConfig(widths=widths, norm_groups=GROUPS)))
        tae.recompute = entry.is_recomputing
        return tae
    import_torchvision()
    import diffusers

    diffusers.utils.logging.set_verbosity_error()  # it warns on every .to(dtype)
    common = {"block_out_channels": widths, "latent_channels": 16, "layers_per_block": 2, "norm_num_groups": GROUPS}
    model: Any
    if entry.kind == "cogvideox 8x8x8":
        blocks = {"down_block_types": ["CogVideoXDownBlock3D"] * 4, "up_block_types": ["CogVideoXUpBlock3D"] * 4}
        model = diffusers.AutoencoderKLCogVideoX(**common, **blocks, temporal_compression_ratio=8)
    elif entry.kind == "hunyuanvideo 4x8x8":
        model = diffusers.AutoencoderKLHunyuanVideo(**common)
    else:
        model = diffusers.AutoencoderKLCosmos(
            encoder_block_out_channels=widths, decode_block_out_channels=tuple(reversed(widths)), num_layers=2
        )
    if entry.is_recomputing:
        model.enable_gradient_checkpointing()
    return cast(nn.Module, model)


def parameters(entry: Entry) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(entry).parameters())


def width_of_equal_size(kind: str, wanted: int) -> int:
    """The base width, a multiple of 8, at which the rival's number of parameters is nearest to `wanted`.

    To be called in a process of its own: some of diffusers' classes keep tensors made at first use, which here are meta.
    """
    return min(range(GROUPS, 40 * GROUPS, GROUPS), key=lambda width: abs(parameters(Entry(kind, width)) - wanted))


def reconstruct(model: Any, video: Tensor) -> Tensor:
    if isinstance(model, TemporalAutoencoder):
        return model(video)[0]
    latents = model.encode(video).latent_dist.mode()
    return cast(Tensor, model.decode(latents).sample)


def measure_step(model: nn.Module, video: Tensor) -> tuple[float, float]:
    """Seconds of one forward and of one backward pass."""
    wait: Callable[[], None] = torch.cuda.synchronize if video.is_cuda else lambda: None
    model.zero_grad(set_to_none=True)
    wait()
    start = time.perf_counter()
    loss = (reconstruct(model, video) - video).float().square().mean()
    wait()
    middle = time.perf_counter()
    loss.backward()
    wait()
    return middle - start, time.perf_counter() - middle


def prepare(entry: Entry, setting: Setting) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    dtype = getattr(torch, setting.dtype)
    model = build(entry).to(setting.device, dtype).train()
    shape = (1, 3, entry.frames(setting), setting.side, setting.side)
    return model, (torch.rand(shape) * 2 - 1).to(setting.device, dtype)


def peak_bytes(entry: Entry, setting: Setting, threads: int) -> int:
    """Peak memory of one step beyond weights and input; to be called in a fresh process."""
    torch.set_num_threads(threads)
    model, video = prepare(entry, setting)
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        measure_step(model, video)
        return torch.cuda.max_memory_allocated() - before
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measure_step(model, video)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def measure_all(entries: list[Entry], setting: Setting, rounds: int, threads: int) -> list[dict[str, object]]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        peaks = [pool.apply(peak_bytes, (entry, setting, threads)) for entry in entries]
    prepared = [prepare(entry, setting) for entry in entries]
    for model, video in prepared:
        measure_step(model, video)  # warm-up
    times: list[list[tuple[float, float]]] = [[] for _ in entries]
    for _ in range(rounds):
        for found, (model, video) in zip(times, prepared, strict=True):
            found.append(measure_step(model, video))
    rows: list[dict[str, object]] = []
    for entry, (model, _), found, peak in zip(entries, prepared, times, peaks, strict=True):
        frames = entry.frames(setting)
        rows.append(
            {
                "label": entry.label,
                "millions": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
                "forward_ms": statistics.median(forward for forward, _ in found) / frames * 1e3,
                "backward_ms": statistics.median(backward for _, backward in found) / frames * 1e3,
                "peak_mib": peak / frames / 2**20,
            }
        )
    return rows


def print_table(rows: list[dict[str, object]]) -> None:
    """Each column per frame, with the ratio to ours: above 1 the rival needs more."""
    columns = ("forward_ms", "backward_ms", "peak_mib")
    print(f"{'model':36}{'M param':>9}" + "".join(f"{name + '/frame':>20}{'ratio':>7}" for name in columns))
    for row in rows:
        cells = "".join(f"{row[name]:20.2f}{row[name] / rows[0][name]:7.2f}" for name in columns)  # type: ignore[operator]
        print(f"{row['label']:36}{row['millions']:9.2f}{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-width", type=int, default=32)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    setting = Setting(arguments.base_width, arguments.side, arguments.frames, arguments.device, arguments.dtype)
    torch.set_num_threads(arguments.threads)
    ours = Entry("reelmill 8x8x8", setting.base_width)
    size = parameters(ours)
    entries = [ours, Entry("reelmill 8x8x8", setting.base_width, is_recomputing=True)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        equal = pool.starmap(width_of_equal_size, [(kind, size) for kind in RIVALS])
    for kind, equal_width in zip(RIVALS, equal, strict=True):
        entries += [Entry(kind, width) for width in sorted({setting.base_width, equal_width})]
    rows = measure_all(entries, setting, arguments.rounds, arguments.threads)
    where = torch.cuda.get_device_name() if setting.device == "cuda" else f"{platform.processor() or 'CPU'}"
    print(f"{where}, torch {torch.__version__}, {setting}, threads {arguments.threads}, {time.strftime('%Y-%m-%d')}")
    print_table(rows)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump({"setting": asdict(setting), "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
