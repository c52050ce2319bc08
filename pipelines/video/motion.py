"""How things move: sparse optical flow between frames about 1/15 s apart, split into a camera part and the rest.

What belongs here: measuring one pair of frames (`FlowMeter`), 0.5 ms a pair on the 256 px plane. What a clip's pairs say
together is in `signals.py`.

Points: the best corner (least eigenvalue of the gradient matrix, Shi and Tomasi 1994) of every cell of a grid, so that
the whole frame counts and not only its liveliest part; followed by pyramidal Lucas-Kanade (Bouguet 2000). Camera: a
similarity (shift, zoom, roll) fitted with RANSAC. Displacements are in display pixels relative to the diagonal.
"""

import math
from array import array
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.video.measure import CHANGED_LUMA
from pipelines.video.planes import Image

CELL_PX = 12  # of half the plane: about 10 x 6 points
MIN_EIGENVALUE = 2e-4  # of the 3x3 gradient matrix of 8-bit luma, below which a cell has nothing to hold on to
WINDOW_PX, LEVELS = (
    11,
    3,
)  # of Lucas-Kanade: follows up to about 40 px of the plane, a sixth of the frame, between two pictures
INLIER_PX = 0.5  # of the plane: how far a point may stray from the camera model
MIN_POINTS = 8  # fewer say nothing of the camera
MIN_SPREAD = (
    0.1  # of width and height: least standard deviation of the places of points that follow one model (0.29 if even)
)

COLUMNS = (
    "points",
    "lost_share",
    "speed",
    "camera",
    "residual",
    "pan_x",
    "pan_y",
    "zoom",
    "roll",
    "coherence",
    "depth",
    "difference",
    "changed_share",
)


@dataclass(frozen=True)
class FlowTable:
    """Flow of all measured pairs; arrays of length P. Displacements are in diagonals over the pair's time."""

    first: NDArray[np.int64]  # index of the pair's first frame
    second: NDArray[np.int64]  # index of its second frame
    points: NDArray[np.float32]  # points followed
    lost_share: NDArray[np.float32]  # share of points that could not be followed
    speed: NDArray[np.float32]  # mean displacement of points
    camera: NDArray[np.float32]  # mean displacement that the camera model gives these points
    residual: NDArray[np.float32]  # mean distance between point and camera model
    pan_x: NDArray[np.float32]  # camera translation, positive when the camera turns or moves right
    pan_y: NDArray[np.float32]  # the same, down
    zoom: NDArray[np.float32]  # natural logarithm of the scale, positive when the picture grows
    roll: NDArray[np.float32]  # radians, positive when the camera turns clockwise
    coherence: NDArray[np.float32]  # share of points within INLIER_PX of the model
    depth: NDArray[
        np.float32
    ]  # share of displacement that lies along the camera's direction but differs from point to point
    difference: NDArray[np.float32]  # mean absolute difference of luma
    changed_share: NDArray[np.float32]  # share of pixels whose luma changed by more than CHANGED_LUMA


