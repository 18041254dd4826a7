"""What the two processes of a host do: the member's, and on one host the hub's."""

from __future__ import annotations

import os
import socket
import sys
import warnings

from gpuprov.proof.check import check
from gpuprov.proof.fabric import busy, network
from gpuprov.proof.fabric.children import Child
from gpuprov.proof.fabric.hub import Hub
from gpuprov.proof.fabric.lines import GoneError
from gpuprov.proof.fabric.member import Member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from gpuprov.proof.check import Message
    from gpuprov.proof.fabric.lines import Line, Lines
    from gpuprov.proof.fabric.plan import Plan

    Send = Callable[[Message], None]

#: How long torch may take to say which devices there are.
DEVICES_S = 60.0


def hub(plan: Plan, send: Send) -> None:
    """Be the hub of the run, on the first of the plan's ports that is free."""

    def text(words: str) -> None:
        send({"kind": "text", "text": "hub: " + words})

    try:
        address = network.bound(plan.hub_address, socket.SOCK_STREAM)
        listener = listening(address, plan.ports, text)
    except OSError as error:
        reason = f"no hub at {plan.hub_address}: {error.strerror or error}"
        hint = "the variable gpuprov_fabric_address names the address of a host that the others reach"
        send(dict(check("fabric.hub", "unknown", f"{reason}; {hint}"), kind="check"))
        return
    text(f"waiting for {len(plan.hosts)} hosts at {address} port {listener.getsockname()[1]}")
    Hub(plan, listener, text).run()


def listening(address: str, ports: list[int], text: Callable[[str], None]) -> socket.socket:
    """Return a socket that listens at *address* on the first free one of *ports*. Raises OSError when none is."""
    family = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0][0]
    trouble: OSError | None = None
    for port in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(1024)
        except OSError as error:
            trouble = error
            listener.close()
            text(f"port {port} of {address}: {error.strerror}")
            continue
        return listener
    assert trouble is not None
    raise trouble


def member(plan: Plan, send: Send) -> None:
    """Be this host's member."""
    send({"kind": "stage", "text": "importing torch", "device": ""})
    if not _torch(send):
        return
    send({"kind": "stage", "text": "asking torch for devices", "device": ""})
    probe = Child("fabric-devices", _tell_devices)
    probe.lines.patience(DEVICES_S)
    try:
        found = probe.lines.one()
    except GoneError as error:
        reason = f"torch did not say which devices it has within {DEVICES_S:g} s: {error}"
        send(dict(check("fabric.join", "unknown", reason, action="reboot"), kind="check"))
        return
    finally:
        probe.kill()
    send({"kind": "text", "text": f"{plan.host}: {found['kind']}"})
    if found["users"] and not plan.load_busy:
        found = {"devices": [], "kind": f"{found['users']}; --load-busy measures beside it"}
    Member(plan, found["devices"], found["kind"], lambda *words: _fork(plan, *words), send).run()


def _torch(send: Send) -> bool:
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # not needed, not installed
    try:
        import torch.distributed
        import torch.nn.parallel
    except (ImportError, OSError) as error:
        text = f"torch cannot be imported by {sys.executable}: {error}"
        hint = "run this with the interpreter of the provisioned environment"
        send({"kind": "error", "code": "torch-missing", "message": text, "hint": hint})
        return False
    if not torch.distributed.is_available():
        text = f"torch of {sys.executable} was built without torch.distributed"
        send({"kind": "error", "code": "torch-broken", "message": text, "hint": "install a build that has it"})
        return False
    return True


def _tell_devices(lines: Lines) -> None:
    """Say which devices there are, from a process that may have a CUDA context: it forks nothing."""
    used = busy.users()  # before torch: its context would be one of the users
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = sorted({torch.cuda.get_device_name(number) for number in range(count)})
    kind = f"cuda {count} x {', '.join(names)}" if count else "cpu"
    lines.send(
        {
            "devices": [f"cuda:{number}" for number in range(count)] or ["cpu"],
            "kind": kind,
            "users": used if count else "",
        }
    )


def _fork(plan: Plan, line: Line, number: int, local: int, address: str) -> Child:
    """Start rank *number* of the round that *line* begins."""
    from gpuprov.proof.fabric import rank

    task = rank.Task(
        what=line["what"],
        ranks=line["ranks"],
        rank=number,
        local=local,
        address=address,
        deadline_s=plan.ready_s + plan.round_s,
        bytes_of=plan.bytes_of,
        steps=plan.steps,
    )
    return Child(f"fabric-rank-{number}", lambda lines: rank.run(task, lines))


ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NVIDIA_TF32_OVERRIDE": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def prepare() -> None:
    """Set what torch's libraries read when they start."""
    os.environ.update(ENVIRONMENT)
