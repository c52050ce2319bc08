"""Dagster and the command line: how people and schedules start the work. The work itself is in `pipelines` and `training`."""