class FlowMeter:
    """Follows points from each picture it is given to the next."""

    def __init__(self, plane_to_display: tuple[float, float], diagonal_px: float) -> None:
        self._to_diagonals = np.array(plane_to_display, np.float64) / diagonal_px
        self._luma: Image | None = None
        self._index = -1
        self._pairs = (array("q"), array("q"))
        self._columns = {name: array("f") for name in COLUMNS}

    def __call__(self, index: int, luma: Image) -> None:
        """Measure the pair of the picture given before and this one, frame number `index`."""
        if self._luma is not None:
            self._pairs[0].append(self._index)
            self._pairs[1].append(index)
            row = self._measure(self._luma, luma)
            for name, column in self._columns.items():
                column.append(row.get(name, 0.0))
        self._luma, self._index = luma, index

    def table(self) -> FlowTable:
        first, second = (np.frombuffer(values, np.int64) for values in self._pairs)
        columns = {name: np.frombuffer(values, np.float32) for name, values in self._columns.items()}
        return FlowTable(first=first, second=second, **columns)

    def _measure(self, before: Image, after: Image) -> dict[str, float]:
        change = cv2.absdiff(before, after)
        changed = cv2.countNonZero(cv2.threshold(change, CHANGED_LUMA, 255, cv2.THRESH_BINARY)[1])
        row = {"difference": cv2.mean(change)[0], "changed_share": changed / change.size}
        start = corners(before)
        if not row["difference"] or len(start) < MIN_POINTS:
            return row | {"points": len(start), "coherence": float(len(start) >= MIN_POINTS)}
        end, status, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]  # its stubs forget that None is allowed
            before, after, start, None, winSize=(WINDOW_PX, WINDOW_PX), maxLevel=LEVELS, criteria=(3, 10, 0.03)
        )
        is_found = status.ravel() > 0
        row |= {"points": float(is_found.sum()), "lost_share": 1 - float(is_found.mean())}
        if is_found.sum() < MIN_POINTS:
            return row
        centre = np.array([before.shape[1], before.shape[0]]) / 2
        return row | self._split(
            start[is_found, 0].astype(np.float64) - centre, end[is_found, 0].astype(np.float64) - centre
        )

    def _split(self, start: NDArray[np.float64], end: NDArray[np.float64]) -> dict[str, float]:
        """Camera and residual of points moving from `start` to `end`, both N x 2 in plane pixels from the centre."""
        move = end - start
        row = {"speed": self._length(move)}
        matrix, inlier = cv2.estimateAffinePartial2D(
            start, end, method=cv2.RANSAC, ransacReprojThreshold=INLIER_PX, maxIters=300, confidence=0.995
        )
        if matrix is None or not self._is_spread(start[inlier.ravel() > 0]):
            return row | {"residual": row["speed"]}
        model = start @ matrix[:, :2].T + matrix[:, 2] - start
        rest = move - model
        (cosine, _, shift_x), (sine, _, shift_y) = matrix.tolist()
        row["camera"] = self._length(model)
        row["residual"] = self._length(rest)
        row["pan_x"] = -shift_x * self._to_diagonals[0]
        row["pan_y"] = -shift_y * self._to_diagonals[1]
        row["zoom"] = math.log(max(math.hypot(cosine, sine), 1e-3))
        row["roll"] = -math.atan2(sine, cosine)
        row["coherence"] = cv2.countNonZero(inlier) / len(start)
        row["depth"] = _depth_share(rest, model)
        return row

    def _is_spread(self, points: NDArray[np.float64]) -> bool:
        """Whether points lie over so much of the frame that their motion says something of the camera: a title does not."""
        assert self._luma is not None
        height, width = self._luma.shape
        return len(points) >= MIN_POINTS and bool((points.std(axis=0) >= MIN_SPREAD * np.array([width, height])).all())

    def _length(self, move: NDArray[np.float64]) -> float:
        """Mean length in diagonals."""
        scaled = move * self._to_diagonals
        return float(np.sqrt(np.einsum("ij,ij->i", scaled, scaled)).sum()) / len(move)


def corners(luma: Image) -> NDArray[np.float32]:
    """The best corner of every cell that has one: N x 1 x 2 in plane pixels, as OpenCV wants them.

    Sought at half the plane's size: four times faster, and what is a corner there is one that survives noise.
    """
    half = cv2.resize(luma, (luma.shape[1] // 2, luma.shape[0] // 2), interpolation=cv2.INTER_AREA)
    strength = cv2.cornerMinEigenVal(half, 3)
    rows, columns = half.shape[0] // CELL_PX, half.shape[1] // CELL_PX
    top, left = (half.shape[0] - rows * CELL_PX) // 2, (half.shape[1] - columns * CELL_PX) // 2
    cells = strength[top : top + rows * CELL_PX, left : left + columns * CELL_PX]
    cells = cells.reshape(rows, CELL_PX, columns, CELL_PX).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    best = cells.argmax(axis=1)
    cell = np.nonzero(cells[np.arange(len(cells)), best] > MIN_EIGENVALUE)[0]
    x = left + cell % columns * CELL_PX + best[cell] % CELL_PX
    y = top + cell // columns * CELL_PX + best[cell] // CELL_PX
    return (np.stack([x, y], axis=1) * 2 + 0.5).astype(np.float32).reshape(-1, 1, 2)


def _depth_share(rest: NDArray[np.float64], model: NDArray[np.float64]) -> float:
    """Share of displacement that differs between points along the camera's direction more than across it.

    Under a turning or zooming camera every point obeys the model whatever its distance. Under a moving camera near points
    run ahead and far ones lag, along the same direction; things that move by themselves stray in any direction.
    """
    length = np.sqrt(np.einsum("ij,ij->i", model, model))
    total = float(length.sum()) / len(length)
    if total < INLIER_PX:
        return 0.0
    length = np.maximum(length, 1e-6)
    along = np.abs(np.einsum("ij,ij->i", rest, model)) / length
    across = np.abs(rest[:, 0] * model[:, 1] - rest[:, 1] * model[:, 0]) / length
    excess = np.minimum(along, 2 * total) - np.minimum(across, 2 * total)
    return min(max(float(excess.sum()) / len(length) / total, 0.0), 1.0)
