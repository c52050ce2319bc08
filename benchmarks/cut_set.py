"""A seeded set of videos with known shot boundaries, cut together from single-shot pieces of the sample videos.

What belongs here: pieces, transitions, look-alikes, truth. Scoring is `cuts.py`. Every shot is a random crop of a piece, maybe
mirrored, regraded or darkened, so that a handful of sources gives thousands of different shots. Look-alikes lie inside
shots and must not be reported: flashes, flickering light, fast pans, shakes, hard zooms, something passing in front of the lens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FPS = 384, 216, 25
Video = NDArray[np.float32]  # T H W C, BGR 0..255

# Frames that were looked at: no boundary inside. bikes.mp4 changes shot at 30, 76, 137, 187 and 242.
PIECES = (
    ("bigbuckbunny.mp4", 0, 132),
    ("bikes.mp4", 0, 30),
    ("bikes.mp4", 30, 76),
    ("bikes.mp4", 76, 137),
    ("bikes.mp4", 137, 187),
    ("bikes.mp4", 187, 242),
    ("carphone_pristine.mp4", 0, 120),
    ("carphone_distorted.mp4", 0, 120),
    ("world.mp4", 0, 200),
    ("world.mp4", 450, 650),
    ("a.mp4", 66, 145),
)
ALIKE = ({6, 7}, {8, 9})  # pieces that show the same thing: never next to each other
LOOK_ALIKES = ("flash", "flicker", "pan", "shake", "zoom", "occluder")


@dataclass(frozen=True)
class Boundary:
    """Frames `first` to `end` (exclusive) belong to both shots; for a cut both are the new shot's first frame."""

    kind: str  # cut, dissolve, fade or wipe
    first: int
    end: int


@dataclass
class CutVideo:
    path: Path
    boundaries: list[Boundary] = field(default_factory=list)
    look_alikes: list[str] = field(default_factory=list)
    frame_count: int = 0


def read_pieces(samples: Path) -> list[NDArray[np.uint8]]:
    """The frames of every piece, at most 640 px wide: T H W C, BGR."""
    pieces: dict[int, list[NDArray[np.uint8]]] = {number: [] for number in range(len(PIECES))}
    for name in {name for name, _, _ in PIECES}:
        with av.open(str(samples / name)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                wanted = [n for n, (piece, first, end) in enumerate(PIECES) if piece == name and first <= index < end]
                for number in wanted:
                    width = min(640, frame.width)
                    height = frame.height * width // frame.width
                    pieces[number].append(frame.reformat(width, height, format="bgr24").to_ndarray().astype(np.uint8))
    return [np.stack(pieces[number]) for number in range(len(PIECES))]


def make_set(
    folder: Path, samples: Path, seed: int, videos: int, shots: int = 14, pieces: list[NDArray[np.uint8]] | None = None
) -> Iterator[CutVideo]:
    """Render `videos` files of `shots` shots each; the same seed gives the same content."""
    pieces = pieces or read_pieces(samples)
    for number in range(videos):
        yield _make_video(folder / f"cuts-{seed}-{number}.mp4", pieces, np.random.default_rng([seed, number]), shots)


def _make_video(path: Path, pieces: list[NDArray[np.uint8]], rng: np.random.Generator, shots: int) -> CutVideo:
    made = CutVideo(path)
    previous, tail, at = -1, None, 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": str(rng.integers(18, 30))}

        def write(part: Video) -> None:
            nonlocal at
            for image in part:
                picture = av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8), format="bgr24")
                container.mux(stream.encode(picture))
            at += len(part)

        for _ in range(shots):
            previous = _other_piece(rng, previous)
            shot, look_alike = _shot(pieces[previous], rng)
            if look_alike:
                made.look_alikes.append(look_alike)
            if tail is None:
                tail = shot
                continue
            kind = str(rng.choice(["cut", "dissolve", "fade", "wipe"], p=[0.5, 0.22, 0.12, 0.16]))
            longest = min(len(tail), len(shot)) // 2 - 4
            length = 0 if kind == "cut" else min(int(rng.integers(8, 31)), longest)
            mixed = _transition(kind, tail[len(tail) - length :], shot[:length], rng)
            write(tail[: len(tail) - length])
            made.boundaries.append(Boundary(kind, at, at + len(mixed)))
            write(mixed)
            tail = shot[length:]
        assert tail is not None
        write(tail)
        container.mux(stream.encode())
    made.frame_count = at
    return made


def _other_piece(rng: np.random.Generator, previous: int) -> int:
    while True:
        number = int(rng.integers(len(PIECES)))
        if number != previous and not any({number, previous} <= group for group in ALIKE):
            return number


