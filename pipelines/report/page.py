"""The report: one HTML page that needs nothing else.

What belongs here: the order of the page and the frame around it. It makes no request and holds no reference to another file;
its security policy allows exactly its own style sheet and its own script, by digest, and pictures as data. The script only adds
comfort (filter, enlarge, copy); everything can be read without it.
"""

import hashlib
from base64 import b64encode
from importlib.resources import files

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.policy import Gate
from pipelines.report import accounts
from pipelines.report.charts import category_bars, histogram_chart
from pipelines.report.data import ReportData, ReportPolicy
from pipelines.report.figures import Step, decisions_of, histogram, selection_of, steps
from pipelines.report.filmstrips import filmstrips
from pipelines.report.markup import Markup, count, counted, element, join, number, rule, share
from pipelines.report.pictures import choose, library
from pipelines.report.sheets import plan, sheet_markup, shelf
from pipelines.report.strips import flow

MAX_CATEGORIES = 12


def build_report(data: ReportData) -> str:
    """The whole page. Equal data gives equal text; nothing is read but the tables and this package's style and script."""
    sheets = plan(data)
    pictures = choose(
        [[entry.subject_id for entry in sheet.entries] for sheet in sheets if sheet.subject_kind == "clip"],
        [policy.keyframes for policy in data.policies],
    )
    facts = shelf(data, sheets, pictures)
    parts = [_header(data)]
    for policy in data.policies:
        own = [
            sheet_markup(sheet, facts, is_open=not sheet.gate or len(data.policies) == 1)
            for sheet in sheets
            if sheet.policy == policy.policy.name
        ]
        parts.append(_policy(data, policy, own))
    parts += [
        _section("videos", "Video by video", filmstrips(data)),
        _section("failures", "What failed", accounts.failures(data)),
    ]
    parts.append(_section("run", "The run", accounts.run_facts(data)))
    return _document(data, join([library(pictures), _navigation(data), element("main", *parts)]))


def _document(data: ReportData, body: Markup) -> str:
    style, script = (files("pipelines.report").joinpath(name).read_text("utf-8") for name in ("style.css", "page.js"))
    allowed = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'{_digest(style)}'",
        "script-src": f"'{_digest(script)}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{key} {value}" for key, value in allowed.items())
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=Markup(policy)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"Reelmill report: {data.out}"),
        element("style", Markup(style)),
    )
    page = element("html", head, element("body", body, element("script", Markup(script))), lang="en")
    return f"<!doctype html>\n{page}\n"


