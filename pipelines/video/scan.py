"""The scan: one decode pass over a video that finds shots, measures everything and keeps a few keyframes.

What belongs here: the pass itself and the five tables. Each part of the work has its own file: `planes.py` scales, `measure.py`
and `motion.py` measure frames, `shots.py` and `clips.py` divide the video, `borders.py`, `keyframes.py` and `signals.py`
describe a clip. Runs in the sandbox child: av, numpy, cv2 and Arrow only.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.tables import CLIPS, KEYFRAMES, SCANS, SHOTS, SIGNALS, from_rows
from pipelines.video.borders import Border, Profiles, find_border
from pipelines.video.clips import ShotClips, Span, clip_id, cut_shot, unused_ticks
from pipelines.video.keyframes import Candidates, CandidateTaker, choose, keyframe
from pipelines.video.measure import FrameMeter, FrameTable, Thumbs
from pipelines.video.motion import FlowMeter, FlowTable
from pipelines.video.reading import OpenVideo, frames, open_video
from pipelines.video.scan_params import ScanParams
from pipelines.video.shots import ShotList, find_shots
from pipelines.video.signals import VideoMeasures, summarise
from pipelines.video.spill import Spill

Beat = Callable[[], None]
Row = dict[str, object]
BEAT_FRAMES = 32
PROFILE_S = 1.0  # full-size row and column means are taken about so often
BORDER_PICTURES = 16  # of a clip at most, evenly spread, on which its border is sought


def run(request: dict, beat: Beat) -> tuple[dict, dict[str, pa.Table]]:
    """Sandbox entry: `request` has path, video_id, params (of ScanParams) and threads (decoder threads, 1 if absent).

    Raises:
        MediaError: the file cannot be used.
        ValueError: unknown or impossible parameters.
    """
    params = ScanParams.from_dict(request.get("params") or {})
    tables = scan(request["path"], request["video_id"], params, int(request.get("threads") or 1), beat)
    return tables[SCANS.name].to_pylist()[0], tables


def scan(path: str, video_id: str, params: ScanParams, threads: int, beat: Beat) -> dict[str, pa.Table]:
    """Tables scans (one row), shots, clips, signals and keyframes of one video.

    The same file and parameters give the same rows, whatever `threads` is.

    Raises:
        MediaError: the file cannot be used.
    """
    cv2.setNumThreads(1)
    with ExitStack() as stack:
        spills = [stack.enter_context(Spill()) for _ in range(3)]
        video = stack.enter_context(open_video(path, threads))
        measured = _decode(video, params, spills, beat)
        shots = find_shots(measured.frames, measured.thumbs, video.time_base, params)
        return _tables(video_id, video, measured, shots, params, beat)


@dataclass(frozen=True)
class _Measured:
    """What the decode pass leaves behind."""

    frames: FrameTable
    flow: FlowTable
    thumbs: Thumbs
    candidates: Candidates
    profiles: Profiles
    sharpness: NDArray[np.float32]  # one for every candidate


def _decode(video: OpenVideo, params: ScanParams, spills: list[Spill], beat: Beat) -> _Measured:
    """The one pass over all frames."""
    thumbs, profiles = Thumbs(spills[0]), Profiles(video, spills[1])
    meter = FrameMeter(video, params.plane_px, thumbs)
    taker = CandidateTaker(video, params, spills[2])
    flow = FlowMeter(
        (video.width_px / meter.width_px, video.height_px / meter.height_px),
        float(np.hypot(video.width_px, video.height_px)),
    )
    flow_due = _Every(0.9 / params.flow_hz / video.time_base)
    profile_due = _Every(PROFILE_S / video.time_base)
    sharpness: list[float] = []
    for index, frame in enumerate(frames(video)):
        plane = meter(frame)
        if flow_due(int(frame.pts or 0)):
            flow(index, plane.luma)
        if taker(frame):
            sharpness.append(cv2.meanStdDev(cv2.Laplacian(plane.luma, cv2.CV_16S))[1][0, 0] ** 2)
            if profile_due(int(frame.pts or 0)):
                profiles.append(frame)
        if index % BEAT_FRAMES == 0:
            beat()
    return _Measured(meter.table(), flow.table(), thumbs, taker.candidates, profiles, np.array(sharpness, np.float32))


class _Every:
    """True when at least `ticks` have passed since it was last true."""

    def __init__(self, ticks: Fraction | float) -> None:
        self._ticks = ticks
        self._last: int | None = None

    def __call__(self, pts: int) -> bool:
        if self._last is not None and pts - self._last < self._ticks:
            return False
        self._last = pts
        return True


def _tables(
    video_id: str, video: OpenVideo, measured: _Measured, shots: ShotList, params: ScanParams, beat: Beat
) -> dict[str, pa.Table]:
    table, time_base = measured.frames, video.time_base
    rows: dict[str, list[Row]] = {name: [] for name in (SHOTS.name, CLIPS.name, SIGNALS.name)}
    keyframes = [
        KEYFRAMES.schema.empty_table()
    ]  # as Arrow at once: pictures are most of what a long video leaves in memory
    display = video.width_px, video.height_px
    measures = VideoMeasures(
        table,
        measured.flow,
        shots.fires,
        measured.candidates.pts,
        measured.sharpness,
        time_base,
        float(np.hypot(*display)),
    )
    for number, shot in enumerate(shots.shots):
        span = Span(shot.first, shot.end)
        clips = cut_shot(table.pts, time_base, span, params)
        rows[SHOTS.name].append(
            {
                "video_id": video_id,
                "index": number,
                **_span_columns(table.pts, time_base, span),
                "start_frame": shot.first,
                "end_frame": shot.end,
                "transition": shot.transition,
                "transition_score": shot.score,
                "transition_frame_count": shot.transition_frames,
                "clip_count": len(clips.spans),
                "unused_s": float(unused_ticks(table.pts, span, clips) * time_base),
            }
        )
        for clip in clips.spans:
            beat()
            border = _border(measured, clip, display)
            clip_row = _clip_row(video_id, number, clips, clip, border, table.pts, time_base, display)
            rows[CLIPS.name].append(clip_row)
            rows[SIGNALS.name].append({"clip_id": clip_row["clip_id"], **summarise(measures, clip, border)})
            pictures = _keyframe_rows(clip_row, measured.candidates, border, time_base, display, params)
            keyframes.append(from_rows(pictures, KEYFRAMES))
    schemas = {table.name: table for table in (SHOTS, CLIPS, SIGNALS)}
    scans = _scan_row(video_id, video, measured, shots, len(rows[CLIPS.name]))
    tables = {SCANS.name: from_rows([scans], SCANS), KEYFRAMES.name: pa.concat_tables(keyframes)}
    return tables | {name: from_rows(rows[name], schemas[name]) for name in schemas}


def _scan_row(video_id: str, video: OpenVideo, measured: _Measured, shots: ShotList, clip_count: int) -> Row:
    table = measured.frames
    duration_s = float(int(table.pts[-1] - table.pts[0]) * video.time_base)
    return {
        "video_id": video_id,
        "status": "ok",
        "frame_count": table.count,
        "corrupt_frame_count": video.counts.corrupt,
        "dropped_frame_count": video.counts.dropped,
        "duration_s": duration_s,
        "shot_count": len(shots.shots),
        "clip_count": clip_count,
        "shots_per_s": len(shots.shots) / duration_s,
    }


def _span_columns(pts: NDArray[np.int64], time_base: Fraction, span: Span) -> Row:
    start, end = int(pts[span.first]), int(pts[span.end])
    origin = int(pts[0])
    return {
        "start_pts": start,
        "end_pts": end,
        "start_s": float((start - origin) * time_base),
        "end_s": float((end - origin) * time_base),
    }


def _border(measured: _Measured, clip: Span, display: tuple[int, int]) -> Border:
    pts = measured.frames.pts
    start, end = int(pts[clip.first]), int(pts[clip.end])
    inside = np.nonzero((measured.candidates.pts >= start) & (measured.candidates.pts < end))[0]
    chosen = sorted(
        set(np.linspace(0, len(inside) - 1, min(BORDER_PICTURES, len(inside))).round().astype(int).tolist())
    )
    pictures = [measured.candidates.picture(int(inside[number])) for number in chosen]
    return find_border(pictures, measured.profiles, (start, end), display)


def _clip_row(
    video_id: str,
    shot_index: int,
    clips: ShotClips,
    clip: Span,
    border: Border,
    pts: NDArray[np.int64],
    time_base: Fraction,
    display: tuple[int, int],
) -> Row:
    span = _span_columns(pts, time_base, clip)
    start, end = int(pts[clip.first]), int(pts[clip.end])
    duration_s = float((end - start) * time_base)
    return {
        "clip_id": clip_id(video_id, time_base, start, end, border.crop),
        "video_id": video_id,
        "shot_index": shot_index,
        "start_pts": start,
        "end_pts": end,
        "time_base_num": time_base.numerator,
        "time_base_den": time_base.denominator,
        "start_s": span["start_s"],
        "duration_s": duration_s,
        "frame_count": clip.end - clip.first,
        "fps": (clip.end - clip.first) / duration_s,
        "crop_left_px": border.crop.left,
        "crop_top_px": border.crop.top,
        "crop_width_px": border.crop.width,
        "crop_height_px": border.crop.height,
        "width_px": display[0],
        "height_px": display[1],
        "cut": clips.cut,
    }


def _keyframe_rows(
    clip: Row, candidates: Candidates, border: Border, time_base: Fraction, display: tuple[int, int], params: ScanParams
) -> list[Row]:
    start, end, duration_s = int(clip["start_pts"]), int(clip["end_pts"]), float(clip["duration_s"])  # type: ignore[call-overload, arg-type]
    chosen = choose(candidates.pts, start, end, duration_s, params.keyframe_spacing_s)
    pictures = [keyframe(candidates, number, border.crop, display, params.jpeg_quality) for number in chosen]
    return [
        {
            "clip_id": clip["clip_id"],
            "index": index,
            "pts": picture.pts,
            "time_s": float((picture.pts - start) * time_base),
            "width_px": picture.width_px,
            "height_px": picture.height_px,
            "jpeg": picture.jpeg,
        }
        for index, picture in enumerate(pictures)
    ]
