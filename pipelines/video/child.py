"""The sandbox's child process: sets its own limits, then runs one task after another and answers.

What belongs here: the main loop, the limits, and turning exceptions into reason codes. The parent's side is `sandbox.py`;
the tasks are `probe.py`, `scan.py` and `export.py`. Nothing heavy is imported before a task needs it.

A task is `run(request, beat) -> (facts, tables)`; it calls `beat()` as work goes on, and the parent kills a child that falls
silent. Standard output is moved away before any library is loaded, so a library that prints cannot break the protocol.
"""

import ctypes
import errno
import fcntl
import importlib
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipelines.video import wire
from pipelines.video.reasons import MediaError, Reason

Task = Callable[[dict[str, Any], Callable[[], None]], tuple[dict[str, Any], dict[str, pa.Table]]]

BEAT_EVERY_S = 0.1  # a task may beat per frame (1000/s); the parent needs a few a second
MAX_MESSAGE_CHARS = 2000
OPEN_FILES = 256
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_CAP_SYS_NICE = 23
OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem


def main(lifeline: int) -> None:
    """Serve requests from standard input until it ends. `lifeline` is a pipe whose other end only the parent holds."""
    die_with_parent(lifeline)
    out = os.dup(1)
    os.dup2(2, 1)
    inbox = bytearray()
    start = _receive(inbox)
    if start is None:
        return
    set_limits(start["memory_bytes"])
    stay_interruptible()
    sys.path.extend(start["import_path"])
    _send(out, wire.encode({"kind": "ready"}))
    while (request := _receive(inbox)) is not None:
        _send(out, _answer(start["tasks"], request, _Beat(out)))


def die_with_parent(lifeline: int) -> None:
    """End this process as soon as the parent is gone, however it went.

    The kernel sends SIGIO, whose default is to end the process, when the other end of the pipe closes: that works inside
    a decoder that never returns and holds Python's lock. The thread does the same where pipes send no signals (macOS).
    PR_SET_PDEATHSIG is not used: it fires when the parent's *thread* that started us ends.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)

    def wait() -> None:
        while os.read(lifeline, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def set_limits(memory_bytes: int) -> None:
    """Address space, no core file, few open files; never more than the user may have (`ulimit -Hv`)."""
    for kind, wanted in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        most = resource.getrlimit(kind)[1]
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (limit, limit))


def stay_interruptible() -> None:
    """Give up the right to real-time priority, for this process and its threads.

    SVT-AV1, run by root, raises its own threads and the calling one to SCHED_FIFO 99 and leaves them there: on two cores one AV1
    encode then starves every other process, the parent that should time it out among them (seen 2026-11-22).
    """
    if sys.platform != "linux":
        return
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of capabilities 0..31, then of 32..63
    if libc.capget(header, sets) == 0:
        for index in range(3):
            sets[index] &= ~(1 << _CAP_SYS_NICE)
        libc.capset(header, sets)


class _Beat:
    """`beat()`: a message to the parent, at most ten a second."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._last_s = 0.0

    def __call__(self) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= BEAT_EVERY_S:
            self._last_s = now_s
            _send(self._out, wire.encode({"kind": "beat"}))


def _answer(tasks: dict[str, str], request: wire.Header, beat: Callable[[], None]) -> bytes:
    try:
        run = _load(tasks[request["task"]])
        facts, tables = run(request["request"], beat)
        names, body = wire.tables_to_bytes(tables)
        return wire.encode({"kind": "reply", "status": "ok", "facts": facts, "tables": names}, body)
    except Exception as error:  # noqa: BLE001  (the one place where anything that a task raises becomes a reason code)
        reason, message = explain(error)
        message = message[-MAX_MESSAGE_CHARS:]
        return wire.encode({"kind": "reply", "status": "failed", "reason": str(reason), "message": message})


def explain(error: Exception) -> tuple[Reason, str]:
    """The reason code and the message for what a task raised."""
    if isinstance(error, MediaError):
        return error.reason, error.message
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or getattr(error, "code", 0) == OPENCV_NO_MEMORY:
        return Reason.OUT_OF_MEMORY, f"{type(error).__name__}: {error}"
    if number in (errno.ENOSPC, errno.EDQUOT):
        return Reason.DISK_FULL, str(error)
    return Reason.INTERNAL_ERROR, "".join(traceback.format_exception(error))


def _load(target: str) -> Task:
    """The function that `module:function` names."""
    module, _, function = target.partition(":")
    task: Task = getattr(importlib.import_module(module), function)
    return task


def _receive(inbox: bytearray) -> wire.Header | None:
    """The next message's header; None when the parent has closed the pipe."""
    while (message := wire.decode(inbox, max_body_bytes=0)) is None:
        chunk = os.read(0, 1 << 16)
        if not chunk:
            return None
        inbox += chunk
    return message[0]


def _send(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
