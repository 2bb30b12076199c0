import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing is warned of or printed, whatever is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", category=pytest.PytestUnraisableExceptionWarning)
        yield
    assert capfd.readouterr() == ("", "")
