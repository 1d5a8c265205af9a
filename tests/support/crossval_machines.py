"""A Ray cluster of pretended machines, in a process of its own: Ray keeps the settings that it was imported with.

Run as a script it prints the address of the cluster and then obeys, with one line each, "add" and "lose PROCESS".
It asserts nothing.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


class Machines:
    """A head without a GPU, and machines with a pretended one each. `environment` is what a driver needs to know."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}  # not the user's own
        self._folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the name of a socket has to be short
        # Cluster writes its address to RAY_TMPDIR/ray, whatever temp_dir it is given, and does not make that folder.
        Path(self._folder, "ray").mkdir()
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, **self.environment, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": self._folder},
        )
        self.environment["RAY_ADDRESS"] = self._process.stdout.readline().strip()

    def add(self) -> None:
        """One more machine."""
        self._obey("add")

    def lose_that_of(self, process: int) -> None:
        """Kill everything on the machine where this process runs at once, as a loss of power does."""
        self._obey(f"lose {process}")

    def shutdown(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _obey(self, order: str) -> None:
        print(order, file=self._process.stdin, flush=True)  # noqa: T201
        if self._process.stdout.readline() != "done\n":
            raise RuntimeError(f"the pretended machines did not obey: {order}")


def main(folder: str) -> None:
    import psutil
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "num_gpus": 0, "temp_dir": folder})
    answer(cluster.address)
    nodes = []
    for line in sys.stdin:
        order, _, process = line.partition(" ")
        if order.strip() == "add":
            nodes.append(cluster.add_node(**options, num_gpus=1))
        else:
            ancestors = {parent.pid for parent in psutil.Process(int(process)).parents()}
            (node,) = [node for node in nodes if ancestors & set(processes_of(node))]
            roots = [psutil.Process(number) for number in processes_of(node)]
            there = [*roots, *(child for root in roots for child in root.children(recursive=True))]
            for one in there:
                one.suspend()  # so that none sees another die
            for one in there:
                one.kill()
            nodes.remove(node)
            cluster.remove_node(node, allow_graceful=False)
        answer("done")
    cluster.shutdown()


def processes_of(node: object) -> list[int]:
    return [info.process.pid for infos in node.all_processes.values() for info in infos]


def answer(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
