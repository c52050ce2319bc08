"""What the Dagster UI shows: plain Python values, short enough to be seen without a click."""

import pyarrow as pa
import pytest

from orchestration.metadata import SHOWN_CHARS, _shown_in_place, histogram, of_step
from pipelines.steps import StepResult


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([None, float("nan")], ""),
        ([2.0, 2.0], "2 (all)"),
        ([float(number) for number in range(16)], "0 ████████████████ 15"),
        ([0.0] * 15 + [1.0], "0 █▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ 1"),
    ],
)
def test_a_histogram_is_one_line_of_text(values: list[float | None], line: str) -> None:
    assert histogram(pa.chunked_array([pa.array(values, pa.float64())])) == line


def test_text_columns_have_no_histogram() -> None:
    assert histogram(pa.chunked_array([pa.array(["none"])])) == ""


def test_long_histograms_are_shown_in_groups_that_need_no_click() -> None:
    lines = ["x" * 60] * 40
    groups = _shown_in_place(lines)
    assert [line for group in groups for line in group] == lines
    assert all(sum(map(len, group)) <= SHOWN_CHARS for group in groups)


def test_a_steps_numbers_are_plain_numbers() -> None:
    step = StepResult("scan", "all", 3, 4, 1, 2.345, {"reasons": {"truncated": 1}})
    numbers = of_step(step)
    assert [numbers[name] for name in ("done", "reused", "failed", "wall_s")] == [3, 4, 1, 2.35]
    assert "truncated" in numbers["failure_reasons"].value
