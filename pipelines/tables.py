"""Every table of the curation side: its Arrow schema, its key, and one line on each column with its unit.

What belongs here: schemas and nothing else. Reading and writing them is `store.py`; computing them is `stages/`.

Conventions. Identifiers are lower-case hex. Time is exact: integer presentation timestamps (PTS) in the time base
`time_base_num / time_base_den` seconds, spans half-open `[start_pts, end_pts)`; columns ending in `_s` repeat the same time as
float seconds from the first frame of the stream, for reading and gating. Pixels are those of the *display frame*: the decoded
frame after rotation, with the pixel aspect ratio applied to the width. A share is 0..1. Types are those that Arrow, Spark and
Parquet readers agree on: int64, float64, string, bool, binary and lists of them (Spark refuses unsigned and fixed-size lists).
"""

from dataclasses import dataclass

import pyarrow as pa

_ID = pa.string()


@dataclass(frozen=True)
class Table:
    """A table's name, key columns, and columns as (name, type, meaning)."""

    name: str
    key: tuple[str, ...]
    about: str
    columns: tuple[tuple[str, pa.DataType, str], ...]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema; a column's meaning is its field metadata `about`. Key columns are not nullable."""
        return pa.schema(
            [
                pa.field(name, kind, nullable=name not in self.key, metadata={"about": about})
                for name, kind, about in self.columns
            ]
        )


INPUTS = Table(
    "inputs",
    ("uri",),
    "One row for every path that was given, whatever became of it.",
    (
        ("uri", pa.string(), "file URI, percent-encoded, so any file name fits"),
        ("video_id", _ID, "content hash of the file; null if it could not be read"),
        ("size_bytes", pa.int64(), "size when it was hashed"),
        ("mtime_ns", pa.int64(), "modification time when it was hashed"),
        ("inode", pa.int64(), "file number when it was hashed; with size and mtime it tells an unchanged file"),
        ("state", pa.string(), "video (first path with these bytes), copy (same bytes under another path) or failed"),
        ("reason", pa.string(), "reason code if failed"),
        ("message", pa.string(), "what happened, for a person"),
        ("batch", pa.string(), "ingest batch that brought it; 'default' from the command line"),
    ),
)

VIDEOS = Table(
    "videos",
    ("video_id",),
    "Container and stream facts from demuxing every packet and decoding one frame.",
    (
        ("video_id", _ID, "sha256 of the file's bytes, first 32 hex digits"),
        ("status", pa.string(), "ok or failed"),
        ("reason", pa.string(), "reason code if failed"),
        ("message", pa.string(), "what happened, for a person"),
        ("size_bytes", pa.int64(), "file size"),
        ("container", pa.string(), "demuxer name"),
        ("video_codec", pa.string(), "codec name"),
        ("pixel_format", pa.string(), "FFmpeg pixel format"),
        ("bit_depth", pa.int64(), "bits per luma sample"),
        ("has_alpha", pa.bool_(), "the pixel format has an alpha plane"),
        ("is_interlaced", pa.bool_(), "the stream or its first frame says so"),
        ("color_space", pa.string(), "matrix coefficients as FFmpeg names them"),
        ("color_range", pa.string(), "tv, pc or unspecified"),
        ("coded_width_px", pa.int64(), "width as stored"),
        ("coded_height_px", pa.int64(), "height as stored"),
        ("rotation_deg", pa.int64(), "clockwise rotation to show it upright: 0, 90, 180 or 270"),
        ("sar_num", pa.int64(), "pixel aspect ratio, numerator (1 if unknown)"),
        ("sar_den", pa.int64(), "pixel aspect ratio, denominator"),
        ("width_px", pa.int64(), "display width: rotated, pixel aspect applied"),
        ("height_px", pa.int64(), "display height"),
        ("time_base_num", pa.int64(), "seconds per PTS unit, numerator"),
        ("time_base_den", pa.int64(), "seconds per PTS unit, denominator"),
        ("start_pts", pa.int64(), "smallest PTS of the video stream"),
        ("end_pts", pa.int64(), "largest PTS plus that packet's duration"),
        ("duration_s", pa.float64(), "(end_pts - start_pts) in seconds; the header's claim is not believed"),
        ("packet_count", pa.int64(), "video packets, an upper bound on frames"),
        ("fps", pa.float64(), "frames per second, mean over the PTS"),
        ("is_vfr", pa.bool_(), "frame distances vary by more than 10 % for more than 5 % of frames"),
        ("gap_count", pa.int64(), "places where PTS jump by more than a second"),
        ("backward_count", pa.int64(), "packets whose DTS runs backwards"),
        ("video_stream_count", pa.int64(), "real video streams; the first that is not a cover picture is used"),
        ("bitrate_bps", pa.int64(), "bytes of video packets x 8 / duration"),
        ("audio_codec", pa.string(), "codec of the first audio stream; null if silent"),
        ("audio_channels", pa.int64(), "channels of it"),
        ("audio_sample_rate_hz", pa.int64(), "sample rate of it"),
        ("audio_duration_s", pa.float64(), "its duration from PTS"),
        ("licence", pa.string(), "licence if known (SPDX where possible)"),
        ("origin", pa.string(), "where it came from, if known"),
    ),
)

