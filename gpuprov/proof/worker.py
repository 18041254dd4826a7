"""What measuring processes do: read the host, ask NVML, ask torch, run parts on their device.

Everything that is found goes out as one message at a time, so that a process that hangs or is killed has
already delivered what it knew.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
import warnings

from gpuprov.proof import registry
from gpuprov.proof.check import check
from gpuprov.proof.parts import Context, chosen, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Part

    Send = Callable[[Message], None]

#: For cuBLAS to give the same bits twice, and for cuda:N to be GPU N of the PCI bus; read when the libraries start.
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
#: Would make float32 into TF32, or TF32 into float32, whatever a part asks torch for.
NOT_OURS = "NVIDIA_TF32_OVERRIDE"
#: What a process may take for what is not a part: starting, importing, asking. A cold disk makes torch slow.
IMPORT_DEADLINE_S = 120.0
NVML_DEADLINE_S = 8.0


#: Where a rehearsal host has what its simulated GPUs are made of, and why nothing is computed there.
DOUBLES = "etc/gpuprov-lab/gpus"
SIMULATED = "simulated GPU"


class Job:
    """What a run was asked to do.

    tests are names of parts, tier is "" for them alone. device: "auto", "cpu", "cuda" (all of them) or "cuda:N".
    scratch is a private folder for whatever libraries write; weights go to *folder*.
    """

    __slots__ = (
        "device",
        "drawn",
        "epochs",
        "expect",
        "folder",
        "load_busy",
        "record",
        "root",
        "scratch",
        "seed",
        "tests",
        "tier",
    )

    def __init__(
        self,
        tests: tuple[str, ...],
        folder: str,
        scratch: str,
        seed: int,
        drawn: bool = False,
        epochs: int | None = None,
        device: str = "auto",
        tier: str = "",
        expect: dict[str, Any] | None = None,
        load_busy: bool = False,
        record: bool = False,
        root: str = "/",
    ) -> None:
        self.tests = tests
        self.folder = folder
        self.scratch = scratch
        self.seed = seed
        self.drawn = drawn
        self.epochs = epochs
        self.device = device
        self.tier = tier
        self.expect = expect or {}
        self.load_busy = load_busy
        self.record = record
        self.root = root

    @property
    def expect_gpus(self) -> int | None:
        """How many GPUs there have to be; None when nobody said."""
        return self.expect.get("gpus")

    @property
    def doubles(self) -> bool:
        """Whether this is a rehearsal host that pretends to have GPUs."""
        return os.path.exists(os.path.join(self.root, DOUBLES))

    def parts(self) -> list[Part]:
        """Return the parts to run."""
        return chosen(registry.parts(), self.tier, self.tests)

    def context(self, **more: Any) -> Context:
        """Return what parts of this job see."""
        options = {"folder": self.folder, "epochs": self.epochs, "drawn": self.drawn}
        tier = self.tier or "quick"
        more.update(expect=self.expect, seed=self.seed, scratch=self.scratch, simulated=self.doubles)
        return Context(tier, self.root, options=options, **more)


class Report:
    """Sends what one process finds; prefix goes before each line of text.

    Deadlines of parts hold in a tier; what was asked for by name (of *names*) may take as long as the whole run.
    """

    def __init__(self, send: Send, device: str = "", prefix: str = "", names: Sequence[str] = ()) -> None:
        self._names = names
        self._send = send
        self._device = device
        self._prefix = prefix
        self._since = time.monotonic()
        self._part: Part | None = None

    def stage(self, text: str) -> None:
        """Say what comes now: the supervisor names it when this process has to be killed."""
        self._send({"kind": "stage", "text": text, "device": self._device})

    def begin(self, part: Part) -> None:
        """Say that *part* begins: from now on its deadline holds."""
        self._part = part
        self._since = time.monotonic()
        text = f"{part.name} on {self._device}" if self._device else part.name
        deadline_s = None if named(part, self._names) else part.deadline_s
        self._send({"kind": "stage", "text": text, "device": self._device, "deadline_s": deadline_s})
        self._send({"kind": "begin", "part": part.name, "device": self._device})

    def text(self, text: str) -> None:
        """Send a line for a person."""
        self._send({"kind": "text", "text": self._prefix + text})

    def epoch(self, proof: str, epoch: int, epochs: int, loss: float) -> None:
        """Send the mean loss of an epoch, as data and as a line."""
        message = {"kind": "epoch", "proof": proof, "device": self._device, "epoch": epoch, "epochs": epochs}
        self._send(dict(message, loss=loss))
        self.text(f"Epoch {epoch}/{epochs}, Loss: {loss:.4f}")

    def check(self, found: Message) -> None:
        """Send a check; its duration is the time since the last one."""
        now = time.monotonic()
        more = {"tier": self._part.tier, "reads": self._part.reads} if self._part else {}
        self._send(dict(found, kind="check", duration_s=round(now - self._since, 4), **more))
        self._since = now


def work(job: Job, key: str, send: Send) -> None:
    """Do the work of the measuring process *key*: "host", "nvml", "gpu:N", "torch", "device:N" or "rank:N"."""
    os.environ.update(ENVIRONMENT, TMPDIR=job.scratch)
    os.environ.pop(NOT_OURS, None)
    tempfile.tempdir = job.scratch  # torch's optimisers make a folder of a well-known name in it
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # not needed, not installed
    kind, _, rest = key.partition(":")
    _PROCESSES[kind](job, rest, send)


def _host(job: Job, rest: str, send: Send) -> None:  # noqa: ARG001
    report = Report(send, names=job.tests)
    context = job.context()
    run_parts([part for part in job.parts() if part.where == "host"], context, report)


def _counters(job: Job, rest: str, send: Send) -> None:  # noqa: ARG001
    from gpuprov.proof.checks import host_counters, xid

    text = "reading counters and the kernel's log"
    send({"kind": "stage", "text": text, "device": "", "deadline_s": NVML_DEADLINE_S})
    send({"kind": "counters", "host": host_counters.snapshot(job.context()), "xids": xid.seen(job.root)})


def _nvml(job: Job, rest: str, send: Send) -> None:  # noqa: ARG001
    from gpuprov.proof.nvml import reading

    _let_guests_in()

    send({"kind": "stage", "text": "starting NVML", "device": "", "deadline_s": NVML_DEADLINE_S})
    reading.read_library(send)


def _gpu(job: Job, rest: str, send: Send) -> None:  # noqa: ARG001
    from gpuprov.proof.nvml import reading

    _let_guests_in()
    text = f"starting NVML for GPU {rest}"
    send({"kind": "stage", "text": text, "device": f"gpu:{rest}", "deadline_s": NVML_DEADLINE_S})
    reading.read_gpu(int(rest), send)


def _let_guests_in() -> None:
    """Let nvidia-ml-py be found that came along: for environments that have none of their own."""
    package = os.path.dirname(os.path.abspath(registry.__file__))
    sys.path.append(os.path.join(os.path.dirname(os.path.dirname(package)), "guests"))


def _torch(job: Job, rest: str, send: Send) -> None:  # noqa: ARG001
    send({"kind": "stage", "text": "importing torch", "device": "", "deadline_s": IMPORT_DEADLINE_S})
    if not _torch_imports(send):
        return
    from gpuprov.proof.checks import versions

    send({"kind": "stage", "text": "asking for versions and devices", "device": "", "deadline_s": IMPORT_DEADLINE_S})
    found = versions.collect()
    devices = _devices(job.device, len(found["devices"]))
    if not devices:
        reason = found["available_reason"] or f"torch can use {len(found['devices'])}"
        hint = "--device auto takes what is there, --device cpu the CPU"
        message = f"no device {job.device} here: {reason}"
        send({"kind": "error", "code": "no-device", "message": message, "hint": hint})
        return
    send({key: value for key, value in dict(found, kind="versions", proving=devices).items() if key != "libraries"})
    every = [part for part in registry.parts() if part.where == "torch"]
    mine = [part for part in job.parts() if part.where == "torch"]
    report = Report(send)
    for part in mine or every[:1] * (job.expect_gpus is not None):
        report.begin(part)
        try:
            checks = [check(part.name, "skip", SIMULATED)] if job.doubles else part.run(job.context(), found)
        except Exception as error:  # as in run_parts
            traceback.print_exc()
            checks = [broken(part.name, "", error)]
        for item in checks:
            report.check(item)


def _devices(wanted: str, count: int) -> list[str]:
    there = [f"cuda:{i}" for i in range(count)]
    if wanted == "auto":
        return there or ["cpu"]
    if wanted == "cuda":
        return there
    return [wanted] if wanted in ("cpu", *there) else []


def _torch_imports(send: Send) -> bool:
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        missing = getattr(error, "name", "") == "torch"
        text = (
            f"torch is not installed for {sys.executable}"
            if missing
            else f"torch is installed for {sys.executable} but cannot be imported: {error}"
        )
        hint = "run this with the interpreter of the provisioned environment, or install torch there"
        send({"kind": "error", "code": "torch-missing" if missing else "torch-broken", "message": text, "hint": hint})
        return False
    return True


def _device(job: Job, rest: str, send: Send) -> None:
    """Run parts on one device. rest: "INDEX/DEVICE,DEVICE.../PART,PART..."."""
    index, devices, names = rest.split("/")
    context = job.context(device=devices.split(",")[int(index)], devices=devices.split(","))
    prefix = context.device + ": " if len(context.devices) > 1 else ""
    _run_named("device", names, context, Report(send, context.device, prefix, job.tests))


def _rank(job: Job, rest: str, send: Send) -> None:
    """Run group parts as one of the ranks. rest: "RANK/DEVICE,DEVICE.../PART"."""
    rank, devices, names = rest.split("/")
    there = devices.split(",")
    # One rendezvous per part, which all its ranks make the same name of.
    meeting = "file://" + os.path.join(job.scratch, "meeting-" + names)
    context = job.context(device=there[int(rank)], devices=there, rank=int(rank), world=len(there), rendezvous=meeting)
    _run_named("group", names, context, Report(send, context.device, f"rank {rank}: ", job.tests))


def _run_named(where: str, names: str, context: Context, report: Report) -> None:
    wanted = names.split(",")
    run_parts([part for part in registry.parts() if part.where == where and part.name in wanted], context, report)


def run_parts(parts: Sequence[Part], context: Context, report: Report) -> None:
    """Run *parts* one after the other. One that breaks is reported, and the others go on."""
    for part in parts:
        report.begin(part)
        try:
            part.run(context, report)
        except Exception as error:  # a part that breaks must not keep the others from being measured
            traceback.print_exc()
            report.check(broken(part.name, context.device, error))


def broken(name: str, device: str, error: Exception) -> Message:
    """Judge the error that ended a part; device is where it ran, "" outside of devices.

    Memory that others hold says nothing about the device, another error of torch's does.
    """
    words = " ".join(str(error).split())[:400] or type(error).__name__
    text = f"{name} on {device} stopped: {words}" if device else f"{name} stopped: {type(error).__name__}: {words}"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        return check(name, "unknown", text, device=device, action="restart job")
    if isinstance(error, RuntimeError) and device:
        return check(name, "fail", text, device=device, action="reset GPU" if device != "cpu" else "none")
    return check(name, "unknown", text, device=device)


_PROCESSES = {
    "host": _host,
    "counters": _counters,
    "nvml": _nvml,
    "gpu": _gpu,
    "torch": _torch,
    "device": _device,
    "rank": _rank,
}
