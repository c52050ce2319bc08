"""What the measurements of frames and flow say of one clip: a row of table `signals`.

What belongs here: summaries over a span, from arrays alone; no picture is looked at. Every rate is per second of PTS and
every length relative to the display diagonal, so that size, frame rate and codec do not matter.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.video.borders import Border
from pipelines.video.clips import Span
from pipelines.video.measure import DARK_LUMA, FrameTable
from pipelines.video.motion import MIN_POINTS, FlowTable

VMAF_SCALE = 219 / 255  # vmafmotion counts in limited range; slope measured 0.860, correlation 0.9999 (docs/scan.md)
BLACK_SHARE = 0.98  # of a frame's pixels that are dark: then it is black (FFmpeg's blackdetect)
FLAT_SPREAD = 4.0  # standard deviation of luma below which a frame is of nearly one colour
STILL_SPEED = 0.004  # diagonals per second: 9 px/s at 1080p
STILL_CHANGED_SHARE = 0.002  # of pixels
REPEAT_DIFFERENCE = 0.06  # mean luma difference of a repeated frame after compression
REPEAT_RATIO = 0.15  # the same relative to its neighbours
FLASH_LUMA = 20.0  # levels of mean luma
FLASH_S = 0.25
JITTER_HZ = 3.0
HANDHELD_HZ = (1.0, 8.0)

Floats = NDArray[Any]  # float64


@dataclass(frozen=True)
class VideoMeasures:
    """Everything measured of a video, from which clips are summarised."""

    frames: FrameTable
    flow: FlowTable
    fires: NDArray[np.int64]  # frames at which the raw cut detector fires
    sharpness_pts: NDArray[np.int64]
    sharpness: NDArray[np.float32]
    time_base: Fraction
    diagonal_px: float


def summarise(video: VideoMeasures, span: Span, border: Border) -> dict[str, float | int | str]:
    """The signals of one clip, all columns of the table but its id."""
    pts = video.frames.pts
    duration_s = float(int(pts[span.end] - pts[span.first]) * video.time_base)
    fires = int(((video.fires > span.first) & (video.fires < span.end)).sum())
    is_sharp = (video.sharpness_pts >= pts[span.first]) & (video.sharpness_pts < pts[span.end])
    return {
        "border_kind": border.kind,
        "border_share": border.share,
        "sharpness": float(np.median(video.sharpness[is_sharp])) if is_sharp.any() else 0.0,
        "shots_per_s": fires / duration_s,
        **_light(video, span, border),
        **_change(video, span, border),
        **_flow(video, span, (span.end - span.first) / duration_s),
    }


def _light(video: VideoMeasures, span: Span, border: Border) -> dict[str, float | int]:
    """Brightness inside a flat border, whose own luma and share are known."""
    share, border_luma = (border.share, border.luma) if border.luma is not None else (0.0, 0.0)
    frames, inside = video.frames, 1 - share
    whole = slice(span.first, span.end)
    luma = frames.luma[whole].astype(np.float64)
    square = frames.spread[whole].astype(np.float64) ** 2 + luma**2
    content = (luma - share * border_luma) / inside
    spread = np.sqrt(np.maximum((square - share * border_luma**2) / inside - content**2, 0))
    dark = (frames.dark_share[whole] - share * (border_luma <= DARK_LUMA)) / inside
    is_black = dark >= BLACK_SHARE
    return {
        "black_share": float(is_black.mean()),
        "flat_share": float((is_black | (spread < FLAT_SPREAD)).mean()),
        "flash_count": _flashes(content, frames.pts[span.first : span.end], video.time_base),
        "brightness": float(np.clip(content, 0, 255).mean()),
        "contrast": float(spread.mean()),
    }


def _flashes(luma: Floats, pts: NDArray[np.int64], time_base: Fraction) -> int:
    """Runs of at most FLASH_S between a leap of mean luma by FLASH_LUMA and its return."""
    step_s = float(np.median(np.diff(pts))) * float(time_base) if len(pts) > 1 else 1.0
    reach = max(2, round(FLASH_S / step_s))
    count, at = 0, 1
    while at < len(luma):
        leap = luma[at] - luma[at - 1]
        if abs(leap) < FLASH_LUMA:
            at += 1
            continue
        after = (luma[at + 1 : at + 1 + reach] - luma[at - 1]) * np.sign(leap)
        back = np.nonzero(after < 0.3 * abs(leap))[0]
        count += len(back) > 0
        at += int(back[0]) + 2 if len(back) else 1
    return count


def _change(video: VideoMeasures, span: Span, border: Border) -> dict[str, float]:
    """Frame-to-frame change, from the clip's second frame on."""
    after_first = slice(span.first + 1, span.end)
    difference = video.frames.difference[after_first].astype(np.float64)
    if border.luma is not None:  # a flat border stands still; a blurred fill moves as the picture does
        difference /= 1 - border.share
    changed = video.frames.changed_share[after_first]
    if not len(difference):
        return {"motion_score": 0.0, "duplicate_share": 0.0}
    around = np.pad(difference, 4, mode="reflect") if len(difference) > 4 else np.pad(difference, 4, mode="edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(around, 9), axis=1)
    is_repeat = (changed < 0.0005) & (difference < REPEAT_DIFFERENCE)
    is_repeat |= (usual > 0.5) & (difference < REPEAT_RATIO * usual)
    return {"motion_score": float(difference.mean()) * VMAF_SCALE, "duplicate_share": float(is_repeat.mean())}


def _flow(video: VideoMeasures, span: Span, fps: float) -> dict[str, float]:
    """Displacement rates over the pairs of frames inside the clip."""
    flow = video.flow
    pair = np.nonzero((flow.first >= span.first) & (flow.second < span.end))[0]
    seconds = (video.frames.pts[flow.second[pair]] - video.frames.pts[flow.first[pair]]) * float(video.time_base)
    if not len(pair):
        names = (
            "flow_speed flow_px camera_speed subject_speed static_share jitter slideshow_score camera_pan_x camera_pan_y "
            "camera_zoom camera_roll camera_parallax camera_coherence handheld_energy"
        )
        return dict.fromkeys(names.split(), 0.0)

    def rate(column: NDArray[np.float32]) -> Floats:
        return column[pair].astype(np.float64) / seconds

    weight = seconds / seconds.sum()
    speed, camera, residual = rate(flow.speed), rate(flow.camera), rate(flow.residual)
    pan_x, pan_y = rate(flow.pan_x), rate(flow.pan_y)
    is_seen = flow.points[pair] >= MIN_POINTS
    is_still = (speed < STILL_SPEED) & (video.flow.changed_share[pair] < STILL_CHANGED_SHARE)
    high, middle = _bands(pan_x, pan_y, seconds)
    mean_speed = float((speed * weight).sum())
    return {
        "flow_speed": mean_speed,
        "flow_px": mean_speed * video.diagonal_px / fps,
        "camera_speed": float((camera * weight).sum()),
        "subject_speed": float((residual * weight).sum()),
        "static_share": float(weight[is_still].sum()),
        "jitter": high,
        "slideshow_score": _slideshow(video, pair, seconds),
        "camera_pan_x": float((pan_x * weight).sum()),
        "camera_pan_y": float((pan_y * weight).sum()),
        "camera_zoom": float((rate(flow.zoom) * weight).sum()),
        "camera_roll": float((rate(flow.roll) * weight).sum()),
        "camera_parallax": float((flow.depth[pair] * camera * weight).sum() / max((camera * weight).sum(), 1e-9)),
        "camera_coherence": float(flow.coherence[pair][is_seen].mean()) if is_seen.any() else 0.0,
        "handheld_energy": middle,
    }


def _bands(pan_x: Floats, pan_y: Floats, seconds: Floats) -> tuple[float, float]:
    """RMS camera velocity above JITTER_HZ and within HANDHELD_HZ, diagonals per second; Nyquist is half the flow rate."""
    if len(seconds) < 8:
        return 0.0, 0.0
    step_s = float(np.median(seconds))
    ends = np.cumsum(seconds)
    times = np.arange(ends[0], ends[-1], step_s)
    power = np.zeros(len(times) // 2 + 1)
    for pan in (pan_x, pan_y):
        even = np.interp(times, ends, pan)
        even = even - np.polyval(np.polyfit(times, even, 1), times)
        power += np.abs(np.fft.rfft(even)) ** 2
    power[1:] *= 2
    hertz = np.fft.rfftfreq(len(times), step_s)
    in_band = (hertz >= HANDHELD_HZ[0]) & (hertz <= HANDHELD_HZ[1])
    total = len(times) ** 2
    return float(np.sqrt(power[hertz >= JITTER_HZ].sum() / total)), float(np.sqrt(power[in_band].sum() / total))


def _slideshow(video: VideoMeasures, pair: NDArray[np.int64], seconds: Floats) -> float:
    """Share of time in which the picture is a still, or moves exactly as one picture under a smooth camera would."""
    flow = video.flow
    speed = flow.speed[pair] / seconds
    is_still = (flow.difference[pair] < 0.15) & (speed < STILL_SPEED / 2)
    is_rigid = (flow.coherence[pair] > 0.97) & (speed >= STILL_SPEED / 2)
    velocity = np.stack([flow.pan_x[pair], flow.pan_y[pair], flow.zoom[pair] / 2]) / seconds
    rough = np.abs(np.diff(velocity, axis=1, append=velocity[:, -1:])).sum(axis=0)
    is_smooth = rough < 0.1 * np.maximum(speed, STILL_SPEED)
    weight = seconds / seconds.sum()
    return float((weight * (is_still | (is_rigid & is_smooth))).sum())
