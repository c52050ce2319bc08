"""The numbers behind the pictures: funnels, histograms and rankings, from the ledger.

What belongs here: table work without markup. How it is drawn is `charts.py`, `strips.py` and `sheets.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.policy import Gate, Policy, funnel
from pipelines.report.data import ReportPolicy

MAX_BINS = 40
REACH = 5.0
"""A bound further from the scores than so many times their span is only pointed at: it would squeeze them into one bar."""
REFUSED_MARGIN = 0.08
"""Share of the axis drawn beyond a bound that no score crosses, so that one sees the refused side."""
SPIKE_SHARE = 0.4
LOG_SKEW = 10.0
"""A 99th percentile this many times the median squeezes most of a linear axis into a few bars; then the axis is logarithmic."""


@dataclass(frozen=True)
class Step:
    """One step of a funnel: `entered = rejected + errors + left`.

    `gate` is None for a step that is no gate of the policy (probe, scan, bucket, a quota ...). `alone` counts the subjects that
    no other gate rejects: what would come back without this one.
    """

    name: str
    gate: Gate | None
    entered: int
    rejected: int
    errors: int
    excused: int
    alone: int

    @property
    def left(self) -> int:
        """What goes on to the next step."""
        return self.entered - self.rejected - self.errors


@dataclass(frozen=True)
class Histogram:
    """Scores that one gate judged. Bin i is `[edges[i], edges[i+1])`, the last closed; zeros stand apart on a
    logarithmic axis, and where they are most of all scores.

    `failed` subjects have no score: they are in no bin.
    """

    edges: tuple[float, ...]
    passed: tuple[int, ...]
    rejected: tuple[int, ...]
    zeros: tuple[int, int]
    is_log: bool
    median: float
    failed: int

    @property
    def judged(self) -> int:
        """How many have a score."""
        return sum(self.passed) + sum(self.rejected) + sum(self.zeros)


def gates_of(policy: Policy, subject_kind: str) -> tuple[Gate, ...]:
    """The gates that judge `video` or `clip`, in the order in which they speak."""
    return policy.video_gates if subject_kind == "video" else policy.clip_gates


def selection_of(policy: ReportPolicy, subject_kind: str) -> pa.Table:
    """This policy's final states of one kind of subject."""
    return policy.outcome.selection.filter(pc.field("subject_kind") == subject_kind)


def decisions_of(policy: ReportPolicy, gate_name: str) -> pa.Table:
    """Everything that one gate said; no rows if it never spoke."""
    return policy.said.get(gate_name, policy.outcome.decisions.slice(0, 0))


