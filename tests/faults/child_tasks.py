"""Tasks that misbehave inside the sandbox child. No product code knows them: a test names them in its own task table."""

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

Beat = Callable[[], None]
Answer = tuple[dict, dict[str, pa.Table]]


def echo(request: dict, beat: Beat) -> Answer:
    return {"request": request, "pid": os.getpid()}, {}


def open_files() -> dict[int, str]:
    """Descriptor numbers of this process and what each refers to."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor that lists this folder
            found[int(entry.name)] = str(entry.readlink())
    return found


def surroundings(request: dict, beat: Beat) -> Answer:
    """What the child sees of the machine and of its parent."""
    return {
        "environment": dict(os.environ),
        "descriptors": sorted(open_files().values()),
        "memory_bytes": resource.getrlimit(resource.RLIMIT_AS)[0],
        "core_bytes": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "modules": sorted(name for name in sys.modules if "." not in name),
    }, {}


def big(request: dict, beat: Beat) -> Answer:
    """Two tables of `rows` rows."""
    numbers = pa.table({"n": pa.array(range(request["rows"]))})
    return {}, {"numbers": numbers, "blobs": pa.table({"b": [b"x" * 1000] * request["rows"]})}


def sleep(request: dict, beat: Beat) -> Answer:
    time.sleep(3600)
    return {}, {}


def hold_the_lock(request: dict, beat: Beat) -> Answer:
    """Hang in C with Python's lock held, as a decoder's bug would: no Python thread of this process runs again."""
    ctypes.PyDLL(None).sleep(3600)
    return {}, {}


def decode_for_ever(request: dict, beat: Beat) -> Answer:
    from pipelines.video.reading import frames, open_video

    while True:
        with open_video(request["path"], threads=4) as video:
            for _ in frames(video):
                beat()


def beat_for(request: dict, beat: Beat) -> Answer:
    end_s = time.monotonic() + request["seconds"]
    while time.monotonic() < end_s:
        beat()
        time.sleep(0.01)
    return {"done": True}, {}


def eat_memory(request: dict, beat: Beat) -> Answer:
    eaten = []
    while True:
        eaten.append(bytearray(64 << 20))
        beat()


def eat_memory_in_opencv(request: dict, beat: Beat) -> Answer:
    import cv2
    import numpy as np

    cv2.resize(np.zeros((4, 4), np.uint8), (60_000, 60_000))
    return {}, {}


def fill_the_disk(request: dict, beat: Beat) -> Answer:
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    return {}, {}


def read_null(request: dict, beat: Beat) -> Answer:
    ctypes.string_at(0)
    return {}, {}


def abort(request: dict, beat: Beat) -> Answer:
    os.abort()


def leave(request: dict, beat: Beat) -> Answer:
    os._exit(7)


def fail(request: dict, beat: Beat) -> Answer:
    raise KeyError("a mistake of ours")


def chatter(request: dict, beat: Beat) -> Answer:
    """A library that prints to standard output, past Python too, and a lot."""
    print("hello from Python", flush=True)
    os.write(1, b"\x00\x01\x02 raw bytes\n" * 100_000)
    return {"said": True}, {}


def lie(request: dict, beat: Beat) -> Answer:
    """A child taken over by a hostile file: it writes `bytes` (latin-1) where the answers go."""
    for number, target in open_files().items():
        if number > 2 and target.startswith("pipe:"):
            with suppress(OSError):
                os.write(number, request["bytes"].encode("latin-1"))
    time.sleep(3600)
    return {}, {}


def encode_av1(request: dict, beat: Beat) -> Answer:
    """Encode ten frames and say under which scheduling policies the threads ran."""
    import io

    import av
    import numpy as np

    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = container.add_stream("libsvtav1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), number * 20, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        policies = {os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir()}
        container.mux(stream.encode())
    return {"policies": sorted(policies)}, {}
