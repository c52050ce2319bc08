"""Keyframes: pictures of the video on a time grid while decoding, from which each clip's own are chosen afterwards.

What belongs here: taking candidates, keeping them on disk, choosing, cropping, JPEG. A candidate is taken at most every
`candidate_spacing_s` (0.25 s), so a clip's first and last keyframe lie within one such step of its first and last frame, and
nothing of full size is ever kept.
"""

from array import array
from dataclasses import dataclass, field

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.video.clips import Crop
from pipelines.video.planes import Image, Scaler, picture_size
from pipelines.video.reading import OpenVideo
from pipelines.video.scan_params import ScanParams
from pipelines.video.spill import Spill

MIN_KEYFRAMES = 3
CANDIDATE_QUALITY = 95  # of the JPEG on disk, from which the keyframe is cropped and encoded again


@dataclass
class Candidates:
    """Pictures of the whole video, upright, long side at most `keyframe_px`, at increasing PTS."""

    width_px: int
    height_px: int
    _spill: Spill
    _pts: "array[int]" = field(default_factory=lambda: array("q"))

    @property
    def pts(self) -> NDArray[np.int64]:
        """PTS of every candidate; asked for when all are taken, since the view forbids more."""
        return np.frombuffer(self._pts, np.int64)

    def append(self, pts: int, picture: Image) -> None:
        self._spill.append(encode_jpeg(picture, CANDIDATE_QUALITY))
        self._pts.append(pts)

    def picture(self, index: int) -> Image:
        """Candidate number `index`: H W 3, BGR."""
        return cv2.imdecode(np.frombuffer(self._spill[index], np.uint8), cv2.IMREAD_COLOR)


class CandidateTaker:
    """Decides which frames become candidates and takes them, 2 ms each at 1080p."""

    def __init__(self, video: OpenVideo, params: ScanParams, spill: Spill) -> None:
        width, height = picture_size(video.width_px, video.height_px, params.keyframe_px)
        self.candidates = Candidates(width, height, spill)
        self._scale = Scaler(video, width, height, "bgr24")
        self._step = max(1, round(params.candidate_spacing_s / video.time_base))
        self._next_pts: int | None = None

    def __call__(self, frame: av.VideoFrame) -> bool:
        """Take `frame` if the grid wants one; the grid starts at the first frame."""
        pts = int(frame.pts or 0)
        if self._next_pts is None:
            self._next_pts = pts
        if pts < self._next_pts:
            return False
        self.candidates.append(pts, self._scale(frame).to_ndarray())
        self._next_pts += ((pts - self._next_pts) // self._step + 1) * self._step
        return True


@dataclass(frozen=True)
class Keyframe:
    pts: int
    width_px: int
    height_px: int
    jpeg: bytes


def choose(pts: NDArray[np.int64], start_pts: int, end_pts: int, duration_s: float, spacing_s: float) -> list[int]:
    """Numbers of the candidates in `[start_pts, end_pts)` nearest to evenly spaced times, first and last included.

    One for every `spacing_s`, at least three; fewer only where a clip has fewer frames.
    """
    inside = np.nonzero((pts >= start_pts) & (pts < end_pts))[0]
    if not len(inside):
        return []
    count = max(MIN_KEYFRAMES, round(duration_s / spacing_s) + 1)
    wanted = np.linspace(pts[inside[0]], pts[inside[-1]], count)
    nearest = np.abs(pts[inside][None, :] - wanted[:, None]).argmin(axis=1)
    return [int(inside[number]) for number in sorted(set(nearest.tolist()))]


def keyframe(candidates: Candidates, index: int, crop: Crop, display: tuple[int, int], quality: int) -> Keyframe:
    """Candidate `index`, cropped to `crop` of a display frame of `display` (width, height) pixels."""
    picture = candidates.picture(index)
    scale_x, scale_y = candidates.width_px / display[0], candidates.height_px / display[1]
    left, top = round(crop.left * scale_x), round(crop.top * scale_y)
    right = max(left + 1, round((crop.left + crop.width) * scale_x))
    bottom = max(top + 1, round((crop.top + crop.height) * scale_y))
    cropped = np.ascontiguousarray(picture[top:bottom, left:right])
    return Keyframe(int(candidates.pts[index]), cropped.shape[1], cropped.shape[0], encode_jpeg(cropped, quality))


def encode_jpeg(picture: Image, quality: int) -> bytes:
    """JPEG bytes of a BGR picture; the same picture gives the same bytes."""
    is_done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert is_done
    return data.tobytes()
