"""Why a media file, or a call of the sandbox, failed: one code for every way.

What belongs here: the codes and the exception that carries one. Nothing that opens a file; the parent process imports this
without importing FFmpeg.
"""

from enum import StrEnum


class Reason(StrEnum):
    """A reason code. `sentence` says it to a person; `is_retryable` says that the same bytes may succeed another time."""

    sentence: str
    is_retryable: bool

    def __new__(cls, code: str, sentence: str = "", is_retryable: bool = False) -> "Reason":
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        member.is_retryable = is_retryable
        return member

    # The path.
    MISSING = "missing", "there is no file: the path or the link's target does not exist", True
    LINK_LOOP = "link_loop", "the links lead back to themselves", True
    IS_A_FOLDER = "is_a_folder", "the path is a folder, not a file", True
    NOT_A_FILE = "not_a_file", "the path is a pipe, socket or device, which is never opened", True
    PERMISSION_DENIED = "permission_denied", "the file may not be read by this user", True
    READ_ERROR = "read_error", "the operating system could not read the file", True
    CHANGED_WHILE_READING = "changed_while_reading", "the file was written to while it was read", True
    # The bytes.
    EMPTY = "empty", "the file has no bytes"
    NOT_MEDIA = "not_media", "the bytes are in no known media format"
    FORBIDDEN_FORMAT = "forbidden_format", "the format is not accepted: a playlist, script, picture or raw stream"
    HEADER_BROKEN = "header_broken", "the format is known but its header cannot be read"
    TRUNCATED = "truncated", "the file ends before what it announces"
    NO_VIDEO_STREAM = "no_video_stream", "there is no video stream (sound, subtitles or a cover picture only)"
    UNSUPPORTED_CODEC = "unsupported_codec", "no decoder for the video stream"
    TOO_LARGE = "too_large", "the frame is larger than the limit"
    NO_FRAMES = "no_frames", "the video stream holds no frame"
    ZERO_DURATION = "zero_duration", "the video takes no time"
    DECODE_ERROR = "decode_error", "too much of the video cannot be decoded"
    TIMESTAMPS_BROKEN = "timestamps_broken", "most frames have no usable time"
    FRAME_SIZE_CHANGES = "frame_size_changes", "the frame size changes within the stream"
    # The run.
    TIMEOUT = "timeout", "no progress within the time limit", True
    OUT_OF_MEMORY = "out_of_memory", "more memory was asked for than the limit allows", True
    CRASHED = "crashed", "the child process died", True
    DISK_FULL = "disk_full", "no space left where the output goes", True
    INTERNAL_ERROR = "internal_error", "an error in Reelmill itself", True


class MediaError(Exception):
    """A file that cannot be used, with its reason code and a message for a person."""

    def __init__(self, reason: Reason, message: str = "") -> None:
        super().__init__(message or reason.sentence)
        self.reason = reason
        self.message = message or reason.sentence
