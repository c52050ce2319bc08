"""The parent's side of the sandbox: media is opened in a child process with limits on time and memory.

What belongs here: starting, feeding, watching and killing the child, and judging how it ended. The child's main loop is
`child.py`, the messages are `wire.py`. What a task does is its own file.

The child's answer is as untrusted as the file it read: sizes are capped, Arrow data is validated, reason codes must be
known, nothing is pickled. Several sandboxes may be driven from several threads of one process, one thread each: children
are started by exec, never by fork, and inherit nothing but their own pipes.
"""

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from pipelines.video import wire
from pipelines.video.reasons import Reason

TASKS: Mapping[str, str] = {
    "probe": "pipelines.video.probe:run",
    "scan": "pipelines.video.scan:run",
    "export": "pipelines.video.export:run",
    "recount": "pipelines.video.recount:run",
}
ROOT = str(Path(__file__).resolve().parents[2])  # the child runs the very code that the parent runs
_START = "import sys; sys.path.insert(0, sys.argv[1]); from pipelines.video.child import main; main(int(sys.argv[2]))"
# No proxies, no credentials, no PYTHON*. One thread and two heaps per library: address space is limited.
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "TMPDIR", "TZ")
_STDERR_TAIL_BYTES = 8192
_STDERR_TAIL_LINES = 12
_BY_CODE = {str(reason): reason for reason in Reason}
# After these the child's state is not to be trusted; a sound answer about a bad file is no cause to start another.
_RUN_REASONS = {Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.CRASHED, Reason.INTERNAL_ERROR}


@dataclass(frozen=True)
class Limits:
    """What a child may use. A child over a limit is killed and the call answers with a reason code."""

    memory_bytes: int = 4 << 30  # address space of the child, libraries included (about 0.7 GiB of them)
    stall_s: float = 30.0  # longest silence between two beats
    total_s: float = 3600.0  # longest call
    start_s: float = 60.0  # longest start of a child
    reply_bytes: int = 1 << 30  # largest set of tables in one reply
    calls_per_child: int = 200  # then a fresh child: decoders leak

    def __post_init__(self) -> None:
        for name in ("memory_bytes", "stall_s", "total_s", "start_s", "reply_bytes", "calls_per_child"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"Limits.{name} must be positive, got {value!r}")


@dataclass(frozen=True)
class Reply:
    """How a call ended. `status` is ok or failed; a failure has a reason and a message, a success facts and tables."""

    status: str
    reason: Reason | None = None
    message: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pa.Table] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"


def failed(reason: Reason, message: str) -> Reply:
    """A failed reply."""
    return Reply("failed", reason, message or reason.sentence)


class Sandbox:
    """A child process that runs tasks; started at the first call, replaced when it fails and after many calls.

    `tasks` maps a task's name to `module:function`; `import_path` holds folders that the child adds to its module path.
    """

    def __init__(
        self, limits: Limits | None = None, tasks: Mapping[str, str] = TASKS, import_path: tuple[str, ...] = ()
    ) -> None:
        self._limits = limits or Limits()
        self._tasks = dict(tasks)
        self._import_path = import_path
        self._child: _Child | None = None
        self._calls = 0
        self._busy = threading.Lock()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def child_pid(self) -> int | None:
        """Process id of the running child, if there is one."""
        return self._child.process.pid if self._child else None

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child:
            child.kill()

    def call(self, task: str, request: Mapping[str, Any]) -> Reply:
        """Run `task` on `request` (JSON values) in the child and wait for its answer.

        Raises:
            ValueError: an unknown task, a request that is no JSON, or a second call while one is running.
        """
        if task not in self._tasks:
            raise ValueError(f"unknown task {task!r}; the tasks are {sorted(self._tasks)}")
        try:
            message = wire.encode({"task": task, "request": dict(request)})
        except TypeError as error:
            raise ValueError(f"the request for {task!r} is no JSON: {error}") from error
        if not self._busy.acquire(blocking=False):
            raise ValueError("one call at a time: give every thread its own Sandbox")
        is_done = False
        try:
            reply = self._call(message)
            is_done = True
            return reply
        finally:
            if not is_done or reply.reason in _RUN_REASONS or self._calls >= self._limits.calls_per_child:
                self.close()
            self._busy.release()

    def _call(self, message: bytes) -> Reply:
        limits = self._limits
        if self._child is None:
            self._calls = 0
            self._child = _Child(self._tasks, self._import_path, limits)
            answer = self._child.exchange(self._child.greeting, limits.start_s, limits.start_s, "ready")
            if isinstance(answer, Reply):
                return failed(answer.reason or Reason.CRASHED, f"the child did not start: {answer.message}")
        self._calls += 1
        answer = self._child.exchange(message, limits.stall_s, limits.total_s, "reply")
        return answer if isinstance(answer, Reply) else _reply(*answer)