def _shot(piece: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Video, str]:
    """Between 24 and 110 frames of a crop of the piece, and the look-alike in it, if any."""
    length = min(len(piece), int(rng.integers(30, 111)))
    start = int(rng.integers(0, len(piece) - length + 1))
    frames = piece[start : start + length]
    height, width = frames.shape[1:3]
    share = rng.uniform(0.55, 1.0)
    crop_height = int(min(height * share, width * share * HEIGHT / WIDTH))
    crop_width = int(crop_height * WIDTH / HEIGHT)
    top, left = int(rng.integers(0, height - crop_height + 1)), int(rng.integers(0, width - crop_width + 1))
    look_alike = str(rng.choice(LOOK_ALIKES)) if rng.random() < 0.35 and length >= 40 else ""
    boxes = _camera(look_alike, length, (left, top, crop_width, crop_height), (width, height), rng)
    out = np.empty((length, HEIGHT, WIDTH, 3), np.float32)
    for index, (x, y, w, h) in enumerate(boxes):
        matrix = np.array([[WIDTH / w, 0, -x * WIDTH / w], [0, HEIGHT / h, -y * HEIGHT / h]], np.float32)
        out[index] = cv2.warpAffine(
            frames[index], matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
    if rng.random() < 0.5:
        out = out[:, :, ::-1]
    out = out * rng.uniform(0.6, 1.15, (1, 1, 1, 3)).astype(np.float32) * np.float32(rng.uniform(0.75, 1.1))
    return _light(look_alike, np.clip(out, 0, 255), rng), look_alike


def _camera(
    look_alike: str, length: int, box: tuple[int, int, int, int], size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """The crop box of every frame: still, or under a camera that moves fast for a while."""
    x, y, w, h = box
    boxes = np.tile(np.array([x, y, w, h], np.float64), (length, 1))
    time = np.arange(length)
    first = int(rng.integers(8, max(9, length - 24)))
    if look_alike == "pan":
        speed = rng.uniform(0.02, 0.12) * w * rng.choice([-1, 1])
        boxes[:, 0] += np.clip(time - first, 0, int(rng.integers(8, 20))) * speed
        boxes[:, 0] = _bounce(boxes[:, 0], max(size[0] - w, 0.6 * w))
    elif look_alike == "shake":
        inside = (time >= first) & (time < first + 15)
        boxes[:, 0] += inside * rng.normal(0, 0.03 * w, length)
        boxes[:, 1] += inside * rng.normal(0, 0.03 * h, length)
    elif look_alike == "zoom":
        scale = 1 / (1 + np.clip(time - first, 0, 14) * rng.uniform(0.02, 0.06))
        boxes[:, 0] += w * (1 - scale) / 2
        boxes[:, 1] += h * (1 - scale) / 2
        boxes[:, 2] *= scale
        boxes[:, 3] *= scale
    return boxes


def _bounce(x: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Reflect at 0 and `limit`: a pan that reaches the edge turns back."""
    return np.abs((x + limit) % (2 * limit) - limit)


def _light(look_alike: str, shot: Video, rng: np.random.Generator) -> Video:
    length = len(shot)
    if look_alike == "flash":
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(5, length - 8))
            shot[at : at + int(rng.integers(1, 4))] += rng.uniform(60, 200)
    elif look_alike == "flicker":
        first = int(rng.integers(4, length - 24))
        shot[first : first + 20] *= rng.choice([1.0, rng.uniform(0.4, 0.7)], (min(20, length - first), 1, 1, 1)).astype(
            np.float32
        )
    elif look_alike == "occluder":
        first, frames = int(rng.integers(4, length - 24)), int(rng.integers(8, 20))
        colour = rng.uniform(10, 200, 3).astype(np.float32)
        breadth = int(rng.uniform(0.2, 0.5) * WIDTH)
        for step in range(frames):
            left = int((step + 1) / (frames + 1) * (WIDTH + breadth)) - breadth
            shot[first + step, :, max(left, 0) : max(left + breadth, 0)] = colour
    return np.clip(shot, 0, 255)


def _transition(kind: str, before: Video, after: Video, rng: np.random.Generator) -> Video:
    """The frames in which both shots take part; none for a cut."""
    length = len(before)
    if not length:
        return before
    part = ((np.arange(length) + 1) / (length + 1)).astype(np.float32)
    if kind == "dissolve":
        alpha = part[:, None, None, None]
        return before * (1 - alpha) + after * alpha
    if kind == "fade":
        black = int(rng.integers(0, 5))
        out = before * (1 - part[:, None, None, None])
        return np.concatenate([out, np.zeros((black, *out.shape[1:]), np.float32), after * part[:, None, None, None]])
    row, column = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    angle = rng.choice(8) * np.pi / 4
    depth = column / WIDTH * np.cos(angle) + row / HEIGHT * np.sin(angle)
    depth = (depth - depth.min()) / (depth.max() - depth.min())
    softness = rng.choice([0.01, 0.1])
    edge = part[:, None, None] * (1 + 2 * softness) - softness
    alpha = np.clip((edge - depth[None]) / softness + 0.5, 0, 1)[..., None]
    return before * (1 - alpha) + after * alpha
