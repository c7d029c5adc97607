"""The sbatch script of the README, line by line as it stands there, on one machine.

Slurm's variables are set, and on PATH stand in for its commands: `scontrol`, which names two nodes that are
both this one, and `srun`, which starts a command once for each node and hands signals on.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from scripts import ROOT, Script, Scripts, task, wait_until

SCONTROL = """\
#!/bin/bash
[ "$*" = "show hostnames node[1-2]" ] || exit 9
echo localhost
echo localhost
"""

SRUN = """\
#!/bin/bash
stopped=
trap 'stopped=1; kill $(jobs -p) 2>/dev/null' TERM
for node in 1 2; do
    SLURM_NODEID=$node SLURM_CPUS_PER_TASK=$SRUN_CPUS_PER_TASK "$@" &
done
[ -z "$stopped" ] || kill $(jobs -p)
while [ -n "$(jobs -rp)" ]; do wait; done
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def submit(scripts: Scripts, number: int) -> Script:
    """Do what sbatch does with the script of the README."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    [text] = [block for block in blocks if "#SBATCH" in block]
    home, bin_ = scripts.runtime / "home", scripts.runtime / "bin"
    program(bin_ / "scontrol", SCONTROL)
    program(bin_ / "srun", SRUN)
    program(home / "job.sh", text)
    program(
        home / "function-executor" / ".venv" / "bin" / "python",
        f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n',
    )
    for name in ("worker.py", "dispatcher.py"):
        (home / "function-executor" / name).symlink_to(ROOT / name)
    environment = {
        **scripts.environment,
        "HOME": str(home),
        "PATH": f"{bin_}:{scripts.environment['PATH']}",
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_SUBMIT_DIR": str(scripts.folder),
    }
    return scripts.adopt(Script("sbatch", [str(home / "job.sh")], home, environment, scripts.logs, b""))


@pytest.fixture
def number() -> int:
    """A job's number whose port is free."""
    import socket

    for number in range(4_100_000, 4_101_000):
        with socket.socket() as probe:
            try:
                probe.bind(("", 20000 + number % 10000))
            except OSError:
                continue
            return number
    raise AssertionError("no port is free")


@pytest.mark.timeout(180)
def test_the_sbatch_script_of_the_readme(scripts: Scripts, number: int) -> None:
    scripts.tasks(*(task("jobs.meet", 2, id=str(n)) for n in range(2)), name="sweep.jsonl")
    job = submit(scripts, number)
    assert job.ends() == 0, job.log()
    results = scripts.by_id(f"results-{number}.jsonl")
    assert {result["status"] for result in results.values()} == {"ok"}
    assert len({result["worker"] for result in results.values()}) == 2, "both nodes took part"
    assert {result["value"]["cwd"] for result in results.values()} == {str(scripts.folder)}
    assert job.stderr.count("ready on core") == 2, job.stderr
    scripts.nothing_lives()


@pytest.mark.timeout(180)
def test_a_job_whose_dispatcher_fails_does_not_wait_for_its_workers(scripts: Scripts, number: int) -> None:
    scripts.tasks({"function": "min", "colour": 3}, name="sweep.jsonl")
    job = submit(scripts, number)
    assert job.ends() == 2, job.log()
    assert "sweep.jsonl" in job.stderr
    scripts.nothing_lives()


@pytest.mark.timeout(180)
def test_a_job_ends_with_its_dispatchers_status(scripts: Scripts, number: int) -> None:
    scripts.tasks(task("jobs.fail"), task("jobs.hold", "held", id="held"), name="sweep.jsonl")
    job = submit(scripts, number)
    wait_until((scripts.folder / "held.runs").exists)
    (scripts.folder / "held.go").touch()
    assert job.ends() == 1, job.log()
    scripts.nothing_lives()
