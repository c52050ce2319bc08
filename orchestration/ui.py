"""Serving the Dagster web interface and daemon of this checkout, on loopback only.

What belongs here: the processes and their environment. What they serve is `definitions.py`.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import dagster as dg

from orchestration.partitions import BATCHES
from pipelines import weights

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DEMO_BATCH = "demo"


def serve(port: int, out: Path, inbox: Path) -> int:
    """Run the web server and the daemon until Ctrl-C or SIGTERM; returns the exit status.

    The sample videos are laid into the inbox as batch `demo`, so that there is something to materialise.
    """
    if not _is_free(port):
        raise RuntimeError(f"port {port} of {HOST} is taken; give another --port")
    environment = prepare(out.absolute(), inbox.absolute())
    print(
        f"Reelmill's graph: http://{HOST}:{port}  (partition {DEMO_BATCH} holds the sample videos; Ctrl-C ends)",
        flush=True,
    )
    # A group of its own: Dagster's five processes end together, and a shell that ignores SIGINT cannot shield them from it.
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "-m", "orchestration.definitions", "-h", HOST, "-p", str(port)],
        cwd=environment["DAGSTER_HOME"],
        env=environment,
        start_new_session=True,
    )
    # as Ctrl-C: a handler that waited itself would meet the lock that `wait` below holds, and hang
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return _stop(process)


def prepare(out: Path, inbox: Path) -> dict[str, str]:
    """Lay the samples into the inbox, register its folders as batches, and return the environment for Dagster's processes.

    The Dagster instance is the checkout's own (its dagster.yaml, history under .dagster), or the one that DAGSTER_HOME names.
    """
    samples = inbox / DEMO_BATCH
    if not samples.is_dir():
        weights.pull(["samples"])
        weights.copy_to(samples, ["samples"])
    home = Path(os.environ.get("DAGSTER_HOME") or ROOT).absolute()
    with contextlib.chdir(home):  # the folders in dagster.yaml are relative to the working directory
        Path(".dagster").mkdir(exist_ok=True)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            names = [path.name for path in sorted(inbox.iterdir()) if path.is_dir() and not path.name.startswith(".")]
            instance.add_dynamic_partitions(BATCHES.name or "", names)
    return os.environ | {
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "REELMILL_OUT": str(out),
        "REELMILL_INBOX": str(inbox),
        "PYTHONWARNINGS": "ignore",  # the supersession notice of `dagster dev` is about a command that this wraps
    }


def _stop(process: subprocess.Popen[bytes]) -> int:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
