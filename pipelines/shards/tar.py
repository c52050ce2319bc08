"""Tar bytes that depend on nothing but names and contents: POSIX ustar, mode 644, owner 0, time 0."""

import hashlib
import tarfile
from collections.abc import Mapping
from typing import BinaryIO

BLOCK_BYTES = tarfile.BLOCKSIZE
END_BYTES = 2 * BLOCK_BYTES


def header(name: str, size_bytes: int) -> bytes:
    """One 512-byte header. Names here are short and ASCII, so ustar always fits."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uid, info.gid, info.uname, info.gname = size_bytes, 0o644, 0, 0, 0, "", ""
    return info.tobuf(tarfile.USTAR_FORMAT)


def padding(size_bytes: int) -> bytes:
    """Zeros up to the next block."""
    return bytes(-size_bytes % BLOCK_BYTES)


def member_bytes(size_bytes: int) -> int:
    """What a member takes in the tar: header, contents, padding."""
    return BLOCK_BYTES + size_bytes + (-size_bytes % BLOCK_BYTES)


class TarWriter:
    """Appends members to a stream; keeps the running length and sha256 of all that was written."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0

    def add(self, members: Mapping[str, bytes]) -> dict[str, int]:
        """Append members in order of their names; the offset of each one's contents."""
        offsets = {}
        for name in sorted(members):
            self._write(header(name, len(members[name])))
            offsets[name] = self.size_bytes
            self._write(members[name])
            self._write(padding(len(members[name])))
        return offsets

    def finish(self) -> str:
        """Write the end marker; the sha256 of the whole tar."""
        self._write(bytes(END_BYTES))
        return self._sha256.hexdigest()

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._sha256.update(data)
        self.size_bytes += len(data)
