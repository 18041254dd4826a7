"""The module `modprobe`: kernel modules."""

from __future__ import annotations

import os

from gpuprov.agent.modules.base import Change, ModuleError, State, absent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "A kernel module: loaded or not, now and after a boot.",
    "args": {
        "name": {"type": "str", "required": True, "doc": "The kernel module."},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present", "doc": "absent: not loaded."},
        "params": {"type": "str", "default": "", "doc": "Parameters for loading it: numdummies=2."},
        "persistent": {
            "type": "str",
            "choices": ["absent", "disabled", "present"],
            "default": "disabled",
            "doc": "present: also loaded at boot, with params; absent: not any more; disabled: leave that alone.",
        },
    },
    "returns": {"name": "The kernel module.", "state": "present or absent.", "params": "The parameters."},
}
LOAD_D = "/etc/modules-load.d"
OPTIONS_D = "/etc/modprobe.d"


class Modprobe(State):
    """One kernel module."""

    def probe(self) -> Change:
        """Compare what is loaded, and what is loaded at boot."""
        self.name: str = self.args["name"]
        change = Change(result={key: self.args[key] for key in ("name", "state", "params")})
        if self._loaded() != (self.args["state"] == "present"):
            change.differences.append("not loaded" if self.args["state"] == "present" else "loaded")
        self.files = self._wanted_files()
        change.differences += sorted(path for path, text in self.files.items() if self._text(path) != text)
        if change.differences and self.call.check:
            self.call.pending.update(["kernel module " + self.name, *self.files])
        if change.differences and self.call.diff:
            change.diff = [{"before": "", "after": "".join("%s\n" % one for one in change.differences)}]
        return change

    def converge(self, change: Change) -> None:
        """Write the files for the next boot, then load or remove the module."""
        for path, text in self.files.items():
            if path not in change.differences:
                continue
            if text is None:
                os.unlink(path)
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                self.system.replace(path, data=text.encode(), mode=0o644)
        if "not loaded" in change.differences:
            self._modprobe(self.name, *self.args["params"].split())
        elif "loaded" in change.differences:
            self._modprobe("-r", self.name)

    def _loaded(self) -> bool:
        """Say whether it is loaded or built into the kernel."""
        plain = self.name.replace("-", "_")
        if os.path.isdir("/sys/module/%s" % plain) and self.args["state"] == "present":
            return True
        loaded = self.system.read_text("/proc/modules").splitlines()
        if any(line.split(" ", 1)[0] == plain for line in loaded):
            return True
        built_in = self.system.read_text("/lib/modules/%s/modules.builtin" % os.uname().release)
        names = (os.path.basename(line)[: -len(".ko")].replace("-", "_") for line in built_in.splitlines())
        return self.args["state"] == "present" and plain in names

    def _wanted_files(self) -> dict[str, str | None]:
        """Return path -> text, or None for no file, of what decides about the next boot."""
        if self.args["persistent"] == "disabled":
            return {}
        wanted = self.args["persistent"] == "present"
        params = self.args["params"]
        options = "options %s %s\n" % (self.name, params) if wanted and params else None
        return {
            os.path.join(LOAD_D, self.name + ".conf"): self.name + "\n" if wanted else None,
            os.path.join(OPTIONS_D, self.name + ".conf"): options,
        }

    def _text(self, path: str) -> str | None:
        return self.system.read_text(path) if os.path.exists(path) else None

    def _modprobe(self, *words: str) -> None:
        program = self.system.which("modprobe") or self.system.which("modprobe", "/usr/sbin:/sbin")
        if program is None:
            raise ModuleError("program modprobe is not on this host", "install kmod", code="program-missing")
        done = self.system.run([program, *words], self.call.env, timeout_s=self.call.timeout_s)
        if done.rc != 0:
            raise self._refused(done.last_line or done.why, done.rc)

    def _refused(self, said: str, rc: int) -> Exception:
        release = os.uname().release
        if "not found in directory" in said:
            hint = "install the package with the modules of this kernel; a container uses those of its machine"
            message = "kernel module %s is not there for the running kernel %s" % (self.name, release)
            return absent(self.call, message, hint, code="kernel-module-missing", rc=rc)
        if "Operation not permitted" in said or "Permission denied" in said:
            hint = "become: true is missing; in a container it is loaded on the machine it runs on"
            return ModuleError("kernel module %s may not be loaded here" % self.name, hint, code="root-needed", rc=rc)
        if "Key was rejected" in said or "Required key not available" in said:
            hint = "sign the module and enroll its key (mokutil), or turn Secure Boot off"
            message = "kernel module %s is not signed by a key that Secure Boot accepts" % self.name
            return ModuleError(message, hint, code="secure-boot", rc=rc)
        if "is in use" in said:
            message = "kernel module %s is in use" % self.name
            return ModuleError(message, "lsmod and fuser -v /dev/nvidia* show by what", code="busy", rc=rc)
        return ModuleError("modprobe: %s" % said.replace("modprobe: ", ""), code="modprobe-failed", rc=rc)


MODULE = Modprobe
