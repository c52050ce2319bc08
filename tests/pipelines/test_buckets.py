"""Promises of pipelines/buckets.py."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.buckets import BucketSpec, assign, spec_from_dict

FIVE_BY_FIVE = {
    "aspects": {
        "16:9": [1024, 576],
        "4:3": [896, 672],
        "1:1": [768, 768],
        "3:4": [672, 896],
        "9:16": [576, 1024],
    },
    "durations": [
        {"name": "4s", "min_s": 4, "max_s": 8, "latent_frames": 16},
        {"name": "8s", "min_s": 8, "max_s": 10.67, "latent_frames": 24},
        {"name": "10.67s", "min_s": 10.67, "max_s": 12, "latent_frames": 32, "middle_s": 10.67},
        {"name": "12s", "min_s": 12, "max_s": 16, "latent_frames": 32},
        {"name": "16s", "min_s": 16, "max_s": 17, "latent_frames": 32, "middle_s": 16},
    ],
}
SPEC = spec_from_dict(FIVE_BY_FIVE)
sides = st.integers(min_value=1, max_value=20_000)
covered_s = st.floats(min_value=4, max_value=17, exclude_max=True, allow_nan=False)


def _changed(**changes: object) -> dict[str, object]:
    return {**FIVE_BY_FIVE, **changes}


@given(sides, sides, covered_s)
def test_a_clip_in_the_covered_range_has_exactly_one_bucket_and_that_bucket_holds_it(
    width_px: int, height_px: int, duration_s: float
) -> None:
    bucket = assign(width_px, height_px, duration_s, SPEC)
    assert bucket is not None
    assert bucket in SPEC.buckets()
    holding = [d for d in SPEC.durations if d.min_s <= duration_s < d.max_s]
    assert holding == [bucket.duration]


@given(sides, sides, covered_s)
def test_the_aspect_is_the_nearest_in_log_ratio(width_px: int, height_px: int, duration_s: float) -> None:
    bucket = assign(width_px, height_px, duration_s, SPEC)
    assert bucket is not None
    distances = {a.label: abs(math.log(width_px / height_px) - math.log(a.ratio)) for a in SPEC.aspects}
    assert distances[bucket.aspect.label] <= min(distances.values()) + 1e-12


@given(sides, sides, covered_s)
def test_a_transposed_picture_goes_to_the_transposed_bucket(width_px: int, height_px: int, duration_s: float) -> None:
    upright, transposed = (
        assign(width_px, height_px, duration_s, SPEC),
        assign(height_px, width_px, duration_s, SPEC),
    )
    assert upright is not None and transposed is not None
    assert upright.aspect.ratio == 1 / transposed.aspect.ratio
    assert (upright.width_px, upright.height_px) == (transposed.height_px, transposed.width_px)


def test_an_exact_tie_goes_to_the_squarer_on_both_sides() -> None:
    spec = spec_from_dict(_changed(aspects={"16:9": [1024, 576], "1:1": [768, 768], "9:16": [576, 1024]}))
    assert {assign(4, 3, 5, spec).aspect.ratio, assign(3, 4, 5, spec).aspect.ratio} == {Fraction(1)}  # type: ignore[union-attr]


@pytest.mark.parametrize("duration_s", [0, 3.999999, 17, 1e9, math.inf, -1])
def test_a_duration_outside_the_table_has_no_bucket(duration_s: float) -> None:
    assert assign(1920, 1080, duration_s, SPEC) is None


@pytest.mark.parametrize(
    ("width_px", "height_px", "duration_s", "name"),
    [
        (1920, 1080, 4, "16x9-4s"),
        (1280, 720, 7.999, "16x9-4s"),
        (1080, 1920, 8, "9x16-8s"),
        (640, 480, 11, "4x3-10.67s"),
        (1000, 999, 16, "1x1-16s"),
        (2390, 1000, 12, "16x9-12s"),
    ],
)
def test_known_clips_get_the_bucket_a_person_would_name(
    width_px: int, height_px: int, duration_s: float, name: str
) -> None:
    bucket = assign(width_px, height_px, duration_s, SPEC)
    assert bucket is not None and bucket.name == name
    assert SPEC.bucket(name) == bucket


def test_frames_follow_the_paper() -> None:
    assert {d.name: d.frame_count for d in SPEC.durations} == {
        "4s": 128, "8s": 192, "10.67s": 256, "12s": 256, "16s": 256,
    }  # fmt: skip
    assert len(SPEC.buckets()) == len({bucket.name for bucket in SPEC.buckets()}) == 25


def test_the_order_in_the_file_does_not_matter() -> None:
    shuffled = {
        "aspects": dict(reversed(list(FIVE_BY_FIVE["aspects"].items()))),  # type: ignore[attr-defined]
        "durations": list(reversed(FIVE_BY_FIVE["durations"])),  # type: ignore[call-overload]
    }
    assert spec_from_dict(shuffled) == SPEC


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "buckets: expected a mapping"),
        ({"aspect": {}}, "buckets.aspect: unknown key; known keys are"),
        ({"durations": FIVE_BY_FIVE["durations"]}, "buckets.aspects: expected a mapping"),
        (_changed(aspects={"wide": [352, 192]}), "'wide' is no ratio; write it in quotes as width:height"),
        (_changed(aspects={969: [352, 192]}), "969 is no ratio; write it in quotes"),  # YAML reads 16:9 as 969
        (_changed(aspects={"16:9": [350, 192]}), "width 350 px is no multiple of 16; write 352"),
        (_changed(aspects={"16:9": [256, 256]}), "256x256 px misses that ratio by -44%"),
        (_changed(aspects={"16:9": 352}), r"expected \[width, height\] in pixels"),
        (_changed(aspects={"16:9": [352, 192], "32:18": [352, 192]}), "are the same ratio; remove one"),
        (_changed(durations=[]), "buckets.durations: expected a list"),
        (_changed(durations=[{"name": "4s"}]), r"durations\[0\].min_s: missing"),
        (
            _changed(durations=[{"name": "4s", "min_s": "4", "max_s": 8, "latent_frames": 16}]),
            r"durations\[0\].min_s: expected seconds as a number, got '4'",
        ),
        (
            _changed(durations=[{"name": "4s", "min_s": 8, "max_s": 8, "latent_frames": 16}]),
            r"durations\[0\]: duration 4s: needs 0 <= min_s < max_s",
        ),
        (
            _changed(durations=[{"name": "4s", "min_s": 4, "max_s": 8, "latent_frames": 2.5}]),
            "latent_frames: expected a whole number",
        ),
        (
            _changed(durations=[{"name": "../x", "min_s": 4, "max_s": 8, "latent_frames": 2}]),
            "duration name '../x' must be letters",
        ),
        (
            _changed(durations=[*FIVE_BY_FIVE["durations"][:1], *FIVE_BY_FIVE["durations"][2:]]),  # type: ignore[index]
            "a gap between 4s .* set min_s of 10.67s to 8",
        ),
        (
            _changed(durations=[*FIVE_BY_FIVE["durations"][:1], {**FIVE_BY_FIVE["durations"][1], "min_s": 7}]),  # type: ignore[index]
            "an overlap between 4s .* set min_s of 8s to 8",
        ),
    ],
)
def test_a_wrong_spec_names_its_key_and_the_mend(raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec_from_dict(raw)


def test_a_clip_without_a_size_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="a size from 1x1 px"):
        assign(0, 10, 5, SPEC)
    with pytest.raises(ValueError, match="no bucket '2x1-4s'"):
        SPEC.bucket("2x1-4s")
    with pytest.raises(ValueError, match="at least one aspect"):
        BucketSpec((), ())
