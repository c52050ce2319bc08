"""The sandbox, with real children that hang, crash, eat memory and lie."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.video import wire
from pipelines.video.reasons import Reason
from pipelines.video.sandbox import TASKS, Limits, Sandbox

ROOT = Path(__file__).parents[3]
FAULTS = str(ROOT / "tests" / "faults")
NAMES = [
    "echo",
    "surroundings",
    "big",
    "sleep",
    "hold_the_lock",
    "decode_for_ever",
    "beat_for",
    "eat_memory",
    "eat_memory_in_opencv",
    "fill_the_disk",
    "read_null",
    "abort",
    "leave",
    "fail",
    "chatter",
    "lie",
]
FAULTY = {name: f"child_tasks:{name}" for name in NAMES}


def sandbox(**limits: float) -> Sandbox:
    return Sandbox(Limits(**limits), FAULTY, import_path=(FAULTS,))  # type: ignore[arg-type]


def test_no_faulty_task_exists_in_production() -> None:
    assert set(TASKS) == {"probe", "scan", "export", "recount"}
    assert not set(TASKS) & set(FAULTY)


def test_one_child_serves_many_calls_and_keeps_any_file_name() -> None:
    with sandbox() as box:
        replies = [box.call("echo", {"path": "/a\n\"'\udcff.mp4", "n": n}) for n in range(50)]
    assert all(reply.is_ok for reply in replies)
    assert {reply.facts["pid"] for reply in replies} == {replies[0].facts["pid"]}
    assert replies[7].facts["request"] == {"path": "/a\n\"'\udcff.mp4", "n": 7}


def test_a_child_is_replaced_after_its_share_of_calls() -> None:
    with sandbox(calls_per_child=3) as box:
        pids = [box.call("echo", {}).facts["pid"] for _ in range(7)]
    assert pids[0] == pids[2] != pids[3] == pids[5] != pids[6]


def test_tables_arrive_whole_and_over_the_limit_they_are_refused() -> None:
    with sandbox() as box:
        reply = box.call("big", {"rows": 20_000})
        assert reply.tables["numbers"]["n"].to_pylist() == list(range(20_000))
        assert reply.tables["blobs"].nbytes > 20_000_000
    with sandbox(reply_bytes=1_000_000) as box:
        reply = box.call("big", {"rows": 20_000})
        assert (reply.status, reply.reason) == ("failed", Reason.INTERNAL_ERROR)
        assert "limits" in reply.message


@pytest.mark.parametrize("task", ["sleep", "hold_the_lock"])
def test_a_child_that_hangs_is_killed_and_the_next_call_gets_a_fresh_one(task: str) -> None:
    with sandbox(stall_s=1) as box:
        before = box.call("echo", {}).facts["pid"]
        reply = box.call(task, {})
        assert (reply.status, reply.reason) == ("failed", Reason.TIMEOUT)
        assert box.call("echo", {}).facts["pid"] != before
    assert is_gone(before)


def test_beats_keep_a_slow_child_alive_but_not_past_the_total() -> None:
    with sandbox(stall_s=1, total_s=30) as box:
        assert box.call("beat_for", {"seconds": 2.5}).facts == {"done": True}
    with sandbox(stall_s=10, total_s=1) as box:
        assert box.call("beat_for", {"seconds": 60}).reason == Reason.TIMEOUT


@pytest.mark.parametrize("task", ["eat_memory", "eat_memory_in_opencv"])
def test_a_child_that_eats_memory_fails_within_its_limit(task: str) -> None:
    with sandbox(memory_bytes=1 << 30) as box:
        assert box.call(task, {}).reason == Reason.OUT_OF_MEMORY
        assert box.call("echo", {}).is_ok


@pytest.mark.parametrize(("task", "word"), [("read_null", "SIGSEGV"), ("abort", "SIGABRT"), ("leave", "exit status 7")])
def test_a_crash_is_told_with_its_signal(task: str, word: str) -> None:
    with sandbox() as box:
        reply = box.call(task, {})
        assert reply.reason == Reason.CRASHED
        assert word in reply.message
        assert box.call("echo", {}).is_ok


def test_a_child_killed_from_outside_counts_as_out_of_memory() -> None:
    with sandbox() as box, ThreadPoolExecutor(1) as pool:
        box.call("echo", {})
        pending = pool.submit(box.call, "sleep", {})
        os.kill(box.child_pid or 0, signal.SIGKILL)
        assert pending.result().reason == Reason.OUT_OF_MEMORY


def test_a_full_disk_has_its_own_reason() -> None:
    with sandbox() as box:
        assert box.call("fill_the_disk", {}).reason == Reason.DISK_FULL


def test_our_own_mistake_is_an_internal_error_with_its_traceback() -> None:
    with sandbox() as box:
        reply = box.call("fail", {})
    assert reply.reason == Reason.INTERNAL_ERROR
    assert "a mistake of ours" in reply.message
    assert "child_tasks.py" in reply.message


def test_what_a_library_prints_does_not_break_the_answer() -> None:
    with sandbox() as box:
        assert box.call("chatter", {}).facts == {"said": True}


@pytest.mark.parametrize(
    "lie",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        wire.encode({"kind": "reply", "status": "failed", "reason": "made_up"}),
        wire.encode({"kind": "reply", "status": "ok", "facts": 3, "tables": []}),
        wire.encode({"kind": "reply", "status": "ok", "facts": {}, "tables": [["a", 40]]}, b"\x80\x04pickle?" * 4),
        wire.encode({"kind": "reply", "status": "ok", "facts": {}, "tables": [["a", -1]]}, b"x"),
        wire.PREFIX.pack(4, 1 << 62) + b"null",
        wire.PREFIX.pack(4, 0) + b"null",
        wire.PREFIX.pack(3, 0) + b"\xff\xfe\x00",
    ],
)
def test_a_child_that_lies_is_an_internal_error_never_an_exception(lie: bytes) -> None:
    with sandbox(stall_s=20) as box:
        assert box.call("lie", {"bytes": lie.decode("latin-1")}).reason == Reason.INTERNAL_ERROR
        assert box.call("echo", {}).is_ok


def test_the_child_inherits_no_secret_no_file_and_no_heavy_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    with (tmp_path / "open in the parent").open("w"), sandbox(memory_bytes=3 << 30) as box, sandbox() as other:
        other.call("echo", {})
        facts = box.call("surroundings", {}).facts
    assert {"AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"}.isdisjoint(facts["environment"])
    assert not [link for link in facts["descriptors"] if "open in the parent" in link]
    assert len([link for link in facts["descriptors"] if link.startswith("pipe:")]) <= 5  # in, out twice, err, lifeline
    assert (facts["memory_bytes"], facts["core_bytes"]) == (3 << 30, 0)
    assert {"torch", "torchvision", "dagster", "scipy", "pandas"}.isdisjoint(facts["modules"])


def test_several_sandboxes_are_driven_from_threads_of_one_process() -> None:
    def drive(number: int) -> list[object]:
        with sandbox(calls_per_child=4) as box:
            return [box.call("echo", {"n": [number, n]}).facts["request"]["n"] for n in range(10)]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(drive, range(4)))
    assert answers == [[[number, n] for n in range(10)] for number in range(4)]


def test_two_calls_at_once_into_one_sandbox_are_refused() -> None:
    with sandbox(stall_s=2) as box, ThreadPoolExecutor(1) as pool:
        box.call("echo", {})
        pending = pool.submit(box.call, "sleep", {})
        time.sleep(0.2)
        with pytest.raises(ValueError, match="one call at a time"):
            box.call("echo", {})
        assert pending.result().reason == Reason.TIMEOUT


def test_a_caller_s_mistake_is_a_value_error() -> None:
    with sandbox() as box:
        with pytest.raises(ValueError, match="unknown task 'prob'"):
            box.call("prob", {})
        with pytest.raises(ValueError, match="no JSON"):
            box.call("echo", {"path": Path("x")})
    for name in ("memory_bytes", "stall_s", "total_s", "calls_per_child"):
        with pytest.raises(ValueError, match=name):
            Limits(**{name: 0})


@pytest.mark.parametrize("task", ["sleep", "hold_the_lock", "decode_for_ever"])
def test_kill_9_of_the_parent_ends_the_child(task: str, samples: Path) -> None:
    script = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pipelines.video.sandbox import Limits, Sandbox
        with Sandbox(Limits(), {FAULTY!r}, import_path=({FAULTS!r},)) as box:
            print(box.call("echo", {{}}).facts["pid"], flush=True)
            box.call({task!r}, {{"path": {str(samples / "bikes.mp4")!r}}})
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child_pid = int(parent.stdout.readline())
    time.sleep(0.5)  # into the task
    assert not is_gone(child_pid)
    parent.kill()
    parent.wait()
    for _ in range(1000):
        if is_gone(child_pid):
            break
        time.sleep(0.01)
    assert is_gone(child_pid)


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_an_av1_encode_leaves_the_child_at_ordinary_priority() -> None:
    """Run by root, SVT-AV1 makes itself real-time and would starve every process beside it."""
    with Sandbox(tasks={"encode": "child_tasks:encode_av1"}, import_path=(FAULTS,)) as sandbox:
        reply = sandbox.call("encode", {})
    assert reply.is_ok, reply.message
    assert reply.facts["policies"] == [os.SCHED_OTHER]
