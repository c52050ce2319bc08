"""The book-keeping part of the page: what came in, where it ended, what failed, and whether it adds up.

What belongs here: counts, failure tables, buckets and the run's own facts, as markup.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.data import ReportData, ReportPolicy, StageRun
from pipelines.report.figures import selection_of, tally
from pipelines.report.markup import Markup, count, counted, element, join, number, seconds, share, size, source_name
from pipelines.report.sheets import names_of
from pipelines.report.strips import stacked

MAX_FAILURES = 200
"""Failed inputs listed with their message; the rest are told as a number."""

STATE_WORDS = {
    "video": "a video",
    "copy": "a copy of one",
    "failed": "failed",
    "selected": "selected",
    "rejected": "rejected",
    "duplicate": "duplicate",
    "resampled_away": "resampled away",
    "yielded_clips": "yielded clips",
    "without_clips": "without clips",
}
STATE_CLASSES = {
    "video": "kept",
    "selected": "kept",
    "yielded_clips": "kept",
    "failed": "failed",
    "rejected": "rejected",
}


def table(
    head: Sequence[object], rows: Sequence[Sequence[object]], numeric: Sequence[int] = (), class_: str = ""
) -> Markup:
    """A table; `numeric` columns are set flush right. It scrolls inside its box where the window is narrow."""
    cells = [
        element("tr", *(element("td", cell, class_="n" if at in numeric else None) for at, cell in enumerate(row)))
        for row in rows
    ]
    heads = element(
        "tr", *(element("th", name, scope="col", class_="n" if at in numeric else None) for at, name in enumerate(head))
    )
    return element(
        "div",
        element("table", element("thead", heads), element("tbody", *cells), class_=class_ or None),
        class_="scroll",
        tabindex="0",
    )


def total_s(table_of: pa.Table) -> float:
    """Sum of `duration_s`; nothing is 0."""
    return float(pc.sum(table_of["duration_s"]).as_py() or 0.0)


def selected_s(policy: ReportPolicy) -> float:
    """Seconds of video in the clips that a policy selected."""
    ids = selection_of(policy, "clip").filter(pc.field("state") == "selected")["subject_id"]
    return total_s(policy.clips.filter(pc.is_in(policy.clips["clip_id"], ids.combine_chunks())))


def key_figures(data: ReportData) -> Markup:
    """The run in five to eight numbers."""
    readable = data.videos.filter(pc.field("status") == "ok")
    figures = [
        (count(data.inputs.num_rows), "inputs", "paths that were given"),
        (count(data.videos.num_rows), "videos", f"{count(readable.num_rows)} could be read"),
        (seconds(total_s(readable)), "of video", "by time stamps, not by header"),
    ]
    for group in data.scan_groups:
        clips, shots = group[0].clips, group[0].shots
        name = "clips" if len(data.scan_groups) == 1 else f"clips for {', '.join(one.policy.name for one in group)}"
        figures.append(
            (count(clips.num_rows), name, f"{seconds(total_s(clips))}, of {counted(shots.num_rows, 'shot')}")
        )
    for policy in data.policies:
        clips = selection_of(policy, "clip")
        kept = tally(clips["state"]).get("selected", 0)
        said = f"{share(kept, clips.num_rows)} of clips, {seconds(selected_s(policy))}"
        figures.append((count(kept), f"kept by {policy.policy.name}", said))
    return element(
        "dl",
        *(
            element("div", element("dt", label), element("dd", value), element("dd", hint, class_="quiet"))
            for value, label, hint in figures
        ),
        class_="figures",
    )


def states(data: ReportData) -> Markup:
    """Inputs, videos and clips by final state, each with its sum held against the table's own count.

    Inputs must have as many rows in state `video` as there are videos.
    """
    inputs = tally(data.inputs["state"])
    accounts = [("Inputs", inputs, data.inputs.num_rows - inputs.get("video", 0) + data.videos.num_rows)]
    for policy in data.policies:
        for kind, whole in (("video", data.videos.num_rows), ("clip", policy.clips.num_rows)):
            name = f"{kind.capitalize()}s under {policy.policy.name}"
            accounts.append((name, tally(selection_of(policy, kind)["state"]), whole))
    return element("div", *(_account(name, found, whole) for name, found, whole in accounts), class_="accounts")


def _account(name: str, found: Mapping[str, int], whole: int) -> Markup:
    parts = [
        (STATE_WORDS.get(state, state or "no state"), STATE_CLASSES.get(state, "other"), n)
        for state, n in found.items()
    ]
    listed = [
        element("li", element("i", class_=f"key {kind}"), f"{word} ", element("b", count(amount)))
        for word, kind, amount in parts
    ]
    summed = sum(found.values())
    if summed == whole:
        sums = element("span", f"= {count(whole)} ✓", class_="adds-up")
    else:
        sums = element(
            "strong", f"{count(summed)} accounted for, but there are {count(whole)}", class_="does-not-add-up"
        )
    return element(
        "div", element("h4", name, " ", sums), stacked(parts), element("ul", *listed, class_="legend"), class_="account"
    )


def failures(data: ReportData) -> Markup:
    """Reason codes with their counts, then every failed input, video and measurement with its message."""
    rows = [*_failed_inputs(data), *_failed_stages(data)]
    if not rows:
        return element("p", "Nothing failed.", class_="quiet")
    reasons: dict[tuple[str, str], int] = {}
    for stage, reason, _, _ in rows:
        reasons[stage, reason] = reasons.get((stage, reason), 0) + 1
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    listed = [[stage, element("code", reason), count(amount)] for (stage, reason), amount in ranked]
    shown = [
        [element("span", name, class_="name"), stage, element("code", reason), message]
        for stage, reason, name, message in rows
    ]
    more = len(rows) - MAX_FAILURES
    return join(
        [
            table(["stage", "reason", "count"], listed, numeric=[2], class_="reasons"),
            element("h3", "Each with its message"),
            table(["what", "stage", "reason", "message"], shown[:MAX_FAILURES], class_="messages"),
            element("p", f"and {count(more)} more", class_="more") if more > 0 else "",
        ]
    )


def _failed_inputs(data: ReportData) -> list[tuple[str, str, str, str]]:
    rows = data.inputs.filter(pc.field("state") == "failed").select(["uri", "reason", "message"]).to_pylist()
    return sorted(("ingest", row["reason"] or "", source_name(row["uri"]), row["message"] or "") for row in rows)


def _failed_stages(data: ReportData) -> list[tuple[str, str, str, str]]:
    names = names_of(data)
    scans = [("scan", group[0].measurements["scans"]) for group in data.scan_groups]
    said = [(row["stage"], row["key"], row["reason"], row["message"]) for row in data.failures.to_pylist()]
    for stage, rows in [("probe", data.videos), *scans]:
        failed = rows.filter(pc.field("status") == "failed").select(["video_id", "reason", "message"]).to_pylist()
        known = {key for said_stage, key, _, _ in said if said_stage == stage}
        said += [
            (stage, row["video_id"], row["reason"], row["message"]) for row in failed if row["video_id"] not in known
        ]
    return sorted((stage, reason or "", names.get(key, key), message or "") for stage, key, reason, message in said)


def buckets(policy: ReportPolicy) -> Markup:
    """Samples, seconds and bytes of each bucket."""
    chosen = selection_of(policy, "clip").filter(pc.field("state") == "selected").select(["subject_id", "bucket"])
    durations = policy.clips.select(["clip_id", "duration_s"])
    joined = chosen.join(durations, "subject_id", "clip_id", join_type="left outer")
    grouped = joined.group_by("bucket").aggregate([([], "count_all"), ("duration_s", "sum")]).to_pylist()
    found = {row["bucket"] or "none": (row["count_all"], row["duration_s_sum"] or 0.0) for row in grouped}
    if not found:
        return element("p", "No clip was selected, so there is no bucket.", class_="quiet")
    most = max(amount for amount, _ in found.values())
    rows = [
        [
            element("code", name),
            stacked([("clips", "kept", amount), ("", "blank", most - amount)]),
            count(amount),
            seconds(length),
            size(policy.bucket_bytes[name]) if name in policy.bucket_bytes else "–",
        ]
        for name, (amount, length) in sorted(found.items())
    ]
    whole = sum(amount for amount, _ in found.values())
    bytes_ = size(sum(policy.bucket_bytes.values())) if policy.bucket_bytes else "–"
    rows.append(
        [element("b", "all"), "", element("b", count(whole)), seconds(sum(s for _, s in found.values())), bytes_]
    )
    return table(["bucket", "", "samples", "video", "in shards"], rows, numeric=[2, 3, 4], class_="buckets")


def run_facts(data: ReportData) -> Markup:
    """What the run did, stage by stage, and every parameter and policy text, folded away."""
    rows = [
        [
            stage.name,
            count(stage.done),
            count(stage.reused),
            count(stage.failed),
            seconds(stage.busy_s),
            element("code", stage.fingerprint),
        ]
        for stage in data.stages
    ]
    head = ["stage", "done", "reused", "failed", "busy", "fingerprint"]
    facts = [element("li", f"{key} ", element("b", value)) for key, value in data.facts.items()]
    return join(
        [
            element("ul", *facts, class_="legend") if facts else "",
            table(head, rows, numeric=[1, 2, 3, 4]) if rows else element("p", "No stage reported.", class_="quiet"),
            *(_parameters(stage) for stage in data.stages if stage.parameters),
            *(
                _fold(
                    f"Policy {one.policy.name}",
                    f"{one.policy.about} Digest {one.policy.digest}.",
                    one.policy.resolved_yaml(),
                )
                for one in data.policies
            ),
        ]
    )


def _parameters(stage: StageRun) -> Markup:
    written = "\n".join(
        f"{key}: {number(value) if isinstance(value, float) else value}"
        for key, value in sorted(stage.parameters.items())
    )
    return _fold(f"Parameters of {stage.name}", "", written)


def _fold(title: str, about: str, lines: str) -> Markup:
    listed = Markup("\n".join(join([line]) for line in lines.splitlines()))
    lead = element("p", about, class_="quiet") if about else None
    return element("details", element("summary", title), lead, element("pre", listed), class_="fold")
