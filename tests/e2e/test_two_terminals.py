"""A worker in one terminal, a dispatcher in the other, and how they find each other."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import tempfile
from pathlib import Path

import pytest
import zmq
from scripts import LIMIT, ROOT, Scripts, task, wait_until

from dispatcher import TASKS
from executor.cores import granted
from tests.contract.rabbit import free_ports

needs_two_cores = pytest.mark.skipif(len(granted().ids) < 2, reason="needs two cores")


# ---- without any option


@needs_two_cores  # the sample tasks want two
def test_worker_first_and_then_one_dispatcher_after_the_other(scripts: Scripts) -> None:
    worker = scripts.worker()
    assert scripts.address in worker.says("ready on core")
    assert scripts.address in worker.says("waiting for a dispatcher")

    first = scripts.run()
    lines = first.stdout.splitlines()
    assert len([line for line in lines if line.startswith("ok ")]) == 8
    assert any("example_compute.compute_flops(1, 2048) = " in line for line in lines)
    assert "8 of 8 tasks done: 8 ok" in lines
    assert any("core-seconds, efficiency" in line and "wall time" in line for line in lines)

    for _ in range(2):
        scripts.run("--tasks", scripts.tasks(task("min", 1, 2)))
    assert not worker.ended
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


@pytest.mark.skipif(len(granted().ids) < 2, reason="needs two cores")
def test_two_terminals_need_no_option(scripts: Scripts) -> None:
    assert {"function": "example_compute.compute_flops", "params": [1, 2048], "resources": 1} in TASKS
    assert {record.get("resources", 1) for record in TASKS} == {1, 2}
    scripts.worker()
    done = scripts.run()
    assert f"\n{len(TASKS)} of {len(TASKS)} tasks done: {len(TASKS)} ok\n" in done.stdout


def test_dispatcher_first(scripts: Scripts) -> None:
    (scripts.folder / "executor.py").write_text("raise SystemExit('a file of the user was taken for ours')")
    shutil.copy(scripts.folder / "executor.py", scripts.folder / "transports.py")
    dispatcher = scripts.dispatcher("--tasks", scripts.tasks(task("min", 2, 1), task("max", 2, 1)))
    assert scripts.address in dispatcher.says("waiting for a worker")
    worker = scripts.worker("--once")
    assert dispatcher.ends() == 0
    assert "min(2, 1) = 1" in dispatcher.stdout
    assert "max(2, 1) = 2" in dispatcher.stdout
    assert worker.ends() == 0


def test_many_workers_share_a_run(scripts: Scripts) -> None:
    workers = [scripts.worker("--cores", "1", "--no-pin", "--name", f"w{n}") for n in range(3)]
    records = [task("jobs.meet", 3, "three") for _ in range(3)]
    scripts.run("--tasks", scripts.tasks(*records), "--output", "results.jsonl")
    assert sorted(result["worker"] for result in scripts.results()) == ["w0", "w1", "w2"]
    assert {result["host"] for result in scripts.results()} == {socket.gethostname()}
    assert not any(worker.ended for worker in workers)


def test_a_second_dispatcher_waits_its_turn_and_says_so(scripts: Scripts) -> None:
    scripts.worker("--cores", "1")
    first = scripts.dispatcher("--tasks", scripts.tasks(task("jobs.hold", "first")), "--output", "1.jsonl")
    wait_until((scripts.folder / "first.runs").exists, "the first run runs")
    records = [task("min", n, 100) for n in range(20)]
    second = scripts.dispatcher("--tasks", scripts.tasks(*records, name="2.jsonl"), "--output", "r2.jsonl")
    said = second.says("another dispatcher")
    assert f"process {first.pid}" in said
    assert scripts.address in said
    assert "waiting" in said
    # A run with workers of its own has an address of its own, and waits for nobody.
    scripts.run("--tasks", scripts.tasks(task("min", 1, 2), name="3.jsonl"), "--workers", "1")
    assert not first.ended
    assert not second.ended

    third = scripts.dispatcher("--tasks", scripts.tasks(task("min", 1), name="4.jsonl"), "--wait", "0.2")
    assert third.ends() == 3
    assert "another dispatcher is still at" in third.stderr

    (scripts.folder / "first.go").touch()
    assert first.ends() == 0
    assert second.ends() == 0
    assert [result["value"] for result in scripts.results("1.jsonl")] == ["first"]
    assert sorted(result["value"] for result in scripts.results("r2.jsonl")) == list(range(20))


def test_a_run_sees_the_code_as_it_lies_on_disk_when_it_starts(scripts: Scripts) -> None:
    scripts.worker("--cores", "2")
    module = scripts.folder / "edited.py"
    records = scripts.tasks(*(task("edited.f", id=str(n)) for n in range(20)))
    for value in ("'once'", "'and again, longer'", "3"):
        module.write_text(f"def f():\n    return {value}\n")
        scripts.run("--tasks", records, "--output", "results.jsonl", "--overwrite")
        assert {str(result["value"]) for result in scripts.results()} == {value.strip("'")}
    module.unlink()
    scripts.run("--tasks", records, "--output", "results.jsonl", "--overwrite", status=1)
    assert {result["status"] for result in scripts.results()} == {"rejected"}


def test_a_dispatcher_that_is_killed_and_another_that_comes(scripts: Scripts) -> None:
    worker = scripts.worker("--cores", "1", "--name", "w")
    records = scripts.tasks(*(task("jobs.hold", "held", id=str(n)) for n in range(5)))
    killed = scripts.dispatcher("--tasks", records, "--output", "killed.jsonl")
    wait_until((scripts.folder / "held.runs").exists, "a task runs")
    killed.kill()
    next_one = scripts.dispatcher("--tasks", scripts.tasks(task("min", 5, 6)), "--output", "results.jsonl")
    (scripts.folder / "held.go").touch()
    assert next_one.ends() == 0
    # What was left of the first run is not recorded by the second.
    assert [result["function"] for result in scripts.results()] == ["min"]
    assert scripts.results("killed.jsonl") == []
    assert "is left" in worker.says("is left")


def test_a_worker_hears_at_once_that_a_run_is_over(scripts: Scripts) -> None:
    """What a closing socket sent last may get lost; then it would wait for as long as its patience."""
    address = f"unix:{scripts.runtime}/w"
    (scripts.folder / "wire.yml").write_text(f"address: {address}\npatience: {4 * LIMIT:g}\n")
    workers = [scripts.worker("--yaml", "wire.yml", "--cores", "1", "--no-pin") for _ in range(2)]
    for run in range(1, 6):
        records = scripts.tasks(*(task("jobs.meet", 2, str(run)) for _ in workers))  # both take part
        scripts.run("--yaml", "wire.yml", "--tasks", records)
        for worker in workers:
            wait_until(lambda w=worker, run=run: w.stderr.count(" is over; 1 result sent") == run)  # type: ignore[misc]
            assert "is left" not in worker.stderr


# ---- where they meet


def test_without_a_runtime_folder_they_meet_in_the_temporary_one(scripts: Scripts) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="fe-tmp-", dir="/tmp"))
    environment = {"XDG_RUNTIME_DIR": None, "TMPDIR": str(temporary)}
    try:
        worker = scripts.worker("--once", environment=environment)
        scripts.run("--tasks", scripts.tasks(task("min", 1, 2)), environment=environment)
        assert worker.ends() == 0
        folder = temporary / f"function-executor-{os.getuid()}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert f"unix:{folder}/zmq" in worker.stderr
    finally:
        shutil.rmtree(temporary)


@pytest.mark.parametrize("script", ["worker.py", "dispatcher.py"])
def test_a_folder_that_others_may_enter_is_refused(scripts: Scripts, script: str) -> None:
    folder = scripts.runtime / "function-executor"
    folder.mkdir()
    folder.chmod(0o755)
    refused = scripts.start(script)
    assert refused.ends() == 2
    assert refused.stderr == f"{script}: error: {folder}: others may enter it; type: chmod 700 {folder}\n"


def test_a_path_too_long_for_a_socket_is_refused(scripts: Scripts) -> None:
    folder = scripts.folder / ("x" * 100)
    folder.mkdir()
    refused = scripts.worker(environment={"XDG_RUNTIME_DIR": str(folder)})
    assert refused.ends() == 2
    assert "too long for a socket" in refused.stderr
    assert refused.stderr.count("\n") == 1


# ---- the wire's YAML


@pytest.mark.parametrize("option", ["--yaml", "--yamll"])
def test_over_tcp_by_the_yaml_file_that_lies_ready(scripts: Scripts, option: str) -> None:
    (port,) = free_ports(1)
    text = (ROOT / "zmq.yml").read_text()
    assert text.count("127.0.0.1:5555") == 1
    (scripts.folder / "zmq.yml").write_text(text.replace("127.0.0.1:5555", f"127.0.0.1:{port}"))
    worker = scripts.worker(option, "zmq.yml", "--once")
    tasks = scripts.tasks(task("min", 1, 2), task("jobs.ones", 1000, 100), name="t.jsonl")
    scripts.run(option, "zmq.yml", "--tasks", tasks, "--output", "results.jsonl")
    assert [result["status"] for result in scripts.results()] == ["ok", "ok"]
    assert worker.ends() == 0
    assert f"tcp://127.0.0.1:{port}" in worker.stderr


def test_an_address_on_the_command_line_overrides_the_file(scripts: Scripts) -> None:
    (scripts.folder / "zmq.yml").write_text("transport: zmq\naddress: tcp://127.0.0.1:9\n")
    address = f"unix:{scripts.runtime}/own"
    worker = scripts.worker("--yaml", "zmq.yml", "--address", address, "--once")
    dispatcher = scripts.dispatcher("--address", address, "--tasks", scripts.tasks(task("min", 1, 2)))
    assert dispatcher.ends() == 0
    assert worker.ends() == 0


def test_a_port_that_is_taken_is_refused(scripts: Scripts) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        refused = scripts.dispatcher("--address", address)
        assert refused.ends() == 2
    assert refused.stderr.splitlines()[0] == (
        f"dispatcher.py: error: can't listen on {address}: another process listens there"
    )


def test_a_file_in_a_sockets_place_is_refused_and_stays(scripts: Scripts) -> None:
    """ZeroMQ would delete it."""
    (scripts.folder / "precious").write_text("data")
    refused = scripts.dispatcher("--address", "unix:precious")
    assert refused.ends() == 2
    assert refused.stderr == (
        f"dispatcher.py: error: can't listen on unix:{scripts.folder}/precious: "
        "there is no socket there but something else\n"
    )
    assert (scripts.folder / "precious").read_text() == "data"


def test_over_ipv6(scripts: Scripts) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("has no IPv6")
    address = f"tcp://[::1]:{free_ports(1)[0]}"
    worker = scripts.worker("--address", address, "--once")
    scripts.run("--address", address, "--tasks", scripts.tasks(task("min", 1, 2)))
    assert worker.ends() == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "transport: zmq\nadress: tcp://h:1",
            "wire.yml: adress: unknown key for transport zmq; did you mean address?",
        ),
        ("transport: zmp", "wire.yml: transport: unknown transport 'zmp'; known are "),
        ("transport: [zmq]", "wire.yml: transport: "),
        ("transport: no_such_module:Class", "no_such_module"),
        ("transport: os:nothing", "os has no nothing"),
        ("transport: os:path", "path is not a subclass of transports.base.Transport"),
        ("transport: ':Class'", "wire.yml: transport: "),
        ("transport: .x:Class", "wire.yml: transport: "),
        ("heartbeat: often", "wire.yml: heartbeat: expected a number"),
        ("heartbeat: 3\npatience: 4", "wire.yml: patience: must be at least twice the heartbeat"),
        ("heartbeat: .inf\npatience: .inf", "wire.yml: heartbeat: "),
        ("heartbeat: 0", "wire.yml: heartbeat: "),
        ("address: 5555", "wire.yml: address: expected a text"),
        ("address: localhost:5555", "localhost:5555"),
        ("address: tcp://127.0.0.1:port", "tcp://127.0.0.1:port"),
        (
            "address: tcp://127.0.0.1:65536",
            "wire.yml: address: 'tcp://127.0.0.1:65536': write tcp://host:port",
        ),
        ("address: tcp://127.0.0.1", "wire.yml: address: 'tcp://127.0.0.1': write tcp://host:port"),
        ("bind: 'unix:'", "wire.yml: bind: 'unix:': write tcp://host:port, or unix:/path"),
        ("- zmq", "wire.yml: must hold keys and values"),
        ("a: [", "wire.yml"),
        (None, "wire.yml"),
    ],
)
def test_a_mistake_in_the_yaml_is_one_line_and_exit_2(scripts: Scripts, text: str | None, says: str) -> None:
    if text is not None:
        (scripts.folder / "wire.yml").write_text(text)
    worker = scripts.worker("--yaml", "wire.yml")
    assert worker.ends() == 2
    [line] = worker.stderr.splitlines()
    assert line.startswith("worker.py: error: ")
    assert says in line
    assert worker.stdout == ""


def test_the_dispatcher_finds_the_same_mistakes(scripts: Scripts) -> None:
    (scripts.folder / "wire.yml").write_text("transport: zmp")
    dispatcher = scripts.run("--yaml", "wire.yml", "--output", "results.jsonl", status=2)
    assert dispatcher.stderr.startswith("dispatcher.py: error: wire.yml: transport: unknown transport 'zmp'")
    assert dispatcher.stderr.count("\n") == 1
    assert not (scripts.folder / "results.jsonl").exists()


# ---- strangers


def test_a_strangers_frames_do_no_harm(scripts: Scripts) -> None:
    import msgspec

    dispatcher = scripts.dispatcher(
        "--tasks",
        scripts.tasks(*(task("operator.add", n, n) for n in range(200))),
        "--output",
        "results.jsonl",
    )
    dispatcher.says("waiting for a worker")
    pack = msgspec.msgpack.encode
    frames = [
        [b""], [b"", b""], [b"\xc1"], [b"GET / HTTP/1.1"], [os.urandom(5000)], [b"\x91" * 100_000],
        [pack(["hello"])], [pack(["hello", 1, "x", "y", "z", 1, -1])], [pack(["tasks", "run", []])],
        [pack(["reports", "run", 1, [[0, 1, "ok", None]]])], [pack(["returned", "run", [0, 1, 2]])],
        [pack(["beat"])], [pack(["leaving"])], [pack(["nothing of ours", 1])], [pack(3), b"x" * 1_000_000],
    ]  # fmt: skip
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(scripts.address.replace("unix:", "ipc://"))
        for frame in frames:
            stranger.send_multipart(frame)
        dispatcher.says("ignored a stranger's frame")
        with context.socket(zmq.DEALER) as old:
            old.linger = 0
            old.connect(stranger.last_endpoint)
            old.send(pack(["hello", 99, "old", "older", "host", 1, 1]))
            dispatcher.says("refused worker older on host: it speaks protocol 99")
            assert b"refused" in old.recv()
        worker = scripts.worker("--once")
        for frame in frames:
            stranger.send_multipart(frame)
        assert dispatcher.ends(LIMIT) == 0
    assert sorted(result["value"] for result in scripts.results()) == [2 * n for n in range(200)]
    assert dispatcher.stderr.count("ignored a stranger's frame") == 1
    assert "Traceback" not in dispatcher.stderr
    assert worker.ends() == 0
