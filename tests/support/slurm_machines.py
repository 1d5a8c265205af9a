"""A real Slurm on this machine alone: a controller and two nodes with two pretended GPUs each. It asserts nothing.

Needs root and Debian's slurm-wlm and munge. No systemd, no cgroups, no accounting; everything is in one folder and ends
with `shutdown`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import psutil
from crossval_fake import wait_for

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
NODES = ("n1", "n2")
CONFIGURATION = """
ClusterName=pretended
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MailProg=/bin/true
GresTypes=gpu
# sooner than at a real site, where a lost node is noticed after 300 s
SlurmdTimeout=15
ReturnToService=2
KillWait=5
SchedulerParameters=bf_interval=5,sched_interval=5
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=8000 Gres=gpu:2"


class Slurm:
    """`environment` is what Slurm's commands need; `lose` takes the power from a node, `bring_back` gives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen] = {}
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._write_configuration()
        munge = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munge.pid",
            "log-file": "munge.log",
            "seed-file": "munge.seed",
        }
        self._start("munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in munge.items()))
        wait_for((folder / "munge.socket").exists)
        self._start("slurmctld", "-D")
        for node in NODES:
            self.bring_back(node)
        wait_for(lambda: self.run("sinfo", "-h", "-o", "%T").split() == ["idle"], 60)

    def run(self, *command: str, **environment: str) -> str:
        """One of Slurm's commands; what it printed. Raises RuntimeError when it fails."""
        done = subprocess.run(command, env={**self.environment, **environment}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """State and node of each task that has not ended, such as 12_3 or, not yet started, 12_[0-3]."""
        lines = self.run("squeue", "-h", "-a", "-o", "%i %T %N").splitlines()
        return {words[0]: (words[1], words[2] if len(words) > 2 else "") for words in map(str.split, lines)}

    def lose(self, node: str) -> None:
        """Kill the daemon first, so that it cannot report what then dies: its steps, and all that they started."""
        daemon = psutil.Process(self._daemons[node].pid)
        mine = [
            step
            for step in _steps()
            if any(child.environ().get("SLURMD_NODENAME") == node for child in step.children())
        ]
        there = [daemon, *mine, *(child for step in mine for child in step.children(recursive=True))]
        for process in there:
            process.suspend()
        for process in there:
            process.kill()
        self._daemons.pop(node).wait()

    def bring_back(self, node: str) -> None:
        self._start("slurmd", "-D", "-N", node, name=node)

    def shutdown(self) -> None:
        steps = _steps()
        for daemon in reversed(self._daemons.values()):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
        for step in steps:
            for process in (*step.children(recursive=True), step):
                process.kill()

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        log = (self.folder / f"{name or program}.out").open("a")
        self._daemons[name or program] = subprocess.Popen(
            [shutil.which(program), *arguments], env=self.environment, stdout=log, stderr=log, start_new_session=True
        )

    def _write_configuration(self) -> None:
        host, ports = socket.gethostname(), _free_ports(3)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(64))
        key.chmod(0o600)
        for number in range(2):  # a plain file would be counted, but not set CUDA_VISIBLE_DEVICES
            os.mknod(self.folder / f"nvidia{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(
            "\n".join(f"NodeName={node} Name=gpu File={self.folder}/nvidia[0-1]" for node in NODES)
        )
        nodes = "\n".join(NODE.format(name=node, host=host, port=ports.pop()) for node in NODES)
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(host=host, controller=ports.pop(), folder=self.folder, nodes=nodes)
        )


def _steps() -> list[psutil.Process]:
    """The processes that run the tasks; they are no children of the daemon that started them."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] and process.info["cmdline"][0].startswith("slurmstepd")
    ]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
