"""From a decoded frame to the small pictures that the scan looks at, upright and with square pixels.

What belongs here: FFmpeg filter graphs that scale and turn. Scaling in the graph costs a quarter of decoding; converting in
Python costs two to ten times more (facts/environment.md). What is measured on the pictures is in the other parts of the scan.
"""

from dataclasses import dataclass
from typing import Any

import av
import av.filter
from numpy.typing import NDArray

from pipelines.video.reading import OpenVideo

Image = NDArray[Any]  # uint8; H W of luma, or H W C

# FFmpeg's transpose: 1 is a quarter turn clockwise, 2 counterclockwise.
_TURNS: dict[int, tuple[tuple[str, str], ...]] = {
    0: (),
    90: (("transpose", "1"),),
    180: (("hflip", ""), ("vflip", "")),
    270: (("transpose", "2"),),
}


class Scaler:
    """Scales frames of one video to `width` x `height` (as displayed) in pixel format `pixels`, full range, upright.

    One frame in, one frame out. Only the pixel format of the frames may change on the way; the graph is then built again.
    """

    def __init__(self, video: OpenVideo, width: int, height: int, pixels: str, flags: str = "area") -> None:
        self._video = video
        stored = (height, width) if video.is_sideways else (width, height)
        self._steps = [
            ("scale", f"{stored[0]}:{stored[1]}:flags={flags}:out_range=full"),
            ("format", pixels),
            *_TURNS[video.rotation_deg],
        ]
        self._format: str | None = None
        self._graph = av.filter.Graph()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        if frame.format.name != self._format:
            self._build(frame)
        self._graph.push(frame)
        return self._graph.pull()  # type: ignore[return-value]

    def _build(self, frame: av.VideoFrame) -> None:
        graph = av.filter.Graph()
        graph.threads = 1  # a small picture does not gain from slices
        node = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._video.time_base
        )
        for name, arguments in [*self._steps, ("buffersink", "")]:
            following = graph.add(name, arguments)
            node.link_to(following)
            node = following
        graph.configure()
        self._graph, self._format = graph, frame.format.name


@dataclass(frozen=True)
class Plane:
    """The scan plane of one frame: luma and, at half its size, luma and chroma together. Full range."""

    luma: Image  # H W
    small: Image  # H/2 W/2 3, YUV


def plane_size(width_px: int, height_px: int, long_side: int) -> tuple[int, int]:
    """Width and height of the scan plane: long side as given, the other in proportion, a multiple of 4 and at least 32."""
    scale = long_side / max(width_px, height_px)
    return _multiple(width_px * scale, 4), _multiple(height_px * scale, 4)


def picture_size(width_px: int, height_px: int, long_side: int) -> tuple[int, int]:
    """Width and height of a picture whose long side is at most `long_side`; never enlarged, at least 1."""
    scale = min(1.0, long_side / max(width_px, height_px))
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def _multiple(value: float, step: int) -> int:
    return max(32, round(value / step) * step)
