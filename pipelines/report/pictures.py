"""Which keyframes go on the page, and how they get there.

What belongs here: choosing pictures within a budget, checking that bytes are a JPEG, writing each once. The bytes come from the
sandbox child and are as untrusted as the video: they are never decoded here, only embedded as `image/jpeg` data for the
browser, whose picture decoder is sandboxed. Downscaling would mean decoding them in this process.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.markup import Markup, element

BUDGET_BYTES = 12 * 2**20
"""JPEG bytes on one page; 4/3 of it in base64. With text that keeps the page under 20 MB."""
MAX_PICTURE_BYTES = 512 * 2**10
MAX_SIDE_PX = 4096
EDGE_DELAY = 24
"""First and last frames of an entry come after the middle frames of this many entries further down: of the whole sheet."""


@dataclass(frozen=True)
class Picture:
    """A picture that the page holds once under `id`; `time_s` is seconds from the start of its clip."""

    id: str
    width_px: int
    height_px: int
    time_s: float
    jpeg: bytes


@dataclass(frozen=True)
class _Candidate:
    cost: int
    clip_id: str
    place: int
    time_s: float
    jpeg: bytes


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG's frame header states; None if this is no JPEG that a browser should be given."""
    if len(data) > MAX_PICTURE_BYTES or not data.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            return (width, height) if 0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX else None
        at += 2 + length
    return None


def choose(
    sheets: Sequence[Sequence[str]], keyframes: Sequence[pa.Table], budget_bytes: int = BUDGET_BYTES
) -> dict[str, tuple[Picture, ...]]:
    """Pictures by clip_id: first, middle and last keyframe of the clips on the sheets, as far as the budget goes.

    Near misses come first: an entry's rank in its sheet is its cost, its first and last frame cost `EDGE_DELAY` more. A clip
    on several sheets is embedded once. Bytes that are no JPEG are left out.
    """
    ranks: dict[str, int] = {}
    for sheet in sheets:
        for rank, clip_id in enumerate(sheet):
            ranks[clip_id] = min(rank, ranks.get(clip_id, rank))
    chosen: dict[str, list[tuple[int, Picture]]] = {}
    spent = 0
    candidates = sorted(_candidates(ranks, keyframes), key=lambda one: (one.cost, one.clip_id, one.place))
    for number, one in enumerate(candidates):
        measured = jpeg_size(one.jpeg)
        if measured is None or spent + len(one.jpeg) > budget_bytes:
            continue
        spent += len(one.jpeg)
        picture = Picture(f"k{number}", *measured, one.time_s, one.jpeg)
        chosen.setdefault(one.clip_id, []).append((one.place, picture))
    return {clip_id: tuple(picture for _, picture in sorted(found, key=_place)) for clip_id, found in chosen.items()}


def _place(item: tuple[int, Picture]) -> int:
    return item[0]


def _candidates(ranks: Mapping[str, int], keyframes: Sequence[pa.Table]) -> Iterable[_Candidate]:
    ids = pa.array(sorted(ranks), pa.string())
    found: dict[str, dict[int, tuple[float, bytes]]] = {}
    for rows in keyframes:
        for row in (
            rows.filter(pc.is_in(rows["clip_id"], ids)).select(["clip_id", "index", "time_s", "jpeg"]).to_pylist()
        ):
            found.setdefault(row["clip_id"], {})[row["index"]] = (row["time_s"] or 0.0, row["jpeg"] or b"")
    for clip_id, frames in found.items():
        places = sorted(frames)
        middle = places[len(places) // 2]
        for index in sorted({places[0], middle, places[-1]}):
            yield _Candidate(ranks[clip_id] + (0 if index == middle else EDGE_DELAY), clip_id, index, *frames[index])


def library(pictures: Mapping[str, Sequence[Picture]]) -> Markup:
    """Every chosen picture once, in an SVG that draws nothing; `frame` refers to it."""
    every = sorted((one for found in pictures.values() for one in found), key=lambda one: int(one.id[1:]))
    images = [
        element(
            "image",
            id=one.id,
            width=one.width_px,
            height=one.height_px,
            href=Markup("data:image/jpeg;base64," + b64encode(one.jpeg).decode("ascii")),
        )
        for one in every
    ]
    return element("svg", element("defs", *images), class_="library", aria_hidden="true", width=0, height=0)


def frame(picture: Picture, label: str) -> Markup:
    """One picture at its place on a sheet."""
    return element(
        "svg",
        element("title", label),
        element("use", href=f"#{picture.id}"),
        class_="frame",
        viewbox=f"0 0 {picture.width_px} {picture.height_px}",
        role="img",
        aria_label=label,
    )
