"""The scan against decoding alone and against PySceneDetect, on the same files in one run; and its memory on a long video.

    python -m benchmarks.scan_speed --samples FOLDER [--threads 2] [--repeat 3] [--json PATH]

The 1080p and 720p H.264 files are made here: sample footage enlarged, with grain, 24 s. Every system runs `repeat` times in
turn and its best time counts, which is what a busy machine disturbs least. `cpu` is the same ratio in processor seconds
of all threads. Peak memory is that of a fresh process that scans 10 s and 10 min of the same footage.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import av.filter
from scenedetect import AdaptiveDetector, detect

from benchmarks.cuts import fetched_samples
from pipelines.video.scan import scan
from pipelines.video.scan_params import ScanParams

FPS = 30
SOURCES = ("bigbuckbunny.mp4", "world.mp4", "bikes.mp4")
LONGEST_PIECE = 150  # frames of one source before the next comes

_PEAK = """
import re, sys
from pathlib import Path
from pipelines.video.scan import scan
from pipelines.video.scan_params import ScanParams
scan(sys.argv[1], "0" * 32, ScanParams(), 2, lambda: None)
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def make_video(path: Path, samples: Path, width: int, height: int, frames: int, grain: int = 6) -> Path:
    """H.264 of sample footage, enlarged by FFmpeg's scaler with temporal grain; the sources take turns."""
    made = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "22"}
        while made < frames:
            for name in SOURCES:
                for frame in _enlarged(samples / name, width, height, grain, min(LONGEST_PIECE, frames - made)):
                    frame.pts, frame.time_base = made, Fraction(1, FPS)
                    container.mux(stream.encode(frame))
                    made += 1
        container.mux(stream.encode())
    return path


def _enlarged(path: Path, width: int, height: int, grain: int, most: int) -> list[av.VideoFrame]:
    out: list[av.VideoFrame] = []
    with av.open(str(path)) as container:
        graph = av.filter.Graph()
        steps = [
            ("scale", f"{width}:{height}"),
            ("format", "yuv420p"),
            ("noise", f"alls={grain}:allf=t"),
            ("buffersink", ""),
        ]
        node = graph.add_buffer(template=container.streams.video[0])
        for name, arguments in steps:
            following = graph.add(name, arguments)
            node.link_to(following)
            node = following
        graph.configure()
        for _, frame in zip(range(most), container.decode(video=0), strict=False):
            graph.push(frame)
            out.append(graph.pull())  # type: ignore[arg-type]
    return out


def repeat_video(path: Path, source: Path, times: int) -> Path:
    """`source` joined to itself without encoding again."""
    with av.open(str(path), "w") as container:
        stream = None
        for turn in range(times):
            with av.open(str(source)) as once:
                track = once.streams.video[0]
                stream = stream or container.add_stream_from_template(track)
                length = int(track.duration or 0)
                for packet in once.demux(track):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + turn * length, packet.dts + turn * length
                    packet.stream = stream
                    container.mux(packet)
    return path


def decode_alone(path: Path, threads: int) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        for _ in container.decode(stream):
            pass


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(path: Path, threads: int, repeat: int) -> dict[str, object]:
    """Frames per second of every system on one file, and ratios to decoding alone."""
    systems: dict[str, Callable[[], object]] = {
        "decode": lambda: decode_alone(path, threads),
        "scan": lambda: scan(str(path), "0" * 32, ScanParams(), threads, lambda: None),
        "scenedetect": lambda: detect(str(path), AdaptiveDetector()),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    for _ in range(repeat):
        for name, work in systems.items():
            taken[name].append(seconds(work))
    frames = scan(str(path), "0" * 32, ScanParams(), threads, lambda: None)["scans"]["frame_count"][0].as_py()
    with av.open(str(path)) as container:
        size = f"{container.streams.video[0].width}x{container.streams.video[0].height}"
    wall = {name: min(times[0] for times in runs) for name, runs in taken.items()}
    cpu = {name: min(times[1] for times in runs) for name, runs in taken.items()}
    return {
        "file": path.name,
        "size": size,
        "frames": frames,
        **{f"{name}_fps": round(frames / wall[name], 1) for name in systems},
        "scan_to_decode": round(wall["decode"] / wall["scan"], 3),
        "scan_to_decode_cpu": round(cpu["decode"] / cpu["scan"], 3),
        "scenedetect_to_decode": round(wall["decode"] / wall["scenedetect"], 3),
    }


def peak_mib(path: Path) -> float:
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="The scan against decoding alone and PySceneDetect.")
    parser.add_argument(
        "--samples", type=Path, default=os.environ.get("REELMILL_SAMPLES"), help="folder of the sample videos"
    )
    parser.add_argument("--threads", type=int, default=2, help="decoder threads of decoding alone and of the scan")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=24, help="length of the files made here")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    samples = Path(arguments.samples or fetched_samples())
    with tempfile.TemporaryDirectory() as name:
        folder, frames = Path(name), arguments.seconds * FPS
        paths = [
            make_video(folder / "made-1080p.mp4", samples, 1920, 1080, frames),
            make_video(folder / "made-720p.mp4", samples, 1280, 720, frames),
            *(samples / name for name in ("a.mp4", *SOURCES, "carphone_pristine.mp4")),
        ]
        rows = [compare(path, arguments.threads, arguments.repeat) for path in paths]
        short = make_video(folder / "short.mp4", samples, 640, 360, 10 * FPS)
        memory = {
            "peak_mib_10_s": peak_mib(short),
            "peak_mib_10_min": peak_mib(repeat_video(folder / "long.mp4", short, 60)),
        }
    print(
        f"{'file':<24}{'size':>11}{'frames':>8}{'decode':>9}{'scan':>8}{'scenedetect':>13}{'scan/decode':>13}{'cpu':>7}"
    )
    for row in rows:
        print(
            "{file:<24}{size:>11}{frames:>8}{decode_fps:>9}{scan_fps:>8}{scenedetect_fps:>13}"
            "{scan_to_decode:>13}{scan_to_decode_cpu:>7}".format(**row)
        )
    print("peak memory: {peak_mib_10_s:.0f} MiB for 10 s, {peak_mib_10_min:.0f} MiB for 10 min".format(**memory))
    if arguments.json:
        arguments.json.write_text(json.dumps({"speed": rows, "memory": memory}, indent=1) + "\n")


if __name__ == "__main__":
    main()
