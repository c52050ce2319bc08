"""Decode a clip to its end and count: the task `recount` of the sandbox child, with which shards are verified.

In: {path, threads}. Out: facts frame_count, duration_s (first frame to the end of the last), width_px, height_px and
corrupt_frame_count.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipelines.video.reading import frames, open_video


def run(request: dict[str, Any], beat: Callable[[], None]) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """The sandbox task.

    Raises:
        MediaError: the file cannot be read or too little of it decodes.
    """
    with open_video(request["path"], int(request["threads"])) as video:
        count, end_pts = 0, video.first_pts
        for frame in frames(video):
            beat()
            count, end_pts = count + 1, int(frame.pts or 0) + int(frame.duration or 0)
        facts = {
            "frame_count": count,
            "duration_s": float((end_pts - video.first_pts) * video.time_base),
            "width_px": video.width_px,
            "height_px": video.height_px,
            "corrupt_frame_count": video.counts.corrupt,
        }
    return facts, {}
