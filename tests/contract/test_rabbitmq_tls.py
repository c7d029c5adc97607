"""A real RabbitMQ over TLS: who it is, is verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trustme

from tests.contract.rabbit import RabbitMQ
from tests.contract.wires import RabbitMQ as RabbitMQWire
from tests.e2e.scripts import Scripts, task

pytestmark = pytest.mark.timeout(120)


def settings(scripts: Scripts, url: str, ca_file: Path | None) -> Path:
    values: dict[str, object] = {"transport": "rabbitmq", "url": url, "heartbeat": 0.3, "temporary": True}
    values["queue"] = RabbitMQWire(url).setting
    if ca_file is not None:
        values["ca_file"] = str(ca_file)
    path = scripts.folder / f"rabbitmq-{len(list(scripts.folder.glob('*.yml')))}.yml"
    path.write_text(json.dumps(values))
    return path


def test_a_run_over_tls(scripts: Scripts, rabbitmq: RabbitMQ) -> None:
    yaml = settings(scripts, rabbitmq.tls_url, rabbitmq.ca_file)
    worker = scripts.worker("--yaml", yaml, "--cores", "1", "--no-pin")
    worker.says("ready on")
    tasks = scripts.tasks(*(task("operator.add", number, 1) for number in range(200)))
    run = ["--tasks", tasks, "--output", "results.jsonl"]
    scripts.run("--yaml", settings(scripts, rabbitmq.tls_url, None), *run, status=2)  # and nothing is spoilt
    scripts.run("--yaml", yaml, *run)
    results = scripts.results()
    assert sorted(result["value"] for result in results) == list(range(1, 201))
    assert {result["status"] for result in results} == {"ok"}


@pytest.mark.parametrize("script", ["dispatcher.py", "worker.py"])
def test_a_broker_that_is_not_who_it_should_be_is_refused_at_once(
    scripts: Scripts, rabbitmq: RabbitMQ, script: str
) -> None:
    other = scripts.folder / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    elsewhere = rabbitmq.tls_url.replace(rabbitmq.host, "localhost")
    plain = rabbitmq.url.replace("amqp:", "amqps:")
    cases = [
        (rabbitmq.tls_url, None, "of an authority that is not known here"),
        (rabbitmq.tls_url, other, "of an authority that is not known here"),
        (elsewhere, rabbitmq.ca_file, "is not valid for 'localhost': write one of its own names in the url"),
        (plain, rabbitmq.ca_file, "it speaks no TLS at this port: RabbitMQ's for amqps:// is 5671"),
    ]
    started = [
        (scripts.start(script, "--yaml", settings(scripts, url, ca_file)), said)
        for url, ca_file, said in cases
    ]
    for refused, said in started:
        assert refused.ends() == 2
        assert said in refused.stderr
        assert refused.stderr.splitlines()[-1].startswith(f"{script}: error: RabbitMQ at amqps://")
        assert "guest" not in refused.stderr
