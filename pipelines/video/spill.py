"""Records that are too many for memory, in a file that has no name and vanishes with the process.

What belongs here: appending byte strings and reading them back by number. What the bytes mean is the caller's.
"""

import os
import tempfile
from array import array
from types import TracebackType
from typing import Self


class Spill:
    """A list of byte strings on disk. Only 8 bytes a record stay in memory.

    Raises:
        OSError: the disk is full; the sandbox gives that its reason code.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="reelmill-")  # noqa: SIM115  (lives as long as this object)
        self._ends = array("q", [0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, record: bytes | memoryview) -> None:
        self._ends.append(self._ends[-1] + self._file.write(record))

    def __getitem__(self, index: int) -> bytes:
        return self.read(index, index + 1)

    def read(self, start: int, stop: int) -> bytes:
        """Records `start` to `stop` (exclusive) joined."""
        self._file.flush()
        begin, end = self._ends[start], self._ends[stop]
        return os.pread(self._file.fileno(), end - begin, begin)
