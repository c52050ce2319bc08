"""Flow matching: the path from noise to data, where on it to train, and how to walk it (paper, objective and inference).

Belongs here: the path and its velocity, draws of t, time schedules, solvers and guidance, as pure functions of tensors.
Does not belong here: networks, losses' reduction over ranks, decoding.

Time t runs from 0 (noise) to 1 (data). X_t = t X1 + (1 - (1 - s) t) X0 and V = X1 - (1 - s) X0 with s = SIGMA_MIN.
Latents have any shape with the batch first; t is (B,), float32 at least: bfloat16 cannot tell 0.996 from 1.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SIGMA_MIN = 1e-5

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x of any shape with B first, t (B,)) -> dx/dt of x's shape."""


def interpolate(noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """X_t, the point at time `t` (B,) on the path from `noise` to `data`, both (B, ...); ValueError if they differ."""
    _check_pair(noise, data)
    _check_times(t, noise.shape[0])
    at = t.reshape(-1, *[1] * (noise.ndim - 1))
    return (at * data + (1 - (1 - SIGMA_MIN) * at) * noise).to(data.dtype)


def velocity_target(noise: Tensor, data: Tensor) -> Tensor:
    """V = dX_t/dt, the same at every t. Of unit noise and unit-variance data its mean square is 2."""
    _check_pair(noise, data)
    return data - (1 - SIGMA_MIN) * noise


def draw_logit_normal(batch: int, generator: torch.Generator, *, mean: float = 0.0, deviation: float = 1.0) -> Tensor:
    """(batch,) float32 times in (0, 1): the sigmoid of a normal. The paper trains with mean 0, deviation 1."""
    if not (math.isfinite(mean) and math.isfinite(deviation)) or deviation <= 0:
        raise ValueError(
            f"given mean {mean} and deviation {deviation}; expected finite numbers, deviation above 0; the paper has 0, 1"
        )
    normal = torch.randn(batch, generator=generator, device=generator.device)
    return torch.sigmoid(mean + deviation * normal)


def draw_uniform(batch: int, generator: torch.Generator) -> Tensor:
    """(batch,) float32 times, uniform in [0, 1)."""
    return torch.rand(batch, generator=generator, device=generator.device)


def linear_times(steps: int) -> list[float]:
    """steps + 1 equally spaced times from 0 to 1."""
    _check_steps(steps)
    return [i / steps for i in range(steps + 1)]


def linear_quadratic_times(steps: int, *, emulated_steps: int = 250, linear_steps: int | None = None) -> list[float]:
    """steps + 1 times: the first steps of an `emulated_steps` linear schedule, then quadratically growing ones.

    `linear_steps` (half of `steps` by default) go at 1 / emulated_steps each; the rest follow the parabola that begins
    there with the same slope and ends at 1. With 50 and 250: t25 = 0.100, t26 = 0.1053, t49 = 0.9333 (paper, inference).
    """
    _check_steps(steps)
    first = steps // 2 if linear_steps is None else linear_steps
    if not 0 < first < steps or emulated_steps < steps:
        raise ValueError(
            f"given {steps} steps, {first} of them linear, emulating {emulated_steps}; expected at least one linear and "
            "one quadratic step and no fewer emulated steps than real ones; take linear_times below 2 steps"
        )
    slope = 1 / emulated_steps
    curve = (1 - slope * steps) / (steps - first) ** 2  # what the straight line misses, made up quadratically
    times = [i * slope + (curve * (i - first) ** 2 if i > first else 0.0) for i in range(steps)]
    return [*times, 1.0]


def shifted_times(steps: int, shift: float) -> list[float]:
    """Linear times bent towards noise: with u = 1 - t, u' = shift u / (1 + (shift - 1) u). 1 is linear (Esser 2024)."""
    _check_steps(steps)
    if not math.isfinite(shift) or shift <= 0:
        raise ValueError(f"given a shift of {shift}; expected a finite number above 0; 1 leaves the times linear")
    # u' written for t, which keeps both ends exact
    return [t / (1 + (shift - 1) * (1 - t)) for t in linear_times(steps)]


def guided(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance: v = unconditional + scale (conditional - unconditional); the paper samples at 7.5.

    A scale of 1 is the conditional velocity itself, so nothing is computed twice and the result is the same bit for bit.
    """
    if not math.isfinite(scale):
        raise ValueError(f"given a guidance scale of {scale}; expected a finite number; 1 means no guidance")
    if scale == 1:
        return conditional

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        without = unconditional(x, t)
        return without + scale * (conditional(x, t) - without)

    return velocity


def euler(velocity: Velocity, noise: Tensor, times: Sequence[float]) -> Tensor:
    """Solve dx/dt = velocity from `noise` at times[0] to times[-1]; one evaluation a step, first order. The paper's choice."""
    x = noise
    for start, end in _steps(noise, times):
        x = x + (end - start) * velocity(x, _at(start, x))
    return x


def midpoint(velocity: Velocity, noise: Tensor, times: Sequence[float]) -> Tensor:
    """As `euler`, with the slope in the middle of the step: two evaluations a step, second order."""
    x = noise
    for start, end in _steps(noise, times):
        half = (end - start) / 2
        middle = x + half * velocity(x, _at(start, x))
        x = x + (end - start) * velocity(middle, _at(start + half, x))
    return x


def heun(velocity: Velocity, noise: Tensor, times: Sequence[float]) -> Tensor:
    """As `euler`, with the mean of the slopes at both ends: two evaluations a step, second order."""
    x = noise
    for start, end in _steps(noise, times):
        first = velocity(x, _at(start, x))
        last = velocity(x + (end - start) * first, _at(end, x))
        x = x + (end - start) * (first + last) / 2
    return x


def _at(time: float, x: Tensor) -> Tensor:
    return torch.full((x.shape[0],), time, device=x.device, dtype=torch.float32)


def _steps(noise: Tensor, times: Sequence[float]) -> list[tuple[float, float]]:
    """Neighbouring pairs of `times`, after checking both arguments."""
    if noise.ndim < 2 or not noise.is_floating_point() or 0 in noise.shape:
        raise ValueError(
            f"given noise {tuple(noise.shape)} of {noise.dtype}; expected floats (B, ...), none of the axes empty; draw it "
            "with torch.randn and a generator"
        )
    if not bool(torch.isfinite(noise).all()):
        raise ValueError(
            f"given noise {tuple(noise.shape)} with NaN or infinity; expected finite values; draw it again"
        )
    pairs = list(itertools.pairwise(times))
    if not pairs or not all(0 <= a < b <= 1 for a, b in pairs):
        raise ValueError(
            f"given times {list(times)[:5]} ...; expected at least two, rising, inside [0, 1]; take linear_times(50)"
        )
    return pairs


def _check_pair(noise: Tensor, data: Tensor) -> None:
    if noise.shape != data.shape or not noise.is_floating_point() or not data.is_floating_point():
        raise ValueError(
            f"given noise {tuple(noise.shape)} of {noise.dtype} and data {tuple(data.shape)} of {data.dtype}; expected "
            "floats of one shape (B, ...); draw the noise with torch.randn(data.shape)"
        )


def _check_times(t: Tensor, batch: int) -> None:
    if t.shape != (batch,) or not t.is_floating_point():
        raise ValueError(
            f"given t {tuple(t.shape)} of {t.dtype}; expected floats of shape ({batch},) in [0, 1], one per sample; use "
            "t.expand(batch) for a common time"
        )
    if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"given t from {t.min()} to {t.max()}; expected 0 (noise) to 1 (data); rescale the time")


def _check_steps(steps: int) -> None:
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"given {steps!r} steps; expected a whole number of at least 1; the paper takes 50")
