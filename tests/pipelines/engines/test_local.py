"""The local engine: schedules, commits, loses nothing, and stops when it is told to."""

import threading
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engines import EngineSettings, cut_batches
from pipelines.engines.local import LOCAL, RunStopped, map_media
from pipelines.stages import MediaCall, Stage, Work
from pipelines.store import open_store
from pipelines.tables import SCANS, from_rows
from pipelines.video.sandbox import Limits

SETTINGS = EngineSettings(workers=2, threads=1, limits=Limits())


def echo(batch: pa.Table, params: Mapping[str, object], media: MediaCall) -> dict[str, pa.Table]:
    return {
        "scans": from_rows([{"video_id": key, "status": "ok"} for key in batch.column("video_id").to_pylist()], SCANS)
    }


def lose_one(batch: pa.Table, params: Mapping[str, object], media: MediaCall) -> dict[str, pa.Table]:
    return echo(batch.slice(1), params, media)


def work(run=echo) -> Work:
    return Work(Stage("echo", 1, "video_id", (SCANS,), run))


def rows(count: int) -> pa.Table:
    return pa.table({"video_id": [f"{number:04d}" for number in range(count)], "size_bytes": list(range(count))})


@given(st.integers(0, 200), st.integers(1, 16), st.sets(st.integers(0, 199)))
def test_batches_hold_every_missing_key_exactly_once(count: int, workers: int, missing: set[int]) -> None:
    names = {f"{number:04d}" for number in missing if number < count}
    batches = cut_batches(rows(count), "video_id", names, workers)
    keys = [key for batch in batches for key in batch.column("video_id").to_pylist()]
    assert sorted(keys) == sorted(names)
    assert all(0 < batch.num_rows <= 32 for batch in batches)


@given(st.integers(1, 200), st.sets(st.integers(0, 199)))
def test_what_is_missing_does_not_move_the_cuts(count: int, done: set[int]) -> None:
    everything = {f"{number:04d}" for number in range(count)}
    whole = {
        tuple(batch.column("video_id").to_pylist()) for batch in cut_batches(rows(count), "video_id", everything, 2)
    }
    left = everything - {f"{number:04d}" for number in done}
    for batch in cut_batches(rows(count), "video_id", left, 2):
        keys = set(batch.column("video_id").to_pylist())
        assert sum(bool(keys & set(part)) for part in whole) == 1


def test_every_batch_is_committed_and_its_receipt_comes_back(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    receipts = list(
        LOCAL.run(work(), cut_batches(rows(40), "video_id", {f"{n:04d}" for n in range(40)}, 2), store, SETTINGS)
    )
    assert sorted(key for receipt in receipts for key in receipt.keys) == [f"{n:04d}" for n in range(40)]
    assert store.read("echo", work().fingerprint, SCANS).num_rows == 40


def test_a_stage_that_answers_for_too_few_keys_fails_loudly_and_commits_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(RuntimeError, match="gave no answer for"):
        list(LOCAL.run(work(lose_one), [rows(3)], store, SETTINGS))
    assert store.receipts("echo", work(lose_one).fingerprint) == []


def test_an_error_in_one_item_stops_the_others() -> None:
    begun = []

    def function(item: int, media: MediaCall) -> int:
        begun.append(item)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        list(map_media(function, range(1000), SETTINGS))
    assert len(begun) < 1000


def test_a_call_that_was_in_flight_when_the_run_stopped_is_no_fact_about_the_video(tmp_path: Path) -> None:
    """Ending the children makes their calls fail; such a failure must never be committed."""
    entered = threading.Event()
    outcomes: list[object] = []

    def function(item: str, media: MediaCall) -> str:
        if item == "hang":
            entered.set()
            try:
                outcomes.append(media("probe", {"path": str(tmp_path / "pipe.mp4")}))
            except RunStopped as stopped:
                outcomes.append(stopped)
                raise
            return item
        entered.wait()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(map_media(function, ["hang", "stop"], SETTINGS))
    assert all(isinstance(outcome, RunStopped) for outcome in outcomes), outcomes


@pytest.mark.parametrize(("workers", "threads"), [(0, 1), (1, 0), (-1, 1)])
def test_settings_without_workers_are_refused(workers: int, threads: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EngineSettings(workers, threads, Limits())