SCANS = Table(
    "scans",
    ("video_id",),
    "One row for every video that was scanned: what the one decode pass found, or why it failed.",
    (
        ("video_id", _ID, "the video"),
        ("status", pa.string(), "ok or failed"),
        ("reason", pa.string(), "reason code if failed"),
        ("message", pa.string(), "what happened, for a person"),
        ("frame_count", pa.int64(), "frames decoded"),
        ("corrupt_frame_count", pa.int64(), "frames that the decoder flagged or could not decode"),
        ("dropped_frame_count", pa.int64(), "frames left out because their PTS repeat or run backwards"),
        ("duration_s", pa.float64(), "from the decoded frames' PTS"),
        ("shot_count", pa.int64(), "shots found"),
        ("clip_count", pa.int64(), "clips made of them"),
        ("shots_per_s", pa.float64(), "shots detected per second, the paper's jitter evidence"),
    ),
)

SHOTS = Table(
    "shots",
    ("video_id", "index"),
    "Where one camera take begins and ends.",
    (
        ("video_id", _ID, "the video"),
        ("index", pa.int64(), "0-based, in time order"),
        ("start_pts", pa.int64(), "first frame of the shot, after any gradual transition"),
        ("end_pts", pa.int64(), "exclusive end: before the next transition begins"),
        ("start_s", pa.float64(), "start in seconds from the first frame"),
        ("end_s", pa.float64(), "end in seconds from the first frame"),
        ("start_frame", pa.int64(), "0-based index of the first frame"),
        ("end_frame", pa.int64(), "exclusive end frame"),
        ("transition", pa.string(), "at its start: start, cut, dissolve, fade, wipe or gap"),
        ("transition_score", pa.float64(), "the detector's score of it, in that detector's own scale"),
        ("transition_frame_count", pa.int64(), "frames that the transition takes: 0 for a cut"),
        ("clip_count", pa.int64(), "clips cut from this shot; 0 if it is too short after trimming"),
        ("unused_s", pa.float64(), "seconds of the shot in no clip: trimmed, or too short"),
    ),
)

