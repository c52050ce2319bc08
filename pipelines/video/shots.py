"""Shot boundaries: hard cuts, gradual transitions, gaps in time; and what only looks like one.

What belongs here: from the measurements of all frames to a list of shots. It runs after the decode pass, on arrays and 32x18
thumbnails, so that every decision sees both of its sides.

Hard cuts fire where PySceneDetect's adaptive detector does: the content value (mean change of hue, saturation and value)
is `cut_ratio` times that of its neighbours. We compute it ourselves, equal to PySceneDetect's to rounding (a test holds them
side by side): its class costs 0.5 ms a frame and a third of a second to import. A fire is a cut only if the frames before
do not look like those after it, within a third of a second: a flash, a strobe or a flicker is stitched back.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipelines.video.alike import likeness
from pipelines.video.gradual import Gradual, find_fades, find_gradual
from pipelines.video.measure import FrameTable, Thumbs
from pipelines.video.scan_params import ScanParams

SAME_LIKENESS = 0.85  # frames that are more alike than this show one shot
LOOK_FRAMES = 8  # how far a flash may reach
JUMP_LUMA = 3.0  # thumbnail change, in levels, of a jump too dark for the content value
JUMP_RATIO = 4.0
JUMP_CHUNK = 1024  # thumbnails in memory at a time
JUMP_LIKENESS = 0.4
FLASH_LUMA = 20.0  # levels by which a flash changes the mean luma, there and back
FLASH_LIKENESS = 0.3  # of the frames on both sides of a flash, between which things may move


@dataclass(frozen=True)
class Shot:
    """Frames `first` to `end` (exclusive) of one camera take, and the transition at its start."""

    first: int
    end: int
    transition: str  # start, cut, dissolve, fade, wipe or gap
    score: float  # of the transition, in its detector's scale
    transition_frames: int


@dataclass(frozen=True)
class ShotList:
    """All shots of a video, in time order, and the frames at which the raw cut detector fired."""

    shots: list[Shot]
    fires: NDArray[np.int64]


def find_shots(frames: FrameTable, thumbs: Thumbs, time_base: Fraction, params: ScanParams) -> ShotList:
    """Shots of a video. Frames of a gradual transition belong to no shot; nor does what a fade leaves dark at the ends."""
    fires = _fires(frames.content_change, params)
    gaps = set((np.nonzero(np.diff(frames.pts[:-1]) * float(time_base) > params.gap_s)[0] + 1).tolist())
    jumps = set(fires.tolist()) | set(_dark_jumps(thumbs).tolist())
    fades = find_fades(frames.luma, frames.spread, thumbs)
    jumps -= _flash_edges(sorted(jumps), frames.luma, thumbs)
    cuts = {at for at in jumps if at not in gaps and not _is_inside(at, fades) and _is_cut(thumbs, at)}
    hard = [(at, at, "gap", 0.0) for at in gaps] + [(at, at, "cut", float(frames.content_change[at])) for at in cuts]
    soft = [(fade.first, fade.end, fade.kind, fade.score) for fade in fades]
    blocks = sorted([(0, 0, "start", 0.0), *hard, *soft, (frames.count, frames.count, "end", 0.0)])
    found = []
    for (_, first, *_), (end, *_) in pairwise(blocks):
        found += find_gradual(thumbs, first, end, params.gradual_content) if end - first > 9 else []
    blocks = sorted([*blocks, *((one.first, one.end, one.kind, one.score) for one in found)])
    return ShotList(_between(blocks), fires)


def _between(blocks: list[tuple[int, int, str, float]]) -> list[Shot]:
    """What lies between boundaries, each (first frame, end frame, kind, score), sorted; empty stretches are no shots."""
    shots = []
    for (first, end, kind, score), (following, *_) in pairwise(blocks):
        if following > end:
            shots.append(Shot(end, following, kind, score, end - first))
    return shots


def _fires(content: NDArray[np.float32], params: ScanParams) -> NDArray[np.int64]:
    """Frames at which PySceneDetect's adaptive detector would fire."""
    window = params.cut_window
    if len(content) <= 2 * window:
        return np.nonzero(content >= params.cut_content)[0]
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(content.astype(np.float64), window, mode="edge"), 2 * window + 1
    )
    neighbours = (around.sum(axis=1) - content) / (2 * window)
    is_fire = (content >= params.cut_content) & (content >= params.cut_ratio * np.maximum(neighbours, 1e-5))
    return np.nonzero(is_fire)[0]


def _dark_jumps(thumbs: Thumbs) -> NDArray[np.int64]:
    """Frames at which the picture leaps to an unlike one although the change is small: cuts between dark scenes."""
    steps = [np.zeros(1)]
    for start in range(1, len(thumbs), JUMP_CHUNK):
        pictures = thumbs.read(start - 1, start + JUMP_CHUNK)[..., 0].astype(np.float32)
        steps.append(np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2)))
    step = np.concatenate(steps)
    if len(step) < 5:
        return np.array([], np.int64)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(step, 2, mode="edge"), 5)
    usual = (around.sum(axis=1) - step) / 4
    candidates = np.nonzero((step >= JUMP_LUMA) & (step >= JUMP_RATIO * usual))[0]
    is_jump = [likeness(*thumbs.read(int(at) - 1, int(at) + 1)) < JUMP_LIKENESS for at in candidates]
    return candidates[np.array(is_jump, bool)]


def _flash_edges(jumps: list[int], luma: NDArray[np.float32], thumbs: Thumbs) -> set[int]:
    """Pairs of jumps between which it is much brighter or darker for a moment, with much the same picture on both sides."""
    leaps = {at: float(luma[at] - luma[at - 1]) for at in jumps if at > 0}
    edges: set[int] = set()
    near = [(up, down) for up in leaps for down in range(up + 1, up + LOOK_FRAMES + 1) if down in leaps]
    for up, down in near:
        is_leap = min(abs(leaps[up]), abs(leaps[down])) >= FLASH_LUMA and leaps[up] * leaps[down] < 0
        if is_leap and 0.5 < -leaps[up] / leaps[down] < 2:
            pictures = thumbs.read(up - 1, down + 1)
            if likeness(pictures[0], pictures[-1]) > FLASH_LIKENESS:
                edges |= {up, down}
    return edges


def _is_cut(thumbs: Thumbs, at: int) -> bool:
    """Whether no frame shortly before `at` shows what a frame shortly after shows: then the shot really ends."""
    before, after = thumbs.read(at - 1 - LOOK_FRAMES, at), thumbs.read(at, at + 1 + LOOK_FRAMES)
    if not len(before) or not len(after):
        return False
    forward = any(likeness(before[-1], picture) > SAME_LIKENESS for picture in after)
    return not forward and not any(likeness(picture, after[0]) > SAME_LIKENESS for picture in before)


def _is_inside(at: int, spans: list[Gradual]) -> bool:
    return any(span.first <= at <= span.end for span in spans)
