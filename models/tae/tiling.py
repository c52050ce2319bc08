"""Encoding and decoding in tiles, for videos whose activations do not fit at once (Movie Gen 3.1.1).

Belongs here: where tiles lie, and how their results are joined. Does not belong here: the network. Works on any
`TemporalAutoencoder`, and under `torch.no_grad` as well as with gradients.

In time the paper's numbers: tiles of 32 frames (4 latent frames); the encoder's tiles touch, the decoder's overlap by 16
frames (2 latent frames). In space the paper is silent; there both overlap, because neighbouring tiles see different
normalisation statistics and would show an edge. Where tiles overlap, the one before fades linearly into the next: over
N positions its weight is 1 - j/N, j = 0..N-1. (The paper prints j/N, which would fade the wrong way.)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from models.tae.autoencoder import Posterior, TAEConfig, TemporalAutoencoder, latent_size, validate_size
from models.tae.checks import validate_latents, validate_video

Span = tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """Tile sizes, in frames and pixels; multiples of the autoencoder's factors. `side_px` None: whole frames."""

    frames: int = 32
    decode_overlap_frames: int = 16
    side_px: int | None = None
    overlap_px: int = 64

    def __post_init__(self) -> None:
        pairs = [(self.frames, self.decode_overlap_frames)] + (
            [(self.side_px, self.overlap_px)] if self.side_px else []
        )
        if self.side_px == 0 or any(tile < 1 or not 0 <= 2 * overlap <= tile for tile, overlap in pairs):
            raise ValueError(
                f"given {self}; expected tiles of at least 1, overlapping by at most half; correct the sizes"
            )


def encode_tiled(tae: TemporalAutoencoder, video: Tensor, tiling: Tiling = Tiling()) -> Posterior:
    """`tae.encode(video)` tile by tile: the same shapes, contract and errors.

    Equal to the whole wherever a tile holds all frames that its latents depend on: one tile, or temporal layers that have
    not been trained yet. Elsewhere the ends of a tile see repeated frames in place of their neighbours.
    """
    validate_video(video, tae.config.image.channels, dtype=tae.last_layer.dtype)
    time, space = tae.config.temporal_factor, tae.config.image.spatial_factor
    _check_multiples(tiling, tae.config)
    t, h, w = latent_size(tae.config, (video.shape[2], video.shape[3], video.shape[4]))
    side, overlap = (tiling.side_px or 0) // space, tiling.overlap_px // space
    axes = (spans(t, tiling.frames // time, 0), spans(h, side or h, overlap), spans(w, side or w, overlap))

    def encode(tile: tuple[Span, Span, Span]) -> Tensor:
        (t0, t1), (h0, h1), (w0, w1) = tile
        part = video[:, :, t0 * time : t1 * time, h0 * space : h1 * space, w0 * space : w1 * space]
        return torch.cat(tae.encode(part), dim=1)

    mean, log_variance = _join(axes, encode).chunk(2, dim=1)
    return Posterior(mean, log_variance)


def decode_tiled(
    tae: TemporalAutoencoder,
    latents: Tensor,
    size: tuple[int, int, int] | None = None,
    tiling: Tiling = Tiling(),
) -> Tensor:
    """`tae.decode(latents, size)` tile by tile: the same shapes, contract and errors."""
    validate_latents(latents, tae.config.image.latent_channels, dtype=tae.last_layer.dtype)
    time, space = tae.config.temporal_factor, tae.config.image.spatial_factor
    validate_size(latents, (time, space, space), size)
    _check_multiples(tiling, tae.config)
    t, h, w = latents.shape[2:]
    side, overlap = (tiling.side_px or 0) // space, tiling.overlap_px // space
    axes = (
        spans(t, tiling.frames // time, tiling.decode_overlap_frames // time),
        spans(h, side or h, overlap),
        spans(w, side or w, overlap),
    )

    def decode(tile: tuple[Span, Span, Span]) -> Tensor:
        (t0, t1), (h0, h1), (w0, w1) = tile
        return tae.decode(latents[:, :, t0:t1, h0:h1, w0:w1])

    scaled = tuple([(f * a, f * b) for a, b in axis] for f, axis in zip((time, space, space), axes, strict=True))
    tiles = iter(list(product(*axes)))
    video = _join(scaled, lambda _: decode(next(tiles)))  # type: ignore[arg-type]
    return video if size is None else video[:, :, : size[0], : size[1], : size[2]]


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Half-open spans of at most `tile` that cover 0..length, each overlapping the one before by `overlap`.

    The last is shorter where `length` asks for it, and never lies inside the one before.
    """
    found = [(0, min(tile, length))]
    while found[-1][1] < length:
        start = found[-1][1] - overlap
        found.append((start, min(start + tile, length)))
    return found


def fade(axis: list[Span], index: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weights of span `index` along its length: rising over the overlap before, 1, falling over the overlap after."""
    start, end = axis[index]
    weight = torch.ones(end - start, device=device, dtype=torch.float32)
    if index > 0 and (shared := axis[index - 1][1] - start) > 0:
        weight[:shared] *= torch.arange(shared, device=device) / shared
    if index + 1 < len(axis) and (shared := end - axis[index + 1][0]) > 0:
        weight[-shared:] *= 1 - torch.arange(shared, device=device) / shared
    return weight.to(dtype)


def _join(axes: tuple[list[Span], list[Span], list[Span]], make: Callable[[tuple[Span, Span, Span]], Tensor]) -> Tensor:
    """Sum of all tiles, each times its fades; tiles are made one at a time, in order of T, H, W."""
    total: Tensor | None = None
    for index, tile in _tiles(axes):
        part = make(tile)
        for dim, (axis, i) in enumerate(zip(axes, index, strict=True), start=2):
            if len(axis) > 1:
                weight = fade(axis, i, device=part.device, dtype=part.dtype)
                part = part * weight.view([-1 if d == dim else 1 for d in range(5)])
        if total is None:
            total = part.new_zeros(*part.shape[:2], *(axis[-1][1] for axis in axes))
        where = tuple(slice(*span) for span in tile)
        total[:, :, where[0], where[1], where[2]] += part
    assert total is not None, "spans() always gives one tile"
    return total


def _tiles(
    axes: tuple[list[Span], list[Span], list[Span]],
) -> Iterator[tuple[tuple[int, int, int], tuple[Span, Span, Span]]]:
    t, h, w = axes
    for i, j, k in product(range(len(t)), range(len(h)), range(len(w))):
        yield (i, j, k), (t[i], h[j], w[k])


def _check_multiples(tiling: Tiling, config: TAEConfig) -> None:
    time, space = config.temporal_factor, config.image.spatial_factor
    in_space = (tiling.side_px, tiling.overlap_px) if tiling.side_px else ()
    if any(n % time for n in (tiling.frames, tiling.decode_overlap_frames)) or any(n % space for n in in_space):
        raise ValueError(
            f"given {tiling} for an autoencoder of {time} frames and {space} px per latent; expected multiples of those; "
            "round the tile sizes"
        )
