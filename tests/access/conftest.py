from tests.state.conftest import open_state, state, state_url

__all__ = ["open_state", "state", "state_url"]
