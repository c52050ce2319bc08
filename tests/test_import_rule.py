"""The rooms and who may import whom (docs/architecture.md), held against the syntax trees."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("pipelines", "models", "training", "orchestration")
MAY_IMPORT = {
    "pipelines": {"pipelines"},
    "models": {"models"},
    "training": {"training", "models", "pipelines.shards"},
    "orchestration": {"orchestration", "training", "pipelines"},
}
# The sandbox child opens media: torchvision beside PyAV's frame threads hangs, and start-up time is paid per child.
CHILD_MODULES = {"av", "cv2", "numpy", "pyarrow", "scenedetect"}


def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                names.append("." * node.level + (node.module or ""))
            else:
                names.append(node.module or "")
    return names


def allowed(name: str, room: str) -> bool:
    if name.split(".", maxsplit=1)[0] not in ROOMS:
        return True
    return any(name == ok or name.startswith(ok + ".") for ok in MAY_IMPORT[room])


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_architecture_allows(room: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for name in imports(path)
        if not allowed(name, room)
    ]
    assert not broken, "\n".join(broken)


def test_only_orchestration_knows_dagster() -> None:
    broken = [
        str(path.relative_to(ROOT))
        for room in ("pipelines", "models", "training")
        for path in (ROOT / room).rglob("*.py")
        if any(name.split(".")[0] == "dagster" for name in imports(path))
    ]
    assert not broken


def test_only_pipelines_video_opens_media() -> None:
    broken = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if "av" in {name.split(".")[0] for name in imports(path)} and "pipelines/video" not in str(path)
    ]
    assert not broken


def test_what_runs_in_the_sandbox_child_imports_nothing_heavy() -> None:
    import sys

    broken = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "pipelines/video").rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] not in CHILD_MODULES | set(sys.stdlib_module_names) | {"pipelines", ""}
    ]
    assert not broken, "\n".join(broken)