def tally(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value stands there, nulls as '', most frequent first, then by name."""
    counted = pc.value_counts(pc.fill_null(values, "").combine_chunks()).to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counted, key=lambda row: (-row["counts"], row["values"]))}


def steps(policy: ReportPolicy, subject_kind: str) -> list[Step]:
    """The policy's funnel for `video` or `clip`: every gate, and those other steps that stopped something."""
    gates = {gate.name: gate for gate in gates_of(policy.policy, subject_kind)}
    alone = _alone(policy)
    rows = (
        funnel(policy.policy, policy.outcome.decisions, policy.outcome.selection)
        .filter(pc.field("subject_kind") == subject_kind)
        .to_pylist()
    )
    return [
        Step(
            row["gate"],
            gates.get(row["gate"]),
            row["in"],
            row["rejected"],
            row["errors"],
            row["excused"],
            alone.get(row["gate"], 0),
        )
        for row in rows
        if row["gate"] in gates or row["rejected"] + row["errors"]
    ]


def _alone(policy: ReportPolicy) -> dict[str, int]:
    """By gate, the subjects that stopped at it and that no other gate rejects."""
    times = policy.rejects.group_by("subject_id").aggregate([([], "count_all"), ("gate", "min")])
    alone = times.filter(pc.field("count_all") == 1).select(["subject_id", "gate_min"])
    stopped = policy.outcome.selection.select(["subject_id", "gate"])
    return tally(alone.join(stopped, ["subject_id", "gate_min"], ["subject_id", "gate"], "inner")["gate_min"])


def histogram(decisions: pa.Table, gate: Gate) -> Histogram | None:
    """The gate's scores in bins, split by verdict; None if none has a number."""
    scores = decisions["score"].to_numpy(zero_copy_only=False).astype(np.float64)
    is_rejected = pc.equal(decisions["verdict"], "reject").to_numpy(zero_copy_only=False).astype(bool)
    has_score = np.isfinite(scores)
    if not has_score.any():
        return None
    scores, is_rejected = scores[has_score], is_rejected[has_score]
    is_log = _is_skewed(scores)
    is_zero = (scores == 0) if is_log or _is_spiked(scores) else np.zeros(len(scores), bool)
    edges = _edges(scores[~is_zero], (gate.minimum, gate.maximum), is_log)
    passed, _ = np.histogram(scores[~is_rejected & ~is_zero], edges)
    rejected, _ = np.histogram(scores[is_rejected & ~is_zero], edges)
    zeros = (int((is_zero & ~is_rejected).sum()), int((is_zero & is_rejected).sum()))
    return Histogram(
        tuple(map(float, edges)),
        tuple(map(int, passed)),
        tuple(map(int, rejected)),
        zeros,
        is_log,
        float(np.median(scores)),
        int((~has_score).sum()),
    )


def _is_skewed(scores: np.ndarray) -> bool:
    positive = scores[scores > 0]
    if scores.min() < 0 or len(positive) < 2 or len(positive) < 0.5 * len(scores):
        return False
    return bool(np.quantile(positive, 0.99) > LOG_SKEW * np.median(positive)) and positive.min() < positive.max()


def _is_spiked(scores: np.ndarray) -> bool:
    """Whether most scores are exactly zero: beside their bar the others would be too low to see."""
    others = int((scores != 0).sum())
    return bool(scores.min() >= 0) and others >= 5 and len(scores) - others >= SPIKE_SHARE * len(scores)


def _edges(scores: np.ndarray, bounds: Sequence[float | None], is_log: bool) -> np.ndarray:
    """Bin edges over the scores and those bounds that lie near them; a near bound is itself an edge."""
    there, back = (np.log10, lambda x: np.power(10.0, x)) if is_log else (np.asarray, np.asarray)
    low, high, near = _domain(
        there(scores), [float(there(b)) for b in bounds if b is not None and (b > 0 or not is_log)]
    )
    if not is_log and scores.min() >= 0:
        low = max(low, 0.0)
    edges = np.linspace(low, high, int(np.clip(2 * np.sqrt(len(scores)), 12, MAX_BINS)) + 1)
    for bound in near:
        edges[np.abs(edges - bound).argmin()] = bound
    edges = back(edges)
    edges[0], edges[-1] = min(edges[0], scores.min()), max(edges[-1], scores.max())
    for given in bounds:  # the way there and back through a logarithm must not move a score across its bound
        if given is not None:
            edges[np.isclose(edges, given, rtol=1e-9, atol=0)] = given
    return np.unique(edges)


def _domain(values: np.ndarray, bounds: Sequence[float]) -> tuple[float, float, list[float]]:
    """(low, high, bounds inside): the values, the bounds within `REACH` times their span, and some of the refused side."""
    low, high = float(values.min()), float(values.max())
    reach = REACH * (high - low) if high > low else np.inf
    near = [bound for bound in bounds if low - reach <= bound <= high + reach]
    first, last = min([low, *near]), max([high, *near])
    pad = REFUSED_MARGIN * (last - first) if last > first else 0.5
    first -= pad if first < low or first == last else 0.0
    last += pad if last > high or first == last else 0.0
    return (first, last, near) if last > first else (low - 0.5, high + 0.5, near)


def margins(decisions: pa.Table, gate: Gate | None) -> np.ndarray:
    """How far each score lies from the nearest bound, relative to the larger of the two; infinite without a number."""
    scores = decisions["score"].to_numpy(zero_copy_only=False).astype(np.float64)
    margin = np.full(len(scores), np.inf)
    for bound in (gate.minimum, gate.maximum) if gate else ():
        if bound is not None:
            scale = np.maximum(np.maximum(np.abs(scores), abs(bound)), 1e-12)
            margin = np.fmin(margin, np.abs(scores - bound) / scale)
    return margin


def nearest(decisions: pa.Table, gate: Gate | None, most: int) -> pa.Table:
    """The `most` rows closest to the gate's bound; ties, and rows without a number, by subject."""
    if not decisions.num_rows:
        return decisions  # select_k_unstable cannot wrap an empty answer (pyarrow 25)
    keys = pa.table({"margin": margins(decisions, gate), "subject_id": decisions["subject_id"]})
    order = pc.select_k_unstable(keys, most, [("margin", "ascending"), ("subject_id", "ascending")])
    return decisions.take(order)


def closest_calls(policy: ReportPolicy, subjects: pa.ChunkedArray, most: int) -> list[tuple[str, str]]:
    """(subject, the gate that came closest to rejecting it), the closest of all first; '' where no gate has a number.

    Gates on table `clips` do not count: clips are cut to the longest length allowed, so that bound is always close.
    """
    best: dict[str, tuple[float, str]] = {}
    for gate in policy.policy.clip_gates:
        if gate.table.name == "clips":
            continue
        said = decisions_of(policy, gate.name)
        said = said.filter(pc.is_in(said["subject_id"], subjects.combine_chunks()))
        said = nearest(said, gate, most)  # the closest of all are among the closest of their own gate
        for subject, margin in zip(said["subject_id"].to_pylist(), margins(said, gate), strict=True):
            if margin < best.get(subject, (np.inf, ""))[0]:
                best[subject] = (float(margin), gate.name)
    for subject in sorted(set(subjects.to_pylist()) - set(best))[: max(0, most - len(best))]:
        best[subject] = (np.inf, "")
    ranked = sorted(best.items(), key=lambda item: (item[1][0], item[0]))[:most]
    return [(subject, gate) for subject, (_, gate) in ranked]
