"""One rank of one round: a process of its own, forked from a member that has torch imported.

It starts on its device, says that it is ready, waits for the hub's "go", does its part and says what came out. It
is killed when the round is released; nothing here has to be able to stop in the middle.
"""

from __future__ import annotations

import datetime
import os
import socket

import torch
import torch.distributed as dist

from gpuprov.proof.fabric import collectives, ddp, network
from gpuprov.proof.fabric.lines import GoneError, Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.fabric.lines import Line

#: gloo's backend under a name of our own, bound to the address that leads to the others.
BACKEND = "gpuprov_gloo"


class Task:
    """What a rank is to do. ranks: [[host, device], ...] of all of them; local: our number on this host.

    address: this host's on the fabric. deadline_s: how long torch may wait for others; the hub is quicker.
    """

    __slots__ = ("address", "bytes_of", "deadline_s", "device", "local", "rank", "ranks", "steps", "what")

    def __init__(
        self,
        what: str,
        ranks: list[list[str]],
        rank: int,
        local: int,
        address: str,
        deadline_s: float,
        bytes_of: dict[str, int],
        steps: int,
    ) -> None:
        self.what = what
        self.ranks = ranks
        self.rank = rank
        self.local = local
        self.address = address
        self.deadline_s = deadline_s
        self.bytes_of = bytes_of
        self.steps = steps
        self.device = ranks[rank][1]

    @property
    def names(self) -> list[str]:
        """The ranks in words, "gpu02 cuda:1"."""
        return [" ".join(one) for one in self.ranks]


def run(task: Task, lines: Lines) -> None:
    """Be rank *task.rank*; every line that is sent says how far it is."""
    stage = ["starting"]

    def at(text: str) -> None:
        stage[0] = text
        lines.send({"t": "stage", "text": text})

    try:
        found = _measured(task, lines, at)
    except collectives.WrongError as error:
        lines.send({"t": "outcome", "state": "wrong", "text": str(error)[:400], "stage": stage[0]})
    except GoneError:
        return  # the member is not there any more, and nobody would hear us
    except (RuntimeError, OSError, ValueError) as error:  # torch's and NCCL's errors are RuntimeErrors
        text = " ".join(str(error).split())[:400]
        own = stage[0] == "starting" or "CUDA" in text  # anything else is what a lost peer looks like
        lines.send({"t": "outcome", "state": "error", "text": f"{stage[0]}: {text}", "stage": stage[0], "own": own})
    else:
        lines.send({"t": "outcome", "state": "ok", "text": "", "stage": "", "data": found if task.rank == 0 else {}})


def _measured(task: Task, lines: Lines, at: Any) -> dict[str, Any]:
    device = torch.device(task.device)
    interface = network.interface_of(task.address)
    _prepare(device, interface)
    timeout = datetime.timedelta(seconds=task.deadline_s)
    world = len(task.ranks)
    store = _listening_store(task.address, world, timeout) if task.rank == 0 else None
    ready: Line = {"t": "ready", "rank": task.rank}
    if store is not None:
        ready["store"] = [task.address, store.port]
    lines.send(ready)
    lines.patience(task.deadline_s + 3600.0)  # how long we may wait is the hub's to say: it kills us
    where = lines.one()["store"]
    at("meeting the other ranks")
    if store is None:
        store = dist.TCPStore(where[0], where[1], world, False, timeout, False)
    backend = "nccl" if device.type == "cuda" else _gloo_at(task.address)
    more = {"device_id": device} if device.type == "cuda" else {}
    dist.init_process_group(backend, store=store, rank=task.rank, world_size=world, timeout=timeout, **more)
    size = task.bytes_of[device.type]
    if task.what == "ddp":
        found: dict[str, Any] = {"ddp": ddp.train(device, task.names, task.steps, at)}
    else:
        names = ("allreduce",) if task.what == "pairs" else tuple(collectives.RUNNERS)
        found = {name: collectives.measure(name, device, size, task.names, at) for name in names}
    at("leaving")
    dist.barrier()
    dist.destroy_process_group()
    return {**found, "interface": interface, "backend": "nccl" if device.type == "cuda" else "gloo"}


def _prepare(device: torch.device, interface: str) -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    if device.type == "cuda":
        if interface:
            os.environ.setdefault("NCCL_SOCKET_IFNAME", "=" + interface)
        torch.cuda.set_device(device)
        torch.zeros(1, device=device).item()  # whatever is wrong with the device shows here, before the others wait


def _listening_store(address: str, world: int, timeout: datetime.timedelta) -> Any:
    """Return torch's store, listening on the fabric's address alone, at a port that the kernel drew."""
    family = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0][0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen(min(4096, 2 * world + 16))
    port = listener.getsockname()[1]
    # wait_for_workers is False: who is missing is the hub's business; the store owns the descriptor from here on
    return dist.TCPStore(address, port, world, True, timeout, False, False, listener.detach())


def _gloo_at(address: str) -> str:
    """Register a gloo that listens on *address* and nowhere else (an interface's name would mean its first one)."""

    def make(store: Any, rank: int, world: int, timeout: datetime.timedelta) -> Any:
        options = dist.ProcessGroupGloo._Options()
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
        options._timeout = timeout
        options._threads = 2
        return dist.ProcessGroupGloo(store, rank, world, options)

    dist.Backend.register_backend(BACKEND, make, devices=["cpu"])
    return BACKEND
