"""The report of a run: one self-contained HTML page (docs/report.md).

data = ReportData(**tables, policies=..., stages=..., out="OUT", date="2026-01-31")
page = build_report(replace(data, keyframes=keyframes_of(shown_clips(data))))
"""

from pipelines.report.data import ReportData, ReportPolicy, StageRun
from pipelines.report.page import build_report
from pipelines.report.sheets import shown_clips

__all__ = ["ReportData", "ReportPolicy", "StageRun", "build_report", "shown_clips"]
