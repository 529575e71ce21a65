"""A SLURM with two nodes, all on 127.0.0.1: Debian's packages `slurm-wlm` and `munge`; needs root.

`python -m tests.real_parts.slurm FOLDER` runs one by hand and prints the environment that reaches it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil  # type: ignore[import-untyped]

from tests.real_parts import free_ports

NODES = ("n1", "n2")
_START_S = 30.0
_CONFIG = """
ClusterName=parts
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser=root
AuthType=auth/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout={timeout}
KillWait=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=2 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def is_here() -> bool:
    """Whether the programs are installed, and may be started."""
    return os.geteuid() == 0 and all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch")))


def jobs_of_two_nodes(folder: Path, **options: Any) -> dict[str, Any]:
    """A cluster file's content: two jobs, one for each node, since two do not fit a node's 4000 MiB."""
    common = {"jobs": 2, "memory": "2500 MiB", "interface": "lo", "replace_after": "2 s"}
    return {"kind": "slurm", "shared_folder": str(folder), "logs": str(folder / "logs"), **common, **options}


class Slurm:
    """A batch system for the time of a `with` block.

    Parameters
    ----------
    folder : for its configuration, state and logs.
    timeout_s : a node that was not heard of for so long is down.
    """

    def __init__(self, folder: Path, *, timeout_s: int = 10) -> None:
        self._folder = folder
        self._timeout_s = timeout_s
        self._munged: subprocess.Popen[bytes] | None = None
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> Mapping[str, str]:
        """What `sbatch` and its jobs need to know."""
        return {"SLURM_CONF": str(self._folder / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons; returns when both nodes are idle."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "state").mkdir()
        control, n1, n2 = free_ports(3)
        host = socket.gethostname().partition(".")[0]
        text = _CONFIG.format(
            host=host, folder=self._folder, control=control, n1=n1, n2=n2, timeout=self._timeout_s
        )  # fmt: skip
        (self._folder / "slurm.conf").write_text(text)
        self._start_munge()
        self._daemon("slurmctld", "slurmctld", "-D")
        for node in NODES:
            (self._folder / f"spool-{node}").mkdir()
            self._daemon(node, "slurmd", "-D", "-N", node)
        end = time.monotonic() + _START_S
        while self.command("sinfo", "-h", "-N", "-o", "%t", check=False).split() != ["idle", "idle"]:
            if time.monotonic() > end:
                logs = "\n".join(path.read_text()[-1500:] for path in self._folder.glob("*.log"))
                raise RuntimeError(f"SLURM did not start:\n{logs}")
            time.sleep(0.2)

    def _start_munge(self) -> None:
        """A munged of one's own, unless one answers already."""
        if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
            return
        subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "-m", "0755", "/run/munge"], check=True)
        with (self._folder / "munged.log").open("ab") as log:
            self._munged = subprocess.Popen(
                ["runuser", "-u", "munge", "--", "munged", "--foreground"], stdout=log, stderr=log
            )
        end = time.monotonic() + _START_S
        while subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
            if time.monotonic() > end:
                raise RuntimeError(f"munged did not start:\n{(self._folder / 'munged.log').read_text()[-1500:]}")
            time.sleep(0.1)

    def _daemon(self, name: str, *command: str) -> None:
        with (self._folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env={**os.environ, **self.environment}
            )

    def command(self, *command: str, check: bool = True) -> str:
        """What one of SLURM's commands answers."""
        done = subprocess.run(
            command, capture_output=True, text=True, check=check, timeout=30, env={**os.environ, **self.environment}
        )
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Jobs that run, and their node."""
        lines = self.command("squeue", "-h", "-t", "R", "-o", "%i %N").splitlines()
        return dict(line.split() for line in lines)

    def end_walltime(self, job: str) -> None:
        """Let the time of a job be over now; SLURM looks twice a minute, and then ends it as it ends any such job."""
        self.command("scontrol", "update", f"JobId={job}", "EndTime=now")

    def kill_node(self, node: str) -> None:
        """End a node and all that runs on it at once, as a power cut does."""
        daemon = self._daemons.pop(node)
        # Steps leave slurmd's family; their command line names the node's job instead.
        ids = [job for job, where in self.jobs().items() if where == node]
        steps = [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(f"slurmstepd: [{job}." in " ".join(process.info["cmdline"] or []) for job in ids)
        ]
        doomed = [child for step in steps for child in step.children(recursive=True)]
        for process in (psutil.Process(daemon.pid), *steps, *doomed):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        daemon.wait()

    def revive_node(self, node: str) -> None:
        """Start a node again that was killed; returns when it takes jobs."""
        self._daemon(node, "slurmd", "-D", "-N", node)
        end = time.monotonic() + 2 * _START_S
        while self.command("sinfo", "-h", "-n", node, "-o", "%t", check=False).strip() not in ("idle", "mix"):
            if time.monotonic() > end:
                raise RuntimeError(f"node {node} did not come back")
            time.sleep(0.2)

    def stop(self) -> None:
        """Cancel all jobs and end every daemon that was started here."""
        if "slurmctld" in self._daemons:
            self.command("scancel", "--user=root", check=False)
            end = time.monotonic() + 10
            while self.command("squeue", "-h", "-t", "R,CG", check=False) and time.monotonic() < end:
                time.sleep(0.2)
        for daemon in [*self._daemons.values(), self._munged]:
            if daemon is not None:
                daemon.send_signal(signal.SIGTERM)
        for daemon in [*self._daemons.values(), self._munged]:
            if daemon is not None:
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        self._daemons.clear()
        self._munged = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


if __name__ == "__main__":
    with Slurm(Path(sys.argv[1])) as system:
        print(*(f"export {name}={value}" for name, value in system.environment.items()), sep="\n", flush=True)
        signal.pause()
