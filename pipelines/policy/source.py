"""The text of a policy: which file a name means, YAML without repeated keys, lines for messages, `--set` overrides.

What belongs here: everything between a command line and a nested dictionary. What the keys must hold is `loading.py`.
"""

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from pipelines.policy.schema import PolicyError

KeyPath = tuple[str, ...]
TOP_KEYS = ("name", "about", "scan", "gates", "quotas", "buckets", "export", "shards")


@dataclass(frozen=True)
class Source:
    """Where a policy's keys were written, so that a message can point at the place."""

    file: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)

    def error(self, path: KeyPath, message: str) -> PolicyError:
        """`message` with the override or the file, line and key that it is about."""
        key = ".".join(path)
        for given, text in reversed(list(self.overrides.items())):
            if given[: len(path)] == path or path[: len(given)] == given:
                return PolicyError(f"{self.file}, --set {text}: {key}: {message}")
        for depth in range(len(path), -1, -1):
            if path[:depth] in self.lines:
                return PolicyError(f"{self.file}:{self.lines[path[:depth]]}: {key}: {message}")
        return PolicyError(f"{self.file}: {key}: {message}")


def shipped_policies() -> list[str]:
    """Names of the policies that come with Reelmill."""
    folder = files("pipelines") / "policies"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_source(name_or_path: str, overrides: Sequence[str] = ()) -> tuple[Mapping[str, Any], Source]:
    """The nested dictionary of a policy with its overrides applied, and where each key stands.

    Raises:
        PolicyError: no such policy, unreadable or bad YAML, a repeated key, or an override that names nothing.
    """
    file, text = _read(name_or_path)
    raw, source = _parse(file, text)
    for override in overrides:
        raw, source = _override(raw, source, override)
    return raw, source


def suggest(given: object, known: Sequence[str]) -> str:
    """'; did you mean ...?' if something is near, else '; known are ...'."""
    near = difflib.get_close_matches(str(given), known, n=3, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(map(repr, near)) + "?"
    return "; known are " + ", ".join(known)


def _read(name_or_path: str) -> tuple[str, str]:
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        known = shipped_policies()
        if name_or_path not in known:
            hint = suggest(name_or_path, known)
            raise PolicyError(f"no policy is called {name_or_path!r}{hint} (a file of your own: give its path, .yaml)")
        resource = files("pipelines") / "policies" / f"{name_or_path}.yaml"
        return f"{name_or_path}.yaml", resource.read_text(encoding="utf-8")
    try:
        return str(path), path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = f"shipped policies are {', '.join(shipped_policies())}"
        raise PolicyError(f"{path}: cannot read this policy ({error}); {hint}") from error


def _parse(file: str, text: str) -> tuple[Mapping[str, Any], Source]:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {(): 1}
        if node is not None:
            _walk(node, (), lines, file)
        raw = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"{file}{_place(error)}: this is no YAML: {_problem(error)}") from error
    finally:
        loader.dispose()
    if not isinstance(raw, dict):
        raise PolicyError(f"{file}: expected a mapping with the keys {', '.join(TOP_KEYS)}, got {_kind(raw)}")
    return raw, Source(file, lines)


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: str) -> None:
    """Notes the line of every key; refuses a key that stands twice, of which YAML would silently keep the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        key = (*path, str(key_node.value))
        line = key_node.start_mark.line + 1
        if key in lines:
            raise PolicyError(
                f"{file}:{line}: {'.'.join(key)}: this key stands twice, first in line {lines[key]}; remove one"
            )
        lines[key] = line
        _walk(value_node, key, lines, file)


def _override(raw: Mapping[str, Any], source: Source, override: str) -> tuple[Mapping[str, Any], Source]:
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise PolicyError(f"--set {override}: expected KEY=VALUE, such as gates.motion.min=1.5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PolicyError(f"--set {override}: the value is no YAML: {_problem(error)}") from error
    source = Source(source.file, source.lines, {**source.overrides, path: override})
    return _replaced(raw, path, 0, value, source), source


def _replaced(node: Any, path: KeyPath, depth: int, value: object, source: Source) -> Any:
    """`node` with the value at `path[depth:]` replaced; missing sections are made, but a gate must exist."""
    if depth == len(path):
        return value
    here = path[: depth + 1]
    if node is None:
        node = {}
    if not isinstance(node, Mapping):
        raise source.error(here, f"{'.'.join(path[:depth])} holds {_kind(node)}, nothing inside it can be set")
    known: Sequence[Hashable] = TOP_KEYS if depth == 0 else list(node)
    if path[depth] not in known and (depth == 0 or path[:depth] == ("gates",)):
        what = "key" if depth == 0 else "gate"
        raise source.error(here, f"no such {what}{suggest(path[depth], [str(name) for name in known])}")
    child = _replaced(node.get(path[depth]), path, depth + 1, value, source)
    return {**node, path[depth]: child}


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f":{mark.line + 1}"


def _problem(error: Exception) -> str:
    """What the parser objects to, on one line."""
    return str(getattr(error, "problem", None) or " ".join(str(error).split()))


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r}"[:80]
