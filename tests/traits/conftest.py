import pytest

from tests.place import Place
from tests.traits.people import People


@pytest.fixture
def people(place: Place) -> People:
    """A space whose messages are told one by one."""
    return People(place)
