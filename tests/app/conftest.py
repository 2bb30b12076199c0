from collections.abc import Callable
from pathlib import Path

import pytest

from busi_lab.app.desk import Desk
from busi_lab.app.models import Model, load_models
from busi_lab.app.uploads import Upload, open_upload
from busi_lab.app.visits import Visits


@pytest.fixture(scope="session")
def models(trained: dict[str, Path]) -> list[Model]:
    """A joint run and a classifier, side by side."""
    return load_models([trained["joint"], trained["classifier"]], "cpu")


@pytest.fixture
def visits(tmp_path: Path) -> Visits:
    return Visits(tmp_path / "visits", tmp_path / "copies")


@pytest.fixture
def desk(models: list[Model], visits: Visits) -> Desk:
    return Desk(models, visits, None)


@pytest.fixture
def opened(phantom_root: Path) -> Callable[[str], Upload]:
    """Opens a phantom by its class."""

    def open_phantom(label: str) -> Upload:
        path = phantom_root / label / f"{label} (2).png"
        return open_upload(path, path.name)

    return open_phantom
