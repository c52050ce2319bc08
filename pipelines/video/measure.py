"""What is measured on every frame, on the small plane, while decoding: about 0.25 ms a frame.

What belongs here: one number per frame and signal, kept in compact arrays, and a thumbnail per frame on disk. What the numbers
say of a shot or a clip is decided afterwards (`shots.py`, `signals.py`), from these arrays alone.
"""

from array import array
from dataclasses import dataclass

import av
import av.video.plane
import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.video.planes import Image, Plane, Scaler, plane_size
from pipelines.video.reading import OpenVideo
from pipelines.video.spill import Spill

THUMB_WIDTH, THUMB_HEIGHT = 32, 18
_THUMB_BYTES = THUMB_WIDTH * THUMB_HEIGHT * 3
DARK_LUMA = 26  # FFmpeg's blackdetect counts pixels up to a tenth of the range as black
VMAF_SIGMA_PX = 1.1  # of the blur that vmafmotion gives the full frame before it takes differences
NEGLIGIBLE_SIGMA_PX = 0.45  # the same on the scan plane, where averaging has blurred already
CHANGED_LUMA = 6  # a pixel that differs by more has changed; noise of a re-encoded repeat stays below

COLUMNS = (
    "luma",
    "spread",
    "dark_share",
    "hue_change",
    "saturation_change",
    "value_change",
    "difference",
    "changed_share",
)


@dataclass(frozen=True)
class FrameTable:
    """Signals of all frames; arrays of length N unless told. Index 0 compares with nothing and holds 0."""

    pts: NDArray[np.int64]  # N + 1: the last is the end of the last frame
    luma: NDArray[np.float32]  # mean, 0..255
    spread: NDArray[np.float32]  # standard deviation of luma
    dark_share: NDArray[np.float32]  # share of pixels with luma up to DARK_LUMA
    hue_change: NDArray[np.float32]  # mean absolute difference to the frame before, hue 0..179
    saturation_change: NDArray[np.float32]  # the same of saturation, 0..255
    value_change: NDArray[np.float32]  # the same of value (the largest of R, G and B), 0..255
    difference: NDArray[np.float32]  # mean absolute difference of luma, blurred as much as vmafmotion would
    changed_share: NDArray[np.float32]  # share of pixels whose luma changed by more than CHANGED_LUMA

    @property
    def count(self) -> int:
        return len(self.luma)

    @property
    def content_change(self) -> NDArray[np.float32]:
        """PySceneDetect's content value: the mean of the changes of hue, saturation and value."""
        return (self.hue_change + self.saturation_change + self.value_change) / np.float32(3)


class Thumbs:
    """A 32x18 YUV picture of every frame, on disk."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill

    def __len__(self) -> int:
        return len(self._spill)

    def append(self, small: Image) -> None:
        self._spill.append(cv2.resize(small, (THUMB_WIDTH, THUMB_HEIGHT), interpolation=cv2.INTER_AREA).tobytes())

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Thumbnails of frames `start` to `stop` (exclusive), clipped to the video: T H W C."""
        start, stop = max(start, 0), min(stop, len(self))
        flat = np.frombuffer(self._spill.read(start, max(stop, start)), np.uint8)
        return flat.reshape(-1, THUMB_HEIGHT, THUMB_WIDTH, 3)


class FrameMeter:
    """Measures one frame after another."""

    def __init__(self, video: OpenVideo, plane_px: int, thumbs: Thumbs) -> None:
        self.width_px, self.height_px = plane_size(video.width_px, video.height_px, plane_px)
        self._scale = Scaler(video, self.width_px, self.height_px, "yuv420p")
        self._thumbs = thumbs
        self._pts = array("q")
        self._columns = {name: array("f") for name in COLUMNS}
        self._before: tuple[Image, Image, Image] | None = None
        self._last_duration = 0
        sigma = VMAF_SIGMA_PX * self.width_px / video.width_px
        self._sigma = sigma if sigma > NEGLIGIBLE_SIGMA_PX else 0.0

    def __call__(self, frame: av.VideoFrame) -> Plane:
        """Measure `frame` against the one before, and return its plane for what else wants to look at it."""
        self._pts.append(int(frame.pts or 0))
        self._last_duration = frame.duration or 0
        plane = self._plane(frame)
        self._thumbs.append(plane.small)
        hsv = cv2.cvtColor(cv2.cvtColor(plane.small, cv2.COLOR_YUV2BGR), cv2.COLOR_BGR2HSV)
        blurred = cv2.GaussianBlur(plane.luma, (5, 5), self._sigma) if self._sigma else plane.luma
        self._measure_alone(plane)
        self._measure_change(plane.luma, blurred, hsv)
        self._before = plane.luma, blurred, hsv
        return plane

    def table(self) -> FrameTable:
        """Everything measured. The last frame lasts as long as it says, or as the median frame."""
        pts = np.frombuffer(self._pts, np.int64)
        steps = np.diff(pts)
        last = self._last_duration or (int(np.median(steps)) if len(steps) else 1)
        columns = {name: np.frombuffer(values, np.float32) for name, values in self._columns.items()}
        return FrameTable(pts=np.append(pts, pts[-1] + max(last, 1)), **columns)

    def _plane(self, frame: av.VideoFrame) -> Plane:
        width, height = self.width_px, self.height_px
        scaled = self._scale(frame)
        luma, *chroma = (_rows(scaled.planes[number]) for number in range(3))
        half = cv2.resize(luma, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        return Plane(luma=luma, small=cv2.merge([half, *chroma]))

    def _measure_alone(self, plane: Plane) -> None:
        mean, spread = cv2.meanStdDev(plane.luma)
        bright = cv2.countNonZero(cv2.threshold(plane.luma, DARK_LUMA, 255, cv2.THRESH_BINARY)[1])
        self._append(luma=mean[0, 0], spread=spread[0, 0], dark_share=1 - bright / plane.luma.size)

    def _measure_change(self, luma: Image, blurred: Image, hsv: Image) -> None:
        if self._before is None:
            self._append(**dict.fromkeys(COLUMNS[3:], 0.0))
            return
        luma_before, blurred_before, hsv_before = self._before
        hue, saturation, value, _ = cv2.mean(cv2.absdiff(hsv, hsv_before))
        changed = cv2.threshold(cv2.absdiff(luma, luma_before), CHANGED_LUMA, 255, cv2.THRESH_BINARY)[1]
        self._append(
            hue_change=hue,
            saturation_change=saturation,
            value_change=value,
            difference=cv2.norm(blurred, blurred_before, cv2.NORM_L1) / luma.size,
            changed_share=cv2.countNonZero(changed) / luma.size,
        )

    def _append(self, **values: float) -> None:
        for name, value in values.items():
            self._columns[name].append(value)


def _rows(plane: av.video.plane.VideoPlane) -> Image:
    """An 8-bit plane without the padding that FFmpeg gives its rows; a view that keeps the frame alive."""
    padded = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return padded[: plane.height, : plane.width]