def _digest(content: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")


def _anchor(policy: ReportPolicy) -> str:
    """An identifier for a policy's section; a name may hold anything."""
    return "policy-" + hashlib.sha256(policy.policy.name.encode()).hexdigest()[:8]


def _navigation(data: ReportData) -> Markup:
    links = [("top", "Overview"), *((_anchor(policy), policy.policy.name) for policy in data.policies)]
    links += [("videos", "Videos"), ("failures", "Failures"), ("run", "Run")]
    search = element(
        "input",
        type="search",
        id="filter",
        placeholder="filter by name or id",
        aria_label="Filter by name or id",
        hidden=True,
    )
    return element(
        "nav", element("strong", "Reelmill"), *(element("a", label, href=f"#{to}") for to, label in links), search
    )


def _section(anchor: str, title: str, *content: object) -> Markup:
    return element("section", element("h2", title), *content, id=anchor, class_="part")


def _header(data: ReportData) -> Markup:
    where = [element("code", data.out)] + ([f" · {data.date}"] if data.date else [])
    return element(
        "header",
        element("p", *where, class_="quiet eyebrow"),
        element("h1", "What became of the reels"),
        element("p", _sentence(data), class_="lead"),
        accounts.key_figures(data),
        element("h3", "Where everything ended"),
        accounts.states(data),
        id="top",
    )


def _sentence(data: ReportData) -> str:
    if not data.inputs.num_rows:
        return "No input was given, so there is nothing to show yet."
    readable = data.videos.filter(pc.field("status") == "ok").num_rows
    first = f"Of {counted(data.inputs.num_rows, 'input')}, {counted(readable, 'distinct video')} could be read"
    kept = [
        f"{one.policy.name} keeps {count(_kept(one))} of {counted(one.clips.num_rows, 'clip')}" for one in data.policies
    ]
    return f"{first}. Policy {', '.join(kept)}." if kept else f"{first}."


def _kept(policy: ReportPolicy) -> int:
    return selection_of(policy, "clip").filter(pc.field("state") == "selected").num_rows


def _policy(data: ReportData, policy: ReportPolicy, sheets: list[Markup]) -> Markup:
    gates = [*policy.policy.video_gates, *policy.policy.clip_gates]
    measured = [drawn for drawn in (_measurement(policy, gate) for gate in gates) if drawn]
    empty = element("p", "No gate has judged anything.", class_="quiet")
    return _section(
        _anchor(policy),
        f"Policy {policy.policy.name}",
        element("p", policy.policy.about, class_="lead") if policy.policy.about else None,
        element("h3", "The funnel"),
        _LEGEND,
        element("div", _funnel(policy, "video"), _funnel(policy, "clip"), class_="funnels"),
        element("h3", "Measurements and thresholds"),
        element(
            "p",
            "Every score that a gate judged, also of what another gate had already turned away. The triangle marks the median.",
            class_="quiet",
        ),
        element("div", *measured, class_="charts") if measured else empty,
        element("h3", "Buckets"),
        accounts.buckets(policy),
        element("h3", "Contact sheets"),
        element("p", "First, middle and last keyframe; those nearest to a threshold come first.", class_="quiet"),
        *sheets,
    )


_LEGEND = element(
    "ul",
    element("li", element("i", class_="key kept"), "goes on"),
    element("li", element("i", class_="key rejected"), "rejected by its score"),
    element("li", element("i", class_="key failed"), "could not be measured"),
    class_="legend",
)


def _funnel(policy: ReportPolicy, subject_kind: str) -> Markup:
    found = steps(policy, subject_kind)
    whole = selection_of(policy, subject_kind).num_rows
    last = found[-1].left if found else whole
    goal = "selected" if subject_kind == "clip" else "yielded clips"
    rows = [_step(step, whole) for step in found]
    return element(
        "div",
        element("h4", f"{subject_kind.capitalize()}s ", element("span", f"{count(whole)} came in", class_="amount")),
        element("div", *rows, class_="funnel"),
        element("p", element("b", count(last)), f" {goal}, {share(last, whole)}", class_="funnel-end"),
        class_=f"{subject_kind}s",
    )


_STEP_MEANINGS = {
    "probe": "the file opens and demuxes",
    "scan": "the video decodes",
    "clips": "a clip comes of it",
    "source": "its video goes on",
    "bucket": "a bucket takes it",
    "orientation": "the mix of landscape and portrait",
}

_STOP_WORDS = {"clips": "without a clip", "source": "of a stopped video"}


def _step(step: Step, whole: int) -> Markup:
    stopped = step.entered - step.left
    notes = [f"−{count(step.rejected)} {_STOP_WORDS.get(step.name, 'rejected')}"] if step.rejected else []
    notes += [f"−{count(step.errors)} failed"] if step.errors else []
    notes += [share(stopped, step.entered)] if stopped else []
    notes += [f"only here: {count(step.alone)}"] if step.gate and step.alone else []
    notes += [f"{count(step.excused)} passed unmeasured"] if step.excused else []
    meaning = f"{step.gate.field} {rule(step.gate.threshold)}" if step.gate else _STEP_MEANINGS.get(step.name, "")
    return element(
        "div",
        element("div", element("b", step.name), element("span", meaning, class_="rule"), class_="gate"),
        flow(step, whole),
        element(
            "div",
            element("b", count(step.left)),
            element("span", f" of {count(step.entered)}", class_="quiet"),
            class_="left",
        ),
        element("div", " · ".join(notes), class_="notes quiet"),
        class_="step" if stopped else "step calm",
    )


def _measurement(policy: ReportPolicy, gate: Gate) -> Markup | None:
    """One gate's chart with its facts; None if the gate never spoke."""
    said = decisions_of(policy, gate.name)
    if not said.num_rows:
        return None
    figure = histogram(said, gate)
    rejected = said.filter(pc.field("verdict") == "reject").num_rows
    failed = said.filter(pc.field("cause") == "error").num_rows
    facts = [counted(said.num_rows, "video" if gate.is_video_gate else "clip")]
    facts += [f"{count(rejected)} rejected ({share(rejected, said.num_rows)})" if rejected else "none rejected"]
    facts += [f"median {number(figure.median)}"] if figure else []
    facts += ["log"] if figure and figure.is_log else []
    what = {"reject": "rejected", "pass": "passed"}[gate.on_failure]
    failure = element("p", f"{count(failed)} not measured, {what}", class_="not-measured") if failed else None
    meanings = {name: about for name, _, about in gate.table.columns}
    title = element("h4", gate.name, " ", element("span", f"{gate.column} {rule(gate.threshold)}", class_="rule"))
    return element(
        "figure",
        element("figcaption", title, element("p", gate.about or meanings[gate.field], class_="quiet")),
        histogram_chart(figure, gate) if figure else _categories(said),
        element("p", " · ".join(facts), class_="facts"),
        failure,
        class_="measurement",
    )


def _categories(said: pa.Table) -> Markup:
    """Bars for a gate that judges words; an absent value has none."""
    known = said.filter(pc.is_valid(said["value"]))
    amounts: dict[str, list[int]] = {}
    for row in known.group_by(["value", "verdict"]).aggregate([([], "count_all")]).to_pylist():
        amounts.setdefault(row["value"], [0, 0])[row["verdict"] == "reject"] += row["count_all"]
    ranked = sorted(
        ((name, pair[0], pair[1]) for name, pair in amounts.items()), key=lambda row: (-row[1] - row[2], row[0])
    )
    hidden = len(ranked) - MAX_CATEGORIES
    more = element("p", f"and {counted(hidden, 'more value')}", class_="more") if hidden > 0 else ""
    return join([category_bars(ranked[:MAX_CATEGORIES]), more])
