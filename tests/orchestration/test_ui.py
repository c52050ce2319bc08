"""`reelmill ui` as a person uses it: it comes up on loopback, materialises the demo when asked, and ends without a trace."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]

ROOT = Path(__file__).parent.parent.parent

LAUNCH = """mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
REPOSITORY = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, query: str, **variables: object) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:  # Dagster answers errors of a query with status 500 and a body
        raise AssertionError(error.read().decode()) from error


@pytest.fixture
def ui(tmp_path: Path, samples: Path) -> Iterator[tuple[int, subprocess.Popen[bytes], Path]]:
    inbox = tmp_path / "inbox" / "demo"
    inbox.mkdir(parents=True)
    for name in ("carphone_pristine.mp4", "bigbuckbunny.mp4"):
        (inbox / name).symlink_to(samples / name)
    shutil.copy(ROOT / "dagster.yaml", tmp_path)  # an instance of the test's own: the checkout's history is its owner's
    port = free_port()
    command = [sys.executable, "-m", "orchestration.cli", "ui", "--port", str(port)]
    command += ["--out", str(tmp_path / "out"), "--inbox", str(tmp_path / "inbox")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"DAGSTER_HOME": str(tmp_path)})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.5)
    try:
        yield port, process, tmp_path
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def family(pid: int) -> list[int]:
    """Living processes of the session that `reelmill ui` starts for Dagster."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        state, parent, session = fields[0], int(fields[1]), int(fields[3])
        if state != "Z" and (parent == pid or session in _sessions_of(pid)):
            found.append(int(entry.parent.name))
    return found


def _sessions_of(pid: int) -> set[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return {int(child) for child in children.read_text().split()} if children.exists() else set()


def test_the_demo_is_materialised_from_the_interface_and_nothing_stays_behind(
    ui: tuple[int, subprocess.Popen[bytes], Path],
) -> None:
    port, process, folder = ui
    node = ask(port, REPOSITORY)["repositoriesOrError"]["nodes"][0]
    for job, partition in (("measure_batch", "demo"), ("publish_policy", "demo"), ("write_report", None)):
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        selector = {
            "repositoryName": node["name"],
            "repositoryLocationName": node["location"]["name"],
            "pipelineName": job,
        }
        parameters = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": {"tags": tags}}
        launched = ask(port, LAUNCH, p=parameters)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        status = "QUEUED"
        deadline = time.monotonic() + 240
        while status not in ("SUCCESS", "FAILURE", "CANCELED") and time.monotonic() < deadline:
            time.sleep(1)
            status = ask(port, STATUS, id=launched["run"]["runId"])["runOrError"]["status"]
        assert status == "SUCCESS", (folder / "log").read_text()[-3000:]
    assert (folder / "out/report.html").exists()
    assert list((folder / "out/shards/demo").rglob("*.tar"))

    members = family(process.pid)
    assert len(members) > 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    left = [
        pid
        for pid in members
        if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    ]
    assert not left


def test_a_port_that_is_taken_is_told_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "orchestration.cli",
                "ui",
                "--port",
                str(port),
                "--inbox",
                str(tmp_path),
                "--out",
                str(tmp_path),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ,
        )
    assert done.returncode == 1
    assert "is taken" in done.stderr
