"""Reading policies: what ships is good, what is wrong is refused with its place and its mend."""

from pathlib import Path

import pytest
import yaml

from pipelines.policy import Gate, PolicyError, bounds_of, load_policy, shipped_policies
from pipelines.policy.reference import renewed
from pipelines.policy.schema import Policy

SMALL = """\
name: small
gates:
  long_enough:
    column: videos.duration_s
    min: 4
    on_failure: reject
  duration: {column: clips.duration_s, min: 4, max: 7.5, on_failure: reject}
  border: {column: signals.border_kind, in: [none, letterbox], on_failure: pass}
buckets:
  aspects: {"16:9": [352, 192]}
  durations:
    - {name: 4s, min_s: 4, max_s: 8, latent_frames: 16}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def passing_bounds(policy: Policy) -> dict[str, tuple[float, float]]:
    return {
        gate.name: (
            gate.minimum if gate.minimum is not None else float("-inf"),
            gate.maximum if gate.maximum is not None else float("inf"),
        )
        for gate in policy.active_gates
    }


def test_four_policies_ship() -> None:
    assert shipped_policies() == ["demo", "finetune", "pretrain-256", "pretrain-768"]
    for name in shipped_policies():
        assert load_policy(name).name == name


def test_each_shipped_policy_is_stricter_than_the_one_before() -> None:
    loose, *stricter = (
        passing_bounds(load_policy(name)) for name in ("demo", "pretrain-256", "pretrain-768", "finetune")
    )
    for strict in stricter:
        assert strict.keys() == loose.keys()
        for gate, (low, high) in strict.items():
            assert low >= loose[gate][0] and high <= loose[gate][1], gate
        loose = strict


def test_all_shipped_policies_share_one_scan() -> None:
    assert {str(load_policy(name).scan) for name in shipped_policies()} == {"{}"}


def test_the_papers_strict_limits_are_the_defaults_of_pretrain_768() -> None:
    gates = {gate.name: gate.threshold for gate in load_policy("pretrain-768").gates}
    assert gates["width"] == ">= 768" and gates["height"] == ">= 768"
    assert gates["motion"] == ">= 2" and gates["flow"] == "0.5..7" and gates["shots_per_s"] == "<= 0.85"


def test_every_threshold_that_ships_says_where_it_comes_from() -> None:
    folder = Path(load_policy.__code__.co_filename).parents[1] / "policies"
    for path in sorted(folder.glob("*.yaml")):
        gates = path.read_text().split("gates:")[1].split("\nquotas:")[0]
        bounds = [line for line in gates.splitlines() if line.strip().startswith(("min:", "max:", "in:", "not_in:"))]
        assert len(bounds) >= 20
        assert all("# " in line for line in bounds), path


def test_an_override_changes_one_value_and_the_digest() -> None:
    before, after = load_policy("demo"), load_policy("demo", ["gates.motion.min=1.5", "gates.black.enabled=false"])
    changed = {gate.name for gate, old in zip(after.gates, before.gates, strict=True) if gate != old}
    assert changed == {"motion", "black"}
    assert next(gate.minimum for gate in after.gates if gate.name == "motion") == 1.5
    assert before.digest != after.digest


def test_a_small_number_may_be_written_without_a_point() -> None:
    gates = {gate.name: gate for gate in load_policy("demo", ["gates.flow.min=1e-3"]).gates}
    assert gates["flow"].minimum == 0.001


def test_the_digest_ignores_texts_disabled_gates_and_the_spelling_of_numbers(small: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    extra = "  spare: {column: signals.jitter, max: 1, on_failure: pass, enabled: false}\nbuckets:"
    other.write_text(SMALL.replace("min: 4\n", "min: 4.0\n    about: words\n").replace("buckets:", extra))
    assert load_policy(str(small)).digest == load_policy(str(other)).digest


@pytest.mark.parametrize("name", ["demo", "pretrain-256", "pretrain-768", "finetune"])
def test_resolved_yaml_loads_to_an_equal_policy(name: str, tmp_path: Path) -> None:
    policy = load_policy(name, ["gates.motion.min=0.125", "quotas.orientation.strict=true", "scan.min_clip_s=3"])
    path = tmp_path / "resolved.yaml"
    path.write_text(policy.resolved_yaml())
    assert load_policy(str(path)) == policy


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("gates.motoin.min=2", "did you mean 'motion'"),
        ("gates.motion.mni=2", "did you mean 'min'"),
        ("gates.motion.min=fast", "expected a number, got 'fast'"),
        ("gates.motion.min=.nan", "expected a number"),
        ("gates.flow.min=20", "above max 14"),
        ("gates.motion.min=null", "a gate has min and/or max, or in, or not_in"),
        ("gates.motion.in=[2]", "use min and max"),
        ("gates.flashes.in=[2]", "a gate has min and/or max, or in, or not_in"),
        ("gates.motion.on_failure=maybe", "expected reject or pass, got 'maybe'"),
        ("gates.motion.on_failure=null", "missing; expected reject or pass"),
        ("gates.motion.enabled=1", "expected true or false"),
        ("gates.motion.column=signals.motion_scor", "did you mean 'signals.motion_score'"),
        ("gates.motion.column=clips.motion_score", "did you mean 'signals.motion_score'"),
        ("gates.motion.column=keyframes.index", "several rows"),
        ("gates.motion.column=signals.border_kind", "is no number; use in or not_in"),
        ("gates.motion.column=videos.fps", "order of cost"),
        ("gates.frame_in_frame.not_in=[no]", "put them in quotes"),
        ("gates.frame_in_frame.not_in=[]", "expected a list"),
        ("gates.border.max=[1]", "expected a number"),
        ("gates.duration.max=20", "the duration buckets hold 2 s up to but without 17 s"),
        ("gates.duration.min=1", "narrow the gate or add a bucket"),
        ("gates.duration.enabled=false", "add an enabled gate on clips.duration_s"),
        ("quotas.orientation.landscape=60", "a share from 0 to 1"),
        ("quotas.orientation.portrait=0.7", "must make 1"),
        ("quotas.orientatoin.strict=true", "did you mean 'orientation'"),
        ("shards.max_samples=0", "a whole number from 1"),
        ("export.crf=99", "outside 1..51"),
        ("export.codec=h264", "unknown key"),
        ("scan.min_clip=3", "unknown scan parameter"),
        ("buckets=null", "buckets: missing"),
        ("name=../elsewhere", "becomes a folder's name"),
        ("gate.motion.min=1", "did you mean 'gates'"),
        ("name.x=1", "nothing inside it can be set"),
        ("gates.motion.min", "expected KEY=VALUE"),
        ("gates.motion.min={", "no YAML"),
    ],
)
def test_a_wrong_override_is_one_sentence_with_the_key_and_the_mend(override: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy("demo", [override])
    message = str(caught.value)
    assert said in message and f"--set {override}" in message
    assert "\n" not in message and isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min: 4\n", "min: 4\n    mni: 5\n", "small.yaml:6: gates.long_enough.mni: unknown key; did you mean 'min'?"),
        (
            "  border:",
            "  duration:",
            "small.yaml:8: gates.duration: this key stands twice, first in line 7; remove one",
        ),
        ("name: small", "name: small: er", "small.yaml:1: this is no YAML"),
        ("    on_failure: reject\n", "", "on_failure: missing; expected reject or pass"),
        ("  border:", "  probe:", "small.yaml:8: gates.probe: this name is taken"),
        ("  border:", "  Border:", "small.yaml:8: gates.Border: a gate's name"),
        ("gates:", "extends: demo\ngates:", "small.yaml:2: extends: unknown key; known are name"),
        ("max: 7.5", "max: 8", "small.yaml:7: gates.duration.max: clips of 4 to 8 s pass"),
        ('"16:9"', "16:9", "in quotes"),
        (SMALL, "", "expected a mapping"),
        (SMALL, "- 1", "expected a mapping"),
    ],
)
def test_a_wrong_file_is_refused_by_file_line_and_key(small: Path, old: str, new: str, said: str) -> None:
    small.write_text(SMALL.replace(old, new))
    with pytest.raises(PolicyError) as caught:
        load_policy(str(small))
    assert said in str(caught.value) and str(small) in str(caught.value)


def test_an_unknown_policy_lists_what_is_near(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="did you mean 'pretrain-256'"):
        load_policy("pretrian-256")
    with pytest.raises(PolicyError, match=r"cannot read this policy.*shipped policies are demo"):
        load_policy(str(tmp_path / "none.yaml"))


def test_yaml_that_builds_objects_is_refused(small: Path) -> None:
    small.write_text(SMALL.replace("name: small", "name: !!python/object/apply:os.getcwd []"))
    with pytest.raises(PolicyError, match="no YAML"):
        load_policy(str(small))


@pytest.mark.parametrize(
    ("gate", "threshold"),
    [
        (Gate("g", "signals.jitter", "pass", minimum=4), ">= 4"),
        (Gate("g", "signals.jitter", "pass", maximum=0.85), "<= 0.85"),
        (Gate("g", "signals.jitter", "pass", minimum=-1.5, maximum=7), "-1.5..7"),
        (Gate("g", "signals.jitter", "pass", minimum=1e-9, maximum=1e20), "1e-09..1e+20"),
        (Gate("g", "signals.border_kind", "pass", allowed=("none", "letterbox")), "in none|letterbox"),
        (Gate("g", "videos.is_vfr", "pass", refused=(True,)), "not in true"),
    ],
)
def test_a_threshold_is_written_so_that_its_bounds_can_be_read_back(gate: Gate, threshold: str) -> None:
    assert gate.threshold == threshold
    is_ranged = gate.allowed is None and gate.refused is None
    assert bounds_of(threshold) == ((gate.minimum, gate.maximum) if is_ranged else None)


def test_resolved_yaml_is_plain_yaml() -> None:
    raw = yaml.safe_load(load_policy("demo").resolved_yaml())
    assert list(raw) == ["name", "about", "scan", "gates", "quotas", "buckets", "export", "shards"]


def test_the_manuals_reference_of_gates_is_what_ships() -> None:
    """Renew with `python -m pipelines.policy.reference`."""
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    assert renewed(page) == page
