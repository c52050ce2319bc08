"""Promises of flow matching: the path, the draws, the schedules, and solvers that converge at their order."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models import flow


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_path_begins_at_noise_and_ends_at_data_but_for_sigma_min() -> None:
    noise, data = torch.randn(2, 3, 4, generator=seeded()), torch.randn(2, 3, 4, generator=seeded(1))
    assert torch.equal(flow.interpolate(noise, data, torch.zeros(2)), noise)
    end = flow.interpolate(noise, data, torch.ones(2))
    torch.testing.assert_close(end, data + 1e-5 * noise, rtol=0, atol=2e-7)


def test_the_target_is_the_slope_of_the_path_everywhere() -> None:
    noise, data = (torch.randn(3, 5, generator=seeded(i), dtype=torch.float64) for i in (0, 1))
    for t in (0.1, 0.5, 0.9):
        at = torch.full((3,), t, dtype=torch.float64)
        slope = (flow.interpolate(noise, data, at + 1e-3) - flow.interpolate(noise, data, at - 1e-3)) / 2e-3
        torch.testing.assert_close(flow.velocity_target(noise, data), slope)


def test_each_sample_goes_to_its_own_time() -> None:
    noise, data, t = torch.zeros(3, 2), torch.ones(3, 2), torch.tensor([0.0, 0.25, 1.0])
    torch.testing.assert_close(flow.interpolate(noise, data, t)[:, 0], t)


def test_a_zero_prediction_has_loss_two_on_unit_variance_latents() -> None:
    noise, data = (torch.randn(64, 1024, generator=seeded(i)) for i in (0, 1))
    assert flow.velocity_target(noise, data).square().mean().item() == pytest.approx(2.0, rel=0.03)


def test_logit_normal_times_have_a_normal_logit_and_repeat_with_the_seed() -> None:
    t = flow.draw_logit_normal(20_000, seeded())
    logit = torch.logit(t.double())
    assert t.min() > 0 and t.max() < 1
    assert logit.mean().item() == pytest.approx(0, abs=0.03) and logit.std().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(t, flow.draw_logit_normal(20_000, seeded()))
    shifted = torch.logit(flow.draw_logit_normal(20_000, seeded(), mean=-1.0, deviation=0.5).double())
    assert shifted.mean().item() == pytest.approx(-1, abs=0.03) and shifted.std().item() == pytest.approx(0.5, abs=0.03)


def test_uniform_times_fill_the_interval_evenly() -> None:
    counts = torch.histc(flow.draw_uniform(20_000, seeded()), bins=10, min=0, max=1)
    assert counts.min() > 1800 and counts.max() < 2200


def test_linear_quadratic_has_the_check_values_of_the_paper_at_250() -> None:
    times = flow.linear_quadratic_times(50)
    assert len(times) == 51
    expected = {0: 0.0, 1: 0.004, 25: 0.1, 26: 0.1053, 27: 0.1131, 49: 0.9333, 50: 1.0}
    for i, value in expected.items():
        assert times[i] == pytest.approx(value, abs=5e-5), i


def test_linear_quadratic_joins_its_halves_with_one_slope() -> None:
    steps = 2000
    times = flow.linear_quadratic_times(steps, emulated_steps=10_000)
    before, after = times[1000] - times[999], times[1001] - times[1000]
    assert after == pytest.approx(before, rel=0.01)


def test_emulating_as_many_steps_as_there_are_is_linear() -> None:
    assert flow.linear_quadratic_times(50, emulated_steps=50) == pytest.approx(flow.linear_times(50))
    assert flow.shifted_times(50, 1.0) == pytest.approx(flow.linear_times(50))


def test_shift_three_puts_the_middle_step_at_a_quarter() -> None:
    assert flow.shifted_times(2, 3.0)[1] == pytest.approx(0.25)


@given(st.integers(2, 200), st.floats(0.05, 20), st.integers(0, 2000))
def test_every_schedule_rises_from_exactly_0_to_exactly_1(steps: int, shift: float, more: int) -> None:
    for times in (
        flow.linear_times(steps),
        flow.linear_quadratic_times(steps, emulated_steps=steps + more),
        flow.shifted_times(steps, shift),
    ):
        assert len(times) == steps + 1 and times[0] == 0 and times[-1] == 1
        assert all(a < b for a, b in itertools.pairwise(times))


MEAN, DEVIATION = 0.7, 0.3
"""Of the Gaussian data: its velocity field is linear in x, and the flow has a closed form."""


def gaussian_velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[X1 - (1 - s) X0 | X_t = x] for X1 ~ N(MEAN, DEVIATION^2)."""
    keep = 1 - flow.SIGMA_MIN
    at = t.double().reshape(-1, *[1] * (x.ndim - 1))
    noise_share = 1 - keep * at
    variance = (at * DEVIATION) ** 2 + noise_share**2
    return MEAN + (at * DEVIATION**2 - keep * noise_share) / variance * (x - at * MEAN)


def gaussian_at(noise: Tensor, t: float) -> Tensor:
    """Where the exact flow has carried `noise` by time t."""
    return t * MEAN + math.sqrt((t * DEVIATION) ** 2 + (1 - (1 - flow.SIGMA_MIN) * t) ** 2) * noise


