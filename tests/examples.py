"""How many examples a property is tried on; with `--hypothesis-profile nightly`, ten times more."""

from hypothesis import settings

NIGHTLY = 10


def register() -> None:
    """How long one example takes says how busy the machine is, so there is no deadline."""
    settings.register_profile("default", deadline=None, max_examples=100)
    settings.register_profile("nightly", deadline=None, max_examples=100 * NIGHTLY)
    settings.load_profile("default")


def examples(usually: int) -> int:
    """The count for a test whose examples are dearer, or cheaper, than most."""
    return usually * (NIGHTLY if settings.get_current_profile_name() == "nightly" else 1)
