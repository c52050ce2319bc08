"""Gradual transitions, found on 32x18 thumbnails: dissolves, wipes, and fades through one colour.

What belongs here: where such a transition begins and ends, and of which kind it is. Hard cuts and what becomes of it all are in
`shots.py`.

The idea. Between two frames, everything that moves makes pixels go back and forth; a dissolve or wipe takes each pixel from
one picture to another and no further. So the net change between two frames, divided by the sum of all changes on the way,
is near 1 in a transition (0.75 to 1 on the tuning set) and low in ordinary footage (median 0.2). Candidates must then show two
unlike pictures, go one way only, and not come back: light that changes, pans and things that pass the lens fail there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.video.alike import likeness
from pipelines.video.measure import Thumbs

Floats = NDArray[np.float32]

HALF_WIDTHS = (4, 6, 8, 11, 15, 20)  # frames: windows of 9 to 41 frames
MIN_DIRECTNESS = 0.6  # net change over summed change in a candidate window
MAX_STEP_SHARE = 0.55  # of the net change in one step: above, it is a cut, a flash or a leap of a slow scan
MAX_LIKENESS = 0.75  # of the pictures on both sides
RETURN_FRAMES = 24  # a picture that comes back so soon was only covered
LOOK_BACK_FRAMES = 8
MIN_FRAMES = 4
MIN_SHOT_FRAMES = 6  # a shot lasts at least so long on both sides of a transition
MIN_ONEWAY = 0.45  # net over summed movement of single pixels
MAX_WIPE_MIDDLE = (
    0.28  # share of pixels halfway between both pictures: a wipe has fewer (0.04..0.26 on the tuning set),
)
MIN_DISSOLVE_MIDDLE = 0.45  # a dissolve more (0.47..0.99), a car that fills the frame lies between (0.30..0.44)
MAX_DISSOLVE_REST = 0.36  # of the change that is not on the straight line between both pictures (0.02..0.35)
STEADY_SLOPE = 0.35  # of the mean slope: how fast progress must be for a frame to belong to the transition
FADE_SPREAD = 6.0  # standard deviation of luma at a fade's bottom
FADE_DEPTH = 0.35  # of the spread on both sides
FADE_CONTRAST = 12.0  # least spread of a picture that fades to black or white
FADE_CONTRAST_COLOUR = 30.0  # the same to any other colour: text that appears on a plain ground has less
FADE_FRAMES = 45  # longest ramp of a fade on one side


@dataclass(frozen=True)
class Gradual:
    """Frames `first` to `end` (exclusive) take part in both shots."""

    kind: str  # dissolve, wipe or fade
    first: int
    end: int
    score: float


def find_gradual(thumbs: Thumbs, first: int, end: int, min_change: float) -> list[Gradual]:
    """Dissolves and wipes among frames `first` to `end`, which hold no cut; `min_change` is the least net change, in levels."""
    found: list[Gradual] = []
    for window_first, window_end in _candidates(thumbs, first, end, min_change):
        if found and window_first < found[-1].end:
            continue
        transition = _examine(thumbs, window_first, window_end, found[-1].end if found else first, end)
        if transition is not None:
            found.append(transition)
    return found


def _candidates(thumbs: Thumbs, first: int, end: int, min_change: float) -> list[tuple[int, int]]:
    """Windows of high directness, the one with the largest net change for each run of frames, in time order."""
    out: list[tuple[int, int]] = []
    chunk, reach = 512, HALF_WIDTHS[-1]
    best = np.zeros((end - first, 2), np.float32)  # net change and half width of the best window around each frame
    for start in range(first, end, chunk):
        low, high = max(first, start - reach), min(end, start + chunk + reach)
        pictures = thumbs.read(low, high).astype(np.float32)
        travelled = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2, 3)))])
        for half in HALF_WIDTHS:
            middle = np.arange(max(start, low + half), min(start + chunk, high - half)) - low
            if not len(middle):
                continue
            net = np.abs(pictures[middle + half] - pictures[middle - half]).mean(axis=(1, 2, 3))
            way = travelled[middle + half] - travelled[middle - half]
            is_direct = (
                (net >= min_change) & (net >= MIN_DIRECTNESS * way) & (net > 1.05 * best[middle + low - first, 0])
            )
            rows = middle[is_direct] + low - first
            best[rows, 0], best[rows, 1] = net[is_direct], half
    is_run = best[:, 0] > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_run, [False]])))
    for run_first, run_end in edges.reshape(-1, 2):
        out += _peaks(best, int(run_first), int(run_end), first)
    return out


def _peaks(best: Floats, run_first: int, run_end: int, offset: int) -> list[tuple[int, int]]:
    """The strongest window of a run, and the strongest of what is left on both sides of it, in time order."""
    windows = []
    left = [(run_first, run_end)]
    while left:
        first, end = left.pop()
        if end <= first:
            continue
        peak = first + int(best[first:end, 0].argmax())
        half = int(best[peak, 1])
        windows.append((offset + peak - half, offset + peak + half))
        left += [(first, peak - half), (peak + half + 1, end)]
    return sorted(windows)


def _examine(thumbs: Thumbs, window_first: int, window_end: int, first: int, end: int) -> Gradual | None:
    """The transition in the window, its ends fitted; None if it is something else."""
    begin, stop = window_first, window_end
    for _ in range(2):
        low, high = max(first, begin - 12), min(end, stop + 12)
        pictures = thumbs.read(low, high).astype(np.float32)
        before = pictures[max(begin - 2 - low, 0) : begin - low + 1].mean(axis=0)
        after = pictures[stop - low : stop + 3 - low].mean(axis=0)
        change = after - before
        progress = ((pictures - before) * change).sum(axis=(1, 2, 3)) / max(float((change**2).sum()), 1.0)
        ramp_first, ramp_end = _fit_ramp(progress, max(begin - low - 12, 0), stop - low + 12)
        begin, stop = low + ramp_first, min(low + ramp_end, end - 1)
    if stop - begin - 1 < MIN_FRAMES or begin - first < MIN_SHOT_FRAMES or end - stop < MIN_SHOT_FRAMES:
        return None
    inside = slice(begin - low, stop - low + 1)
    if np.abs(np.diff(progress[inside])).max() > MAX_STEP_SHARE:
        return None
    kind, score = _kind(pictures[inside], before, change, progress[inside])
    if not kind or _comes_back(thumbs, begin, stop, first, end):
        return None
    begin, stop = _extend(progress, begin - low, stop - low)
    return Gradual(kind, low + begin + 1, low + stop, score)


def _kind(pictures: Floats, before: Floats, change: Floats, progress: Floats) -> tuple[str, float]:
    """Dissolve, wipe or "" for neither, and how directly pixels go from one picture to the other, 0..1."""
    oneway, middle = _paths(pictures, before, change)
    rest = np.abs(pictures - before - progress[:, None, None, None] * change).mean() / max(
        float(np.abs(change).mean()), 1e-6
    )
    if oneway < MIN_ONEWAY:
        return "", oneway
    if middle <= MAX_WIPE_MIDDLE:
        return "wipe", oneway
    return "dissolve" if middle >= MIN_DISSOLVE_MIDDLE and rest <= MAX_DISSOLVE_REST else "", oneway


def _extend(progress: Floats, begin: int, stop: int) -> tuple[int, int]:
    """Move both ends outwards while progress goes on: a wipe over a plain part of the picture hardly shows."""
    least = STEADY_SLOPE / (stop - begin)
    while begin > 0 and progress[begin] - progress[begin - 1] > least:
        begin -= 1
    while stop < len(progress) - 1 and progress[stop + 1] - progress[stop] > least:
        stop += 1
    return begin, stop


def _fit_ramp(progress: Floats, first: int, end: int) -> tuple[int, int]:
    """Last frame at 0 and first frame at 1 of the straight ramp nearest to `progress`."""
    count = len(progress)
    time = np.arange(count, dtype=np.float32)
    clipped = np.clip(progress, -0.25, 1.25)
    best = (np.inf, 0, count - 1)
    for start in range(max(first, 0), count - MIN_FRAMES):
        stops = np.arange(start + MIN_FRAMES, min(count, end + 1))
        if not len(stops):
            continue
        ramps = np.clip((time[None] - start) / (stops - start)[:, None], 0, 1)
        errors = np.abs(ramps - clipped[None]).sum(axis=1)
        at = int(errors.argmin())
        if errors[at] < best[0]:
            best = (float(errors[at]), start, int(stops[at]))
    return best[1], best[2]


def _comes_back(thumbs: Thumbs, begin: int, stop: int, first: int, end: int) -> bool:
    """Whether a picture after the transition is like one before it: something passed the lens, or the light changed."""
    before = thumbs.read(max(first, begin - 2 * LOOK_BACK_FRAMES), begin + 1)[::-LOOK_BACK_FRAMES]
    after = thumbs.read(stop, min(end, stop + RETURN_FRAMES))[::3]
    return any(likeness(one, other) > MAX_LIKENESS for one in before for other in after)


def _paths(pictures: Floats, before: Floats, change: Floats) -> tuple[float, float]:
    """How directly pixels go from one picture to the other (0..1), and the share of them halfway on the average frame."""
    is_large = np.abs(change) >= max(10.0, float(np.median(np.abs(change))))
    if not is_large.any():
        return 0.0, 0.0
    path = np.clip((pictures[:, is_large] - before[is_large]) / change[is_large], -0.5, 1.5)
    travelled = np.abs(np.diff(path, axis=0)).sum(axis=0)
    net = np.clip(path[-1] - path[0], 0, 1)
    middle = ((path > 0.2) & (path < 0.8)).mean(axis=1)
    return float(net.sum() / max(travelled.sum(), 1e-6)), float(np.sort(middle)[len(middle) // 2 :].mean())


def find_fades(luma: Floats, spread: Floats, thumbs: Thumbs) -> list[Gradual]:
    """Fades through a flat frame of any colour: contrast goes down to nothing, and comes up with another picture."""
    count = len(spread)
    is_bottom = _bottoms(spread)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_bottom, [False]])))
    found: list[Gradual] = []
    for low, high in edges.reshape(-1, 2):
        first = low - _ramp_length(spread[:low][::-1], float(spread[low:high].min()))
        end = high + _ramp_length(spread[high:], float(spread[low:high].min()))
        peak_before = float(spread[max(first - 3, 0) : first + 1].max())
        peak_after = float(spread[end - 1 : end + 3].max())
        is_extreme = not 24 < luma[low:high].mean() < 230
        least = FADE_CONTRAST if is_extreme else FADE_CONTRAST_COLOUR
        has_ramp = (low - first >= 3 and peak_before > least) or (end - high >= 3 and peak_after > least)
        if not has_ramp or (found and first < found[-1].end):
            continue
        if (
            first > 0
            and end < count
            and likeness(thumbs.read(first - 1, first)[0], thumbs.read(end, end + 1)[0]) > MAX_LIKENESS
        ):
            continue
        found.append(Gradual("fade", int(first), int(end), float(peak_before - spread[low:high].min())))
    return found


def _bottoms(spread: Floats) -> NDArray[np.bool_]:
    """Frames of nearly one colour between frames that are not."""
    window = FADE_FRAMES
    padded = np.pad(spread, window)
    views = np.lib.stride_tricks.sliding_window_view(padded, window)
    before, after = views[: len(spread)].max(axis=1), views[window + 1 :].max(axis=1)
    return (spread <= FADE_SPREAD) & ((spread <= FADE_DEPTH * before) | (spread <= FADE_DEPTH * after))


def _ramp_length(spread: Floats, bottom: float) -> int:
    """Frames, going away from a fade's bottom, in which contrast rises steadily."""
    away = spread[:FADE_FRAMES]
    if len(away) < 2:
        return 0
    steps = np.diff(away, prepend=bottom)
    total = 0.0
    for length, step in enumerate(steps):
        slope = total / max(length, 1)
        if length >= 2 and step < 0.25 * slope:
            return length
        if length == 0 and step > 0.6 * float(away.max() - bottom):
            return 0
        total += float(step)
    return len(steps)
