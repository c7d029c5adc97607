"""The RabbitMQ that is measured: the one that was named, else a private one, started when it is needed."""

from __future__ import annotations

from benchmarks.measure import Failed
from tests.contract.rabbit import HOW, RabbitMQ, server_script


class Broker:
    """A broker for as long as the context lasts."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._server: RabbitMQ | None = None

    def url(self) -> str:
        """Return where it is; start it if it is ours and doesn't run yet.

        Raises:
            Failed: there is none to start.
        """
        if self._url is None:
            script = server_script()
            if script is None:
                raise Failed(f"RabbitMQ: {HOW}; or name one with --rabbitmq URL")
            try:
                self._server = RabbitMQ(script)
            except AssertionError as error:
                raise Failed(f"RabbitMQ: {error}") from error
            self._url = self._server.url
        return self._url

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
