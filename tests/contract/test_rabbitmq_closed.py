"""However a connection to a RabbitMQ ends, nothing of it is left."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

from tests.contract.proxy import Proxy
from tests.contract.wires import RabbitMQ
from tests.e2e.scripts import wait_until
from tests.unit.listening import connection_to
from transports.base import wait_readable
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.events import Opened


@pytest.fixture
def proxy(rabbitmq_url: str) -> Iterator[Proxy]:
    with Proxy(RabbitMQ(rabbitmq_url).free_addresses(1)[0]) as proxy:
        yield proxy


def connect(rabbitmq_url: str, proxy: Proxy) -> Connection:
    url: str = RabbitMQ(rabbitmq_url).worker("", proxy.address)["url"]
    return connection_to(url)


def opened(connection: Connection) -> bool:
    wait_readable(connection.fileno(), 10)
    return any(isinstance(event, Opened) for event in connection.take())


def sockets_to(address: str) -> int:
    """How many sockets this process has that lead there."""
    port = int(address.rpartition(":")[2])
    held = psutil.Process(os.getpid()).net_connections("tcp4")
    return sum(1 for each in held if each.raddr and each.raddr.port == port)


@pytest.mark.parametrize("what", ["goodbye", "question"])
def test_a_broker_that_answers_no_more_is_hung_up_on_at_the_end(
    rabbitmq_url: str, proxy: Proxy, what: str
) -> None:
    connection = connect(rabbitmq_url, proxy)
    try:
        assert opened(connection)
        held = sockets_to(proxy.address)
        proxy.stall()
        if what == "question":
            connection.declare("never-made", {})
    finally:
        connection.close()
    assert held == 1
    assert sockets_to(proxy.address) == 0


def test_a_connection_that_is_not_yet_made_leaves_nothing(rabbitmq_url: str, proxy: Proxy) -> None:
    proxy.stall()
    connection = connect(rabbitmq_url, proxy)
    try:
        wait_until(lambda: sockets_to(proxy.address), "it connects")
    finally:
        connection.close()
    assert sockets_to(proxy.address) == 0