CLIPS = Table(
    "clips",
    ("clip_id",),
    "A clip is virtual until export: a span of a source and a crop box.",
    (
        ("clip_id", _ID, "hash of video_id, time base, span and crop; 32 hex digits"),
        ("video_id", _ID, "the source"),
        ("shot_index", pa.int64(), "the one shot that holds it"),
        ("start_pts", pa.int64(), "first frame's PTS"),
        ("end_pts", pa.int64(), "exclusive end PTS"),
        ("time_base_num", pa.int64(), "seconds per PTS unit, numerator"),
        ("time_base_den", pa.int64(), "seconds per PTS unit, denominator"),
        ("start_s", pa.float64(), "start in seconds from the first frame of the source"),
        ("duration_s", pa.float64(), "(end_pts - start_pts) in seconds"),
        ("frame_count", pa.int64(), "decoded frames in the span"),
        ("fps", pa.float64(), "frame_count / duration_s"),
        ("crop_left_px", pa.int64(), "crop box in the display frame, borders taken off"),
        ("crop_top_px", pa.int64(), "see crop_left_px"),
        ("crop_width_px", pa.int64(), "see crop_left_px; even"),
        ("crop_height_px", pa.int64(), "see crop_left_px; even"),
        ("width_px", pa.int64(), "display width of the source"),
        ("height_px", pa.int64(), "display height of the source"),
        ("cut", pa.string(), "whole (all of its trimmed shot) or divided (an equal part of a long one)"),
    ),
)

SIGNALS = Table(
    "signals",
    ("clip_id",),
    "Everything the scan measures of a clip.",
    (
        ("clip_id", _ID, "the clip"),
        ("border_kind", pa.string(), "none, letterbox, pillarbox, windowbox or picture_in_picture"),
        ("border_share", pa.float64(), "share of the display frame outside the crop box"),
        ("black_share", pa.float64(), "share of frames that are black"),
        ("flat_share", pa.float64(), "share of frames of nearly one colour, black included"),
        ("flash_count", pa.int64(), "short bright or dark flashes"),
        ("brightness", pa.float64(), "mean luma, 0..255"),
        ("contrast", pa.float64(), "mean over frames of luma's standard deviation, 0..128"),
        ("sharpness", pa.float64(), "median variance of the Laplacian on the scan plane"),
        (
            "motion_score",
            pa.float64(),
            "mean difference of blurred luma between frames, in the scale of FFmpeg's vmafmotion",
        ),
        ("flow_speed", pa.float64(), "mean displacement of tracked points, diagonals per second"),
        (
            "flow_px",
            pa.float64(),
            "the same in pixels per frame at the clip's own size, comparable to a mean motion vector",
        ),
        ("camera_speed", pa.float64(), "part of flow_speed that a global camera model explains, diagonals per second"),
        ("subject_speed", pa.float64(), "residual against the camera model, diagonals per second"),
        ("static_share", pa.float64(), "share of time in which nothing moves"),
        ("duplicate_share", pa.float64(), "share of frames that repeat the frame before"),
        ("jitter", pa.float64(), "high-frequency part of the camera path, diagonals per second"),
        ("shots_per_s", pa.float64(), "raw detector fires per second over the clip, before stitching"),
        ("slideshow_score", pa.float64(), "0..1, evidence of stills with cross-fades or synthetic moves"),
        ("camera_pan_x", pa.float64(), "mean horizontal camera translation, diagonals per second, right positive"),
        ("camera_pan_y", pa.float64(), "mean vertical camera translation, diagonals per second, down positive"),
        ("camera_zoom", pa.float64(), "mean relative scale change per second, in positive"),
        ("camera_roll", pa.float64(), "mean rotation, radians per second, clockwise positive"),
        (
            "camera_parallax",
            pa.float64(),
            "0..1, share of displacement that depth explains rather than rotation or zoom",
        ),
        ("camera_coherence", pa.float64(), "0..1, share of tracked points that follow the camera model"),
        ("handheld_energy", pa.float64(), "1 to 8 Hz energy of the camera path, diagonals per second"),
    ),
)

KEYFRAMES = Table(
    "keyframes",
    ("clip_id", "index"),
    "A few evenly spaced pictures of a clip: all that later stages ever see of it.",
    (
        ("clip_id", _ID, "the clip"),
        ("index", pa.int64(), "0-based, in time order"),
        ("pts", pa.int64(), "PTS of the frame in the source"),
        ("time_s", pa.float64(), "seconds from the start of the clip"),
        ("width_px", pa.int64(), "width of the picture, crop applied"),
        ("height_px", pa.int64(), "height of the picture"),
        ("jpeg", pa.binary(), "JPEG, long side at most 640 px"),
    ),
)