def observed_orders(solver, velocity, exact: Tensor, noise: Tensor, times_for) -> list[float]:
    errors = [(solver(velocity, noise, times_for(steps)) - exact).abs().max().item() for steps in (40, 80, 160)]
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


# midpoint gains an order here: its leading error is a third derivative of the variance, which is quadratic in t
@pytest.mark.parametrize(("solver", "order"), [(flow.euler, 1), (flow.midpoint, 3), (flow.heun, 2)])
@pytest.mark.parametrize("schedule", [flow.linear_times, lambda n: flow.shifted_times(n, 2.0)])
def test_solvers_converge_to_the_closed_form_of_a_gaussian(solver, order: int, schedule) -> None:
    noise = torch.randn(4, 8, generator=seeded(), dtype=torch.float64)
    for end in (0.5, 0.8):  # inside, where no symmetry of the whole path helps a solver
        orders = observed_orders(
            solver, gaussian_velocity, gaussian_at(noise, end), noise, lambda n, end=end: [end * t for t in schedule(n)]
        )
        assert orders == pytest.approx([order, order], abs=0.1)
    whole = solver(gaussian_velocity, noise, schedule(200))
    torch.testing.assert_close(whole, gaussian_at(noise, 1.0), rtol=0, atol=0.02)


@pytest.mark.parametrize(("solver", "order"), [(flow.euler, 1), (flow.midpoint, 2), (flow.heun, 2)])
def test_solvers_converge_at_their_order_where_nothing_helps_them(solver, order: int) -> None:
    noise = torch.randn(4, 8, generator=seeded(), dtype=torch.float64)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return (1 + t.double())[:, None] * x  # solved by x0 exp(t + t^2 / 2)

    exact = noise * math.exp(1.5)
    assert observed_orders(solver, velocity, exact, noise, flow.linear_times) == pytest.approx([order, order], abs=0.1)


def test_straight_paths_are_solved_exactly_in_one_step() -> None:
    noise, data = (torch.randn(2, 6, generator=seeded(i)) for i in (0, 1))
    for solver in (flow.euler, flow.midpoint, flow.heun):
        end = solver(lambda x, t: flow.velocity_target(noise, data), noise, [0.0, 1.0])
        torch.testing.assert_close(end, data, rtol=0, atol=3e-5)


@pytest.mark.parametrize(("solver", "asked"), [(flow.euler, 1), (flow.midpoint, 2), (flow.heun, 2)])
def test_a_solver_asks_the_network_as_often_as_it_says(solver, asked: int) -> None:
    calls = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        assert t.shape == (2,) and t.dtype == torch.float32
        return torch.zeros_like(x)

    solver(velocity, torch.zeros(2, 3), flow.linear_quadratic_times(10))
    assert len(calls) == 10 * asked


def test_guidance_of_one_is_no_guidance_bit_for_bit_and_costs_nothing() -> None:
    def forbidden(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("the unconditional network was asked")

    noise, times = torch.randn(2, 8, generator=seeded(), dtype=torch.float64), flow.linear_times(7)
    plain = flow.euler(gaussian_velocity, noise, times)
    assert torch.equal(flow.euler(flow.guided(gaussian_velocity, forbidden, 1.0), noise, times), plain)


def test_guidance_moves_along_the_difference() -> None:
    x, t = torch.zeros(1, 3), torch.zeros(1)
    velocity = flow.guided(lambda x, t: x + 3, lambda x, t: x + 1, 7.5)
    torch.testing.assert_close(velocity(x, t), torch.full((1, 3), 1 + 7.5 * 2))
    assert torch.equal(flow.guided(lambda x, t: x + 3, lambda x, t: x + 1, 0.0)(x, t), x + 1)


X, T = torch.zeros(2, 3), torch.zeros(2)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: flow.interpolate(X, torch.zeros(2, 4), T),
        lambda: flow.interpolate(X, X.int(), T),
        lambda: flow.interpolate(X, X, torch.zeros(3)),
        lambda: flow.interpolate(X, X, T + 1.5),
        lambda: flow.interpolate(X, X, T * float("nan")),
        lambda: flow.velocity_target(X, torch.zeros(3, 3)),
        lambda: flow.draw_logit_normal(2, seeded(), deviation=0.0),
        lambda: flow.linear_times(0),
        lambda: flow.linear_quadratic_times(1),
        lambda: flow.linear_quadratic_times(50, emulated_steps=20),
        lambda: flow.linear_quadratic_times(50, linear_steps=50),
        lambda: flow.shifted_times(10, 0.0),
        lambda: flow.guided(gaussian_velocity, gaussian_velocity, float("nan")),
        lambda: flow.euler(gaussian_velocity, X, [0.0]),
        lambda: flow.euler(gaussian_velocity, X, [0.0, 0.5, 0.5, 1.0]),
        lambda: flow.heun(gaussian_velocity, X, [1.0, 0.0]),
        lambda: flow.euler(gaussian_velocity, X * float("nan"), [0.0, 1.0]),
        lambda: flow.euler(gaussian_velocity, torch.zeros(0, 3), [0.0, 1.0]),
    ],
)
def test_bad_input_is_refused_with_the_mend(mistake) -> None:
    with pytest.raises(ValueError, match=r"given .*expected .*;"):
        mistake()
