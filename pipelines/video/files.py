"""What the operating system knows of a file: who it is, whether it may be opened, whether it changed.

What belongs here: opening a regular file safely and naming it by its bytes. Nothing here looks inside the media.
"""

import errno
import hashlib
import os
import stat
from dataclasses import dataclass

from pipelines.video.reasons import MediaError, Reason

READ_BYTES = 1 << 20  # one read; sha256 runs at the disk's speed from 64 KiB on
VIDEO_ID_HEX = 32  # 128 bits of sha256: a collision among 10^12 files has probability 10^-15

AnyPath = str | bytes | os.PathLike[str]

_REASONS = {
    errno.ENOENT: Reason.MISSING,
    errno.ENOTDIR: Reason.MISSING,
    errno.ENAMETOOLONG: Reason.MISSING,
    errno.ELOOP: Reason.LINK_LOOP,
    errno.EISDIR: Reason.IS_A_FOLDER,
    errno.EACCES: Reason.PERMISSION_DENIED,
    errno.EPERM: Reason.PERMISSION_DENIED,
    errno.ENXIO: Reason.NOT_A_FILE,
}


@dataclass(frozen=True)
class FileFacts:
    """A file's identity: by its bytes, and by what tells cheaply that the bytes are still the same."""

    video_id: str  # first 32 hex digits of sha256 of the bytes
    size_bytes: int
    mtime_ns: int
    inode: int


def identify(path: AnyPath) -> FileFacts:
    """Hash the file's bytes, streaming.

    Raises:
        MediaError: no regular file, not readable, or written to meanwhile. An empty file is `empty`.
    """
    descriptor = open_regular_file(path)
    try:
        before = os.fstat(descriptor)
        digest, size_bytes = _hash(descriptor, before.st_size)
        after = os.fstat(descriptor)
    except OSError as error:
        raise media_error(error) from error
    finally:
        os.close(descriptor)
    if _stamp(before) != _stamp(after) or size_bytes != after.st_size:
        raise MediaError(
            Reason.CHANGED_WHILE_READING, f"{before.st_size} bytes before, {after.st_size} after, {size_bytes} read"
        )
    if size_bytes == 0:
        raise MediaError(Reason.EMPTY)
    return FileFacts(digest[:VIDEO_ID_HEX], size_bytes, after.st_mtime_ns, after.st_ino)


def check_unchanged(path: AnyPath, facts: FileFacts) -> None:
    """Hold size, modification time and inode against `facts`, without reading; call it before and after using the file.

    Raises:
        MediaError: `changed_while_reading`, or why the file cannot be looked at.
    """
    found = _stamp(_stat_regular(path))
    expected = (facts.size_bytes, facts.mtime_ns, facts.inode)
    if found != expected:
        raise MediaError(
            Reason.CHANGED_WHILE_READING,
            f"size, mtime_ns and inode were {expected} when the file was hashed and are now {found}",
        )


def open_regular_file(path: AnyPath) -> int:
    """A read-only descriptor of a regular file; pipes, sockets and devices are told by stat and never opened.

    Raises:
        MediaError: what the operating system said, as a reason code.
    """
    _stat_regular(path)
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise media_error(error) from error


def media_error(error: OSError) -> MediaError:
    """The reason code for what the operating system said of a path."""
    return MediaError(_REASONS.get(error.errno or 0, Reason.READ_ERROR), error.strerror or str(error))


def _stat_regular(path: AnyPath) -> os.stat_result:
    try:
        found = os.stat(path)  # noqa: PTH116  (a path may be bytes)
    except OSError as error:
        raise media_error(error) from error
    except ValueError as error:  # a null byte in the name
        raise MediaError(Reason.MISSING, str(error)) from error
    if stat.S_ISDIR(found.st_mode):
        raise MediaError(Reason.IS_A_FOLDER)
    if not stat.S_ISREG(found.st_mode):
        raise MediaError(Reason.NOT_A_FILE)
    return found


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino


def _hash(descriptor: int, expected_bytes: int) -> tuple[str, int]:
    """The digest and the bytes read; it stops beyond `expected_bytes`, for a file may grow for ever."""
    digest = hashlib.sha256()
    size_bytes = 0
    while size_bytes <= expected_bytes and (chunk := os.read(descriptor, READ_BYTES)):
        digest.update(chunk)
        size_bytes += len(chunk)
    return digest.hexdigest(), size_bytes
