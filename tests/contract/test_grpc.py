"""What is special to gRPC."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from executor import keys
from executor.certificates import Identity
from executor.messages import introduce
from tests.contract.ends import Gathered, Place, StandIn, tasks
from tests.contract.wires import Served
from tests.e2e.scripts import wait_until
from transports import grpc as link
from transports.grpc_wire import frames_pb2, frames_pb2_grpc

pytestmark = pytest.mark.timeout(60)

WIRE = Served("grpc")
ROOT = Path(__file__).parents[2]
CODE = ["transports/grpc_wire/frames_pb2.py", "transports/grpc_wire/frames_pb2_grpc.py"]


def health_of(address: str, service: str = "", identity: Identity | None = None) -> str:
    with link._channel(address, identity) as channel:
        question = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(question, timeout=30)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


@pytest.mark.parametrize("service", ["", "function_executor.v1.Worker"])
@pytest.mark.parametrize("insecure", [False, True])
def test_the_health_service_says_when_a_worker_drains(service: str, insecure: bool) -> None:
    place = Place(WIRE, insecure=insecure)
    identity = None if insecure else Identity(keys.load(keys.place()), "dispatcher")
    with place.worker_end(introduce("worker", 1)) as end:
        assert health_of(place.listen[0], service, identity) == "SERVING"
        end.drain()
        assert health_of(place.listen[0], service, identity) == "NOT_SERVING"


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    place = Place(WIRE)
    with place.dispatcher_end() as end, StandIn(place):
        assert len(Gathered(end, tasks(3)).all()) == 3


def test_messages_beyond_four_mebibytes_are_taken() -> None:
    place = Place(WIRE, insecure=True)
    with (
        place.worker_end(introduce("worker", 1)) as end,
        grpc.insecure_channel(place.listen[0], options=[("grpc.max_send_message_length", -1)]) as channel,
    ):
        stub: Any = frames_pb2_grpc.WorkerStub(channel)
        piece = frames_pb2.Piece(parts=[b"x" * (6 << 20)], last=True)
        call = stub.Talk(
            iter([frames_pb2.Pieces(pieces=[piece])]), metadata=[("dispatcher", "0123456789abcdef")]
        )
        events: list[Any] = []
        wait_until(lambda: events.extend(end._link.receive()) or len(events) > 1, "a frame")
        assert events[1].parts == [b"x" * (6 << 20)]
        call.cancel()


@pytest.mark.parametrize("metadata", [[], [("dispatcher", "../../etc")]])
def test_a_caller_without_a_name_is_refused(metadata: list[tuple[str, str]]) -> None:
    place = Place(WIRE, insecure=True)
    said: list[str] = []
    with place.worker_end(introduce("worker", 1), say=said.append) as end:
        with grpc.insecure_channel(place.listen[0]) as channel:
            stub: Any = frames_pb2_grpc.WorkerStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Talk(iter([]), metadata=metadata, timeout=10))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        end.pull(0.1)
    assert ["stranger" in line for line in said] == [False, True]  # the first is that it is insecure


def test_who_listens_and_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control calls have a deadline, so a stuck process on the port keeps nobody."""
    monkeypatch.setattr("transports.grpc._HEALTH_DEADLINE", 0.3)
    place = Place(WIRE)
    host, _, port = place.listen[0].rpartition(":")
    said: list[str] = []
    with socket.create_server((host, int(port))), place.dispatcher_end(said.append) as end:
        gathered = Gathered(end, tasks(1))
        gathered.until(lambda: said, "that nobody answers")
    assert said[0].startswith(f"{place.listen[0]}: deadline exceeded")


def test_a_server_permits_the_pings_that_a_client_sends() -> None:
    """Else it would hang up with too_many_pings, by default after the second within five minutes."""
    client, server = dict(link._CHANNEL_OPTIONS), dict(link._SERVER_OPTIONS)
    often = server["grpc.http2.min_ping_interval_without_data_ms"]
    assert client["grpc.keepalive_time_ms"] >= 2 * often
    assert server["grpc.keepalive_permit_without_calls"] == 1
    assert server["grpc.keepalive_time_ms"] >= 10_000  # gRPC's own least


@pytest.mark.parametrize(
    ("insecure", "says"), [(True, ": unimplemented"), (False, " doesn't answer as a worker of ours does")]
)
def test_another_grpc_server_is_said(insecure: bool, says: str) -> None:
    place = Place(WIRE, insecure=insecure)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(place.listen[0])
    server.start()
    said: list[str] = []
    with place.dispatcher_end(said.append) as end:
        gathered = Gathered(end, tasks(1))
        gathered.until(lambda: len(said) > insecure, "what listens there")
    server.stop(None).wait()
    assert said[-1].startswith(f"{place.listen[0]}{says}")


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    """What frames.proto says is what the code holds; and, by the generator that made it, letter by letter."""
    (tmp_path / "transports" / "grpc_wire").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "transports.grpc_wire", str(tmp_path)], cwd=ROOT, check=True)
    kept, made = ([(folder / path).read_text() for path in CODE] for folder in (ROOT, tmp_path))

    def descriptor(code: str) -> str:
        return next(line for line in code.splitlines() if line.startswith("DESCRIPTOR = "))

    assert descriptor(made[0]) == descriptor(kept[0])
    if f"GRPC_GENERATED_VERSION = '{version('grpcio-tools')}'" in kept[1]:
        assert made == kept


@pytest.mark.parametrize("wire", ["zmq", "grpc", "rpyc"])
def test_a_library_is_loaded_only_for_its_own_wire(wire: str) -> None:
    code = f"import sys, transports, executor.gather, worker; transports.load({wire!r}); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"zmq", "grpc", "rpyc"} & set(loaded) == {wire}