FAILURES = Table(
    "failures",
    ("stage", "key"),
    "What a stage could not do, with the reason code.",
    (
        ("stage", pa.string(), "the stage"),
        ("key", pa.string(), "what it was given: a video_id or a clip_id"),
        ("reason", pa.string(), "reason code, see pipelines/video/reasons.py"),
        ("message", pa.string(), "what happened, for a person"),
        ("is_retryable", pa.bool_(), "another attempt may succeed (limits, permissions, a changing file)"),
    ),
)

DECISIONS = Table(
    "decisions",
    ("policy", "subject_id", "gate"),
    "The ledger: one row for every gate that spoke about a video or a clip.",
    (
        ("policy", pa.string(), "the policy's name"),
        ("subject_kind", pa.string(), "video or clip"),
        ("subject_id", _ID, "video_id or clip_id"),
        ("gate", pa.string(), "the gate's name"),
        ("column", pa.string(), "table.column that it reads"),
        ("score", pa.float64(), "the measurement; null if it is text or failed"),
        ("value", pa.string(), "the measurement as text, for columns that are no numbers"),
        ("threshold", pa.string(), "the bound(s), as written: '>= 4', '0.5..7', 'in none|letterbox'"),
        ("verdict", pa.string(), "pass or reject"),
        ("cause", pa.string(), "quality (the score), error (the measurement failed), duplicate, resampling or quota"),
    ),
)

SELECTION = Table(
    "selection",
    ("policy", "subject_id"),
    "The one final state of every video and clip under a policy.",
    (
        ("policy", pa.string(), "the policy's name"),
        ("subject_kind", pa.string(), "video or clip"),
        ("subject_id", _ID, "video_id or clip_id"),
        ("video_id", _ID, "the video itself, or the clip's source"),
        (
            "state",
            pa.string(),
            "selected, rejected, duplicate, resampled_away or failed; for a video also yielded_clips or without_clips",
        ),
        (
            "gate",
            pa.string(),
            "the first gate that stopped it, or probe, scan or export if that failed; null otherwise",
        ),
        ("reason", pa.string(), "reason code if failed; clip_id of the kept copy if duplicate"),
        ("bucket", pa.string(), "the bucket of a selected clip, such as 16x9-4s"),
        ("weight", pa.float64(), "sampling weight of a selected clip"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (INPUTS, VIDEOS, SCANS, SHOTS, CLIPS, SIGNALS, KEYFRAMES, FAILURES, DECISIONS, SELECTION)
}


def conform(batch: pa.Table, table: Table) -> pa.Table:
    """`batch` with exactly the columns of `table`, in its order and types; absent nullable columns become null.

    Every engine boundary passes through here: Spark binds columns by position and would swap two of one type silently.

    Raises:
        ValueError: an unknown column, a missing or null key, or a value that does not fit its type.
    """
    unknown = set(batch.column_names) - set(table.schema.names)
    if unknown:
        raise ValueError(f"table {table.name} has no column {sorted(unknown)}; its columns are {table.schema.names}")
    arrays = []
    for field in table.schema:
        if field.name in batch.column_names:
            column = batch.column(field.name)
        elif field.nullable:
            column = pa.nulls(batch.num_rows, field.type)
        else:
            raise ValueError(f"table {table.name} needs its key column {field.name!r}; got {batch.column_names}")
        try:
            column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"table {table.name}, column {field.name!r}: {error}") from error
        if not field.nullable and column.null_count:
            raise ValueError(f"table {table.name}, key column {field.name!r} has {column.null_count} nulls")
        arrays.append(column)
    return pa.table(arrays, schema=table.schema)


def from_rows(rows: list[dict[str, object]], table: Table) -> pa.Table:
    """A conforming Arrow table from row dictionaries; a missing nullable column is null."""
    names = {name for row in rows for name in row}
    unknown = names - set(table.schema.names)
    if unknown:
        raise ValueError(f"table {table.name} has no column {sorted(unknown)}; its columns are {table.schema.names}")
    return pa.Table.from_pylist(rows, schema=table.schema)
