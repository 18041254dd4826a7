"""The order of a run: look, judge what was read, load the devices, look again, blame the difference.

    1  one process asks NVML, then one per GPU; before torch, which would be found among the GPUs' users
    2  one process reads the host, one imports torch                                              (together)
    3  what NVML said is judged here: pure functions
    4  one process per device runs the device's parts                                             (together)
    5  as many processes as devices run the group's parts
    6  GPUs are read again, and counters that rose are reported

A process that hangs is killed and reported. What it had not come to runs in a new process, unless the driver
hangs in the kernel: then it is unknown, and so is all that was to follow on this device.
"""

from __future__ import annotations

import time
import traceback

from gpuprov.proof import canaries
from gpuprov.proof.check import check
from gpuprov.proof.supervisor import Supervisor
from gpuprov.proof.worker import SIMULATED, Report, broken, work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.output import Output
    from gpuprov.proof.parts import Part
    from gpuprov.proof.readings import Readings
    from gpuprov.proof.worker import Job


class Engine:
    """One run of the proof."""

    def __init__(self, job: Job, output: Output, deadline_s: float) -> None:
        self._job = job
        self._output = output
        self._parts = job.parts()
        self._context = job.context()
        output.simulated = self._context.simulated
        self._supervisor = Supervisor(lambda key, send: work(job, key, send), self._message, deadline_s, self._bad_end)
        self._ends_at = time.monotonic() + deadline_s
        self._report = Report(self._message)
        self._loaded_at = time.monotonic()
        self._versions: Message = {}
        self._devices: list[str] = []
        self._left: dict[str, list[str]] = {}
        self._gone: set[str] = set()
        self._readings: Readings | None = None
        self._torch_error: Message = {}

    def run(self) -> None:
        """Run all phases. What goes wrong is in the output."""
        try:
            self._look()
            if not self._output.error:
                self._judge_readings()
                if self._torch_error:
                    self._without_torch()
                self._loaded_at = time.monotonic()
                self._load_devices()
                self._load_group()
                self._look_again()
        finally:
            self._supervisor.kill()

    def _of(self, *where: str) -> list[Part]:
        return [part for part in self._parts if part.where in where]

    # -- 1 and 2: look -------------------------------------------------------

    def _look(self) -> None:
        self._read_gpus()
        for where in ("host", "torch"):
            self._left[where] = [part.name for part in self._of(where)]
        if self._of("host"):
            self._supervisor.start("host")
        if self._of("torch", "device", "group") or self._job.expect_gpus is not None:
            self._supervisor.start("torch")
        self._supervisor.wait()
        self._report_left("host", "")
        if self._torch_error and not self._job.tier:
            self._output.message(self._torch_error)
        if self._torch_error or self._output.error:
            self._left.pop("torch")
        self._report_left("torch", "")

    def _read_gpus(self) -> None:
        """Ask NVML, also when nothing but who uses the GPUs is to be known."""
        ask_who = self._loads() and self._job.device != "cpu" and not self._job.load_busy
        if self._of("reading") or ask_who:
            from gpuprov.proof.readings import Readings

            self._readings = Readings()
            self._supervisor.start("nvml")
            if self._of("reading"):
                self._supervisor.start("counters")
            self._supervisor.wait()
            if self._readings.reading()["library"].get("simulated"):
                self._context.simulated = self._output.simulated = True

    def _loads(self) -> bool:
        return any(part.loads for part in self._of("device", "group"))

    def _without_torch(self) -> None:
        """Say of each part that needs torch that it did not run."""
        verdict, reason = "unknown", f"not measured: {self._torch_error['message']}; {self._torch_error['hint']}"
        if self._context.simulated:
            verdict, reason = "skip", SIMULATED
        for part in self._of("torch", "device", "group"):
            self._say(part, check(part.name, verdict, reason))

    def _say(self, part: Part, found: Message) -> None:
        self._message(dict(found, kind="check", tier=part.tier, reads=part.reads))

    # -- 3: judge ------------------------------------------------------------

    def _judge_readings(self) -> None:
        parts = self._of("reading")
        if self._readings is None or not parts:
            return
        reading = self._readings.reading()
        sound = [part for part in parts if self._judged(part, reading)]
        self._message(dict(canaries.of_readings(self._context, sound, reading), kind="check"))
        if self._job.record:
            for message in self._readings.recorded():
                self._message(message)

    def _judged(self, part: Part, reading: Message) -> bool:
        """Report what *part* finds in *reading*; say whether it could judge it at all."""
        self._report.begin(part)
        try:
            checks = part.run(self._context, reading)
        except Exception as error:  # it must not take the other parts with it
            traceback.print_exc()
            self._report.check(broken(part.name, "", error))
            return False
        for found in checks:
            self._report.check(found)
        return True

    # -- 4 and 5: load -------------------------------------------------------

    def _load_devices(self) -> None:
        parts = self._of("device")
        if not parts or self._torch_error:
            return
        for index, device in enumerate(self._devices):
            wanted = [part for part in parts if not self._skipped(part, device)]
            if wanted:
                self._start_parts("device", index, [part.name for part in wanted])
        self._supervisor.wait()
        while self._again():
            self._supervisor.wait()
        for index, device in enumerate(self._devices):
            self._report_left(f"device:{index}", device)

    def _start_parts(self, kind: str, index: int, names: list[str]) -> None:
        self._left[f"{kind}:{index}"] = names
        self._supervisor.start(f"{kind}:{index}/{','.join(self._devices)}/{','.join(names)}")

    def _again(self) -> bool:
        """Go on with the devices whose process was killed in the middle; say whether there are any."""
        started = False
        for index in range(len(self._devices)):
            key = f"device:{index}"
            if self._left.get(key) and key not in self._gone and time.monotonic() < self._ends_at:
                self._start_parts("device", index, self._left[key])
                started = True
        return started

    def _load_group(self) -> None:
        parts = self._of("group")
        if not parts or self._torch_error:
            return
        # Without a GPU there is one device, and two ranks of it show that ranks can talk.
        devices = self._devices if self._devices != ["cpu"] else ["cpu", "cpu"]
        for part in parts:
            if any(self._skipped(part, device) for device in devices):
                continue
            if len(devices) == 1:
                self._say(part, check(part.name, "skip", "one GPU: there is no other to talk to"))
            elif self._gone:
                self._say(part, check(part.name, "unknown", "not run: a device of this host hangs"))
            else:
                for rank in range(len(devices)):
                    self._supervisor.start(f"rank:{rank}/{','.join(devices)}/{part.name}")
                self._supervisor.wait()

    def _skipped(self, part: Part, device: str) -> bool:
        """Say whether *part* is not to run on *device*, after reporting why."""
        verdict, reason, data = "skip", "", {}
        if self._context.simulated:
            reason = SIMULATED
        elif part.loads and device != "cpu" and not self._job.load_busy and self._readings is not None:
            user, untold = self._readings.use_of(self._uuid(device))
            if user:
                reason, data = f"in use by {user}; --load-busy measures beside it", {"busy": user}
            elif untold:
                verdict = "unknown"
                reason = f"not run: a job may use this GPU, {untold}; --load-busy measures all the same"
        if reason:
            where = device if device != "cpu" else ""
            self._say(part, check(part.name, verdict, reason, device=where, data=data))
        return bool(reason)

    def _uuid(self, device: str) -> str:
        for one in self._versions.get("devices", ()):
            if device == f"cuda:{one['index']}":
                return str(one.get("uuid") or "")
        return ""

    # -- 6: look again -------------------------------------------------------

    def _look_again(self) -> None:
        loaded = self._loads() and not self._torch_error
        if self._readings is None or not self._of("reading") or not loaded or self._context.simulated:
            return
        self._readings.again()
        self._supervisor.start("counters")
        for index in range(self._readings.count):
            self._supervisor.start(f"gpu:{index}")
        self._supervisor.wait()
        try:
            grown = self._readings.differences(time.monotonic() - self._loaded_at)
        except Exception as error:  # what was measured is still true
            traceback.print_exc()
            grown = [broken("load", "", error)]
        for found in grown:
            self._message(dict(found, kind="check"))

    # -- what processes say --------------------------------------------------

    def _message(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "begin":
            self._begun(message)
        elif kind in ("library", "value", "counters") and self._readings is not None:
            self._readings.take(message)
            if kind == "library" and message["key"] == "count":
                for index in range(self._readings.count):
                    self._supervisor.start(f"gpu:{index}")
        elif kind == "error" and self._job.tier:
            self._torch_error = message
        elif kind == "error":
            self._output.message(message)
        else:
            if kind == "versions":
                self._versions, self._devices = message, list(message["proving"])
            if kind == "check" and self._context.simulated:
                message = dict(message, simulated=True)
            self._output.message(message)

    def _begun(self, message: Message) -> None:
        """Strike a part off what its process has still to do."""
        for key, names in self._left.items():
            index = key.partition(":")[2]
            device = self._devices[int(index)] if index else ""
            if device == message["device"] and message["part"] in names:
                self._left[key] = names[names.index(message["part"]) + 1 :]

    def _bad_end(self, key: str, gone: bool, stage: str) -> None:
        kind, _, rest = key.partition(":")
        if not gone:
            self._gone.add(f"{kind}:{rest.partition('/')[0]}" if rest else kind)
        if kind in ("gpu", "nvml") and self._readings is not None:
            self._readings.hung(int(rest) if rest else -1, stage)
        if kind == "torch" and not self._versions:
            text = "the process that imports torch did not end well"
            self._torch_error = {
                "kind": "error",
                "code": "torch-broken",
                "message": text,
                "hint": "see the check process",
            }

    def _report_left(self, key: str, device: str) -> None:
        """Report as unknown what a process did not come to."""
        for name in self._left.pop(key, ()):
            reason = "not run: the process that was to run it ended before"
            part = next(part for part in self._parts if part.name == name)
            self._say(part, check(name, "unknown", reason, device=device if device != "cpu" else ""))
