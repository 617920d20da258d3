import pytest

from tests.cli.running import Personas
from tests.place import Place


@pytest.fixture
def personas(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Personas:
    """`personas` in the folder of a small project."""
    monkeypatch.setenv("COLUMNS", "200")
    return Personas(place.root, monkeypatch, capfd)
