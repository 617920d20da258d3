"""Serving simulators on loopback: one server, one path per account.

    python -m personas_dagster.simulators --port 8090 braze iterable

What belongs here: uvicorn. It is imported when a server starts, not before.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

from personas_dagster.simulators.base import Receive, Scope, Send, Simulator


class Accounts:
    """The application: `/NAME/...` goes to the account of that name. Accounts may come and go."""

    def __init__(self, accounts: Mapping[str, Simulator] | None = None) -> None:
        self.accounts = dict(accounts or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope.get("path", "").split("/")[1:2]
        account = self.accounts.get(name[0]) if name else None
        if account is None:
            await _not_here(scope, send)
            return
        await account({**scope, "root_path": f"/{name[0]}"}, receive, send)


async def _not_here(scope: Scope, send: Send) -> None:
    if scope["type"] == "http":
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def server(app: Any) -> Any:
    """A uvicorn server of an application, whose connections can be cut."""
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        app_state: dict[str, Any]

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.app_state = {**self.app_state, "transport": transport}

    config = uvicorn.Config(
        app,
        http=Protocol,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        date_header=False,  # simulators that speak of instants say their own
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


class Served:
    """Accounts behind a server in a thread of its own, to be used in a `with` block.

    >>> with Served() as served:  # doctest: +SKIP
    ...     url = served.add("mine", Braze())
    """

    def __init__(self, accounts: Mapping[str, Simulator] | None = None, *, port: int = 0) -> None:
        self._accounts = Accounts(accounts)
        self._port = port
        self._socket: socket.socket | None = None

    @property
    def url(self) -> str:
        if self._socket is None:
            raise RuntimeError("not served: `with Served(...) as served:`")
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def add(self, name: str, account: Simulator) -> str:
        """Serve an account under a name, instead of any other there; its address."""
        self._accounts.accounts[name] = account
        return f"{self.url}/{name}"

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", self._port), backlog=256)
        self._server = server(self._accounts)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the simulators' server did not start")
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        if self._socket is not None:
            self._socket.close()
        self._socket = None