class _Child:
    """One child process and its pipes."""

    def __init__(self, tasks: dict[str, str], import_path: tuple[str, ...], limits: Limits) -> None:
        lifeline, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-X", "faulthandler", "-c", _START, ROOT, str(lifeline)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=(lifeline,),
                start_new_session=True,  # Ctrl-C reaches the parent only, which then ends the children
                env=_ENVIRONMENT | {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self._stdin, self._stdout, self._stderr = self.process.stdin, self.process.stdout, self.process.stderr
        os.set_blocking(self._stdin.fileno(), False)
        self._inbox = bytearray()
        self._complaints: deque[int] = deque(maxlen=_STDERR_TAIL_BYTES)
        self._max_body_bytes = limits.reply_bytes
        self.greeting = wire.encode(
            {"memory_bytes": limits.memory_bytes, "tasks": tasks, "import_path": list(import_path)}
        )

    def exchange(self, message: bytes, stall_s: float, total_s: float, kind: str) -> tuple[wire.Header, bytes] | Reply:
        """Send `message`, wait for one of `kind`; a failed Reply if the child dies, stalls or talks nonsense."""
        unsent = memoryview(message)
        start_s = heard_s = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            selector.register(self._stdout, selectors.EVENT_READ)
            selector.register(self._stderr, selectors.EVENT_READ)
            while True:
                now_s = time.monotonic()
                left_s = min(heard_s + stall_s, start_s + total_s) - now_s
                if left_s <= 0:
                    return self._overdue(now_s - heard_s, now_s - start_s)
                ready = {key.fileobj for key, _ in selector.select(left_s)}
                if self._stdin in ready:
                    unsent = self._write(unsent)
                    if not unsent:
                        selector.unregister(self._stdin)
                if self._stderr in ready and not self._listen():
                    selector.unregister(self._stderr)
                if self._stdout in ready:
                    chunk = os.read(self._stdout.fileno(), 1 << 20)
                    if not chunk:
                        return self._post_mortem()
                    heard_s = time.monotonic()
                    self._inbox += chunk
                    try:
                        while found := wire.decode(self._inbox, self._max_body_bytes):
                            if found[0].get("kind") == kind:
                                return found
                    except wire.WireError as error:
                        return failed(Reason.INTERNAL_ERROR, f"the child's answer cannot be used: {error}")

    def kill(self) -> None:
        """End the child now and let go of its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self._stdin, self._stdout, self._stderr):
            stream.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _write(self, unsent: memoryview) -> memoryview:
        """What is left of `unsent`; nothing if the child no longer reads, which its end of stdout will tell."""
        try:
            return unsent[os.write(self._stdin.fileno(), unsent) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:
            return unsent[:0]

    def _listen(self) -> bool:
        chunk = os.read(self._stderr.fileno(), 1 << 16)
        self._complaints.extend(chunk)
        return bool(chunk)

    def _overdue(self, silent_s: float, total_s: float) -> Reply:
        self.process.kill()
        return failed(
            Reason.TIMEOUT,
            _with_tail(f"killed after {total_s:.1f} s, the last {silent_s:.1f} s without progress", self._tail()),
        )

    def _post_mortem(self) -> Reply:
        """Say of what the child died: it closed its output without an answer."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return failed(Reason.CRASHED, "the child closed its output but did not end")
        tail = self._tail()
        if code == -signal.SIGKILL:
            return failed(
                Reason.OUT_OF_MEMORY, _with_tail("killed from outside (SIGKILL): the machine ran out of memory", tail)
            )
        if "bad_alloc" in tail or "MemoryError" in tail:
            return failed(Reason.OUT_OF_MEMORY, tail)
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        return failed(Reason.CRASHED, _with_tail(f"the child {how}", tail))

    def _tail(self) -> str:
        os.set_blocking(self._stderr.fileno(), False)
        try:
            while self._listen():
                pass
        except BlockingIOError:
            pass
        text = bytes(self._complaints).decode("utf-8", "replace")
        return "\n".join(text.strip().splitlines()[-_STDERR_TAIL_LINES:])


def _with_tail(text: str, tail: str) -> str:
    return f"{text}; its last words:\n{tail}" if tail else text


def _reply(header: wire.Header, body: bytes) -> Reply:
    """The child's message as a Reply; whatever in it does not fit is an internal error."""
    try:
        if header.get("status") == "ok":
            facts = header.get("facts")
            if not isinstance(facts, dict):
                raise wire.WireError("facts are no JSON object")
            return Reply("ok", facts=facts, tables=wire.tables_from_bytes(header.get("tables"), body))
        reason = _BY_CODE.get(str(header.get("reason")))
        if reason is None:
            raise wire.WireError(f"unknown reason code {header.get('reason')!r}")
        return failed(reason, str(header.get("message", "")))
    except wire.WireError as error:
        return failed(Reason.INTERNAL_ERROR, f"the child's answer cannot be used: {error}")
