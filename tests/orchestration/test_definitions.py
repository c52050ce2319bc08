"""The Dagster graph: what it is, that it runs, and that it runs the same functions as the command line."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from orchestration.definitions import build_definitions
from orchestration.jobs import STILL_S, inbox
from orchestration.partitions import BATCHES
from orchestration.resources import Reels
from pipelines.policy import shipped_policies

ASSETS = {
    "inputs": "ingest",
    "videos": "measure",
    "scans": "measure",
    "shots": "measure",
    "clips": "measure",
    "signals": "measure",
    "keyframes": "measure",
    "decisions": "decide",
    "selection": "decide",
    "shards": "publish",
    "report": "publish",
}


@pytest.fixture
def reels(tmp_path: Path, samples: Path) -> Reels:
    folder = tmp_path / "inbox" / "demo"
    folder.mkdir(parents=True)
    for name in ("carphone_pristine.mp4", "bikes.mp4", "bigbuckbunny.mp4"):
        shutil.copy(samples / name, folder)
    (folder / "notes.mp4").write_text("this is no video")
    return Reels(out=str(tmp_path / "out"), inbox=str(tmp_path / "inbox"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        ephemeral.add_dynamic_partitions(BATCHES.name or "", ["demo"])
        yield ephemeral


def test_the_graph_has_an_asset_for_each_table_and_product() -> None:
    graph = build_definitions().resolve_asset_graph()
    assert {key.to_user_string(): graph.get(key).group_name for key in graph.get_all_asset_keys()} == ASSETS


def test_every_asset_says_what_it_is_who_owns_it_and_of_what_kind() -> None:
    graph = build_definitions().resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        assert node.code_version, key


def test_measurements_are_partitioned_by_batch_and_decisions_by_policy() -> None:
    graph = build_definitions().resolve_asset_graph()
    partitions = {key.to_user_string(): graph.get(key).partitions_def for key in graph.get_all_asset_keys()}
    assert {name for name, part in partitions.items() if part == BATCHES} == {
        name for name, group in ASSETS.items() if group in ("ingest", "measure")
    }
    for name in ("decisions", "selection", "shards"):
        assert list(partitions[name].get_partition_keys()) == shipped_policies()
    assert partitions["report"] is None


def test_jobs_sensors_schedules_and_checks_are_all_there() -> None:
    definitions = build_definitions()
    assert {job.name for job in definitions.jobs or []} == {"measure_batch", "publish_policy", "write_report"}
    assert {sensor.name for sensor in definitions.sensors or []} == {"inbox"}
    assert {schedule.name for schedule in definitions.schedules or []} == {"nightly_publish", "nightly_report"}
    names = {key.name for key in definitions.resolve_asset_graph().asset_check_keys}
    assert names == {
        "share_of_failures_is_bearable",
        "spans_lie_inside_one_shot",
        "states_add_up",
        "shards_read_back",
    }


@pytest.mark.slow
def test_materialising_the_graph_gives_what_the_command_line_gives(
    reels: Reels, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    from orchestration.cli import main

    definitions = build_definitions(reels)
    seen: dict[str, dg.AssetMaterialization] = {}
    for job, partition in (("measure_batch", "demo"), ("publish_policy", "demo"), ("write_report", None)):
        run = definitions.resolve_job_def(job).execute_in_process(instance=instance, partition_key=partition)
        assert run.success
        assert all(
            check.passed
            for check in run.get_asset_check_evaluations()
            if check.check_name != "share_of_failures_is_bearable"
        )
        for key in ASSETS:
            for event in run.asset_materializations_for_node("decide") if key in ("decisions", "selection") else []:
                seen[event.asset_key.to_user_string()] = event
    assert "rejected" in str(seen["decisions"].metadata["funnel"].value)
    assert "data:image/jpeg;base64," in str(seen["selection"].metadata["contact_sheet"].value)

    out = tmp_path / "by hand"
    assert main(["curate", f"{reels.inbox}/demo", "--out", str(out), "--policy", "demo", "--allow-failures", "1"]) == 0
    by_hand = {path.relative_to(out): path.read_bytes() for path in (out / "shards").rglob("*") if path.is_file()}
    by_dagster = {
        path.relative_to(reels.out): path.read_bytes()
        for path in Path(reels.out, "shards").rglob("*")
        if path.is_file()
    }
    assert by_hand == by_dagster


def test_a_still_folder_in_the_inbox_becomes_a_batch_once(reels: Reels, instance: dg.DagsterInstance) -> None:
    import os
    import time

    folder = Path(reels.inbox, "tuesday")
    folder.mkdir()
    (folder / "x.mp4").write_bytes(b"x")
    old = time.time() - 2 * STILL_S
    for path in [*folder.iterdir(), *Path(reels.inbox, "demo").iterdir()]:
        os.utime(path, (old, old))
    context = dg.build_sensor_context(instance=instance, resources={"reels": reels})
    result = inbox(context)
    assert [request.partition_key for request in result.run_requests] == ["demo", "tuesday"]
    assert [request.partition_keys for request in result.dynamic_partitions_requests] == [["tuesday"]]
    again = inbox(context)
    assert [request.run_key for request in again.run_requests] == [request.run_key for request in result.run_requests]


def test_a_folder_that_is_still_being_written_waits(reels: Reels, instance: dg.DagsterInstance) -> None:
    context = dg.build_sensor_context(instance=instance, resources={"reels": reels})
    assert not inbox(context).run_requests


@pytest.mark.parametrize("name", ["../secrets", "a/b", ".hidden", ""])
def test_a_batch_name_cannot_lead_out_of_the_inbox(reels: Reels, name: str) -> None:
    with pytest.raises(ValueError, match="must be the name of a folder"):
        reels.batch_folder(name)
