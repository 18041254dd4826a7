"""What makes a lab host of a copy of this machine: its own names, keys, sshd and pid 1.

Everything is written into the host's copy-on-write layer before its first start.
"""

from __future__ import annotations

import glob
import os
import shutil
from typing import TYPE_CHECKING

from gpuprov.lab.layout import FIRST_START, INSIDE
from gpuprov.lab.root import READY, HostSpec, Layer

if TYPE_CHECKING:
    from gpuprov.lab.options import User

_INIT = """\
# Process 1 of a lab host: keeps sshd running and reaps orphans (every shell that waits does).
# Ends with 64 to be started again, with 65 to stay off.
end() {{
    trap '' HUP INT TERM
    kill -TERM -1
    sleep 0.1
    exit "$1"
}}
trap 'end 64' HUP
trap 'end 65' INT TERM
mkdir -p -m 755 /run/sshd /run/user
mkdir -p -m 1777 /run/lock
{more}while :; do
    {sshd} -D -e -f {inside}/sshd_config &
    wait
    sleep 0.2
done
"""

#: The fabric manager of simulated NVSwitches: a process of that name, for as long as no fault has ended it.
#: Not a child of process 1's shell, which waits for those.
_FABRIC_MANAGER = """\
(while :; do
    if grep -qs run {inside}/simulated/fabric-manager; then /usr/bin/nv-fabricmanager; fi
    sleep 1
done </dev/null >/dev/null 2>&1 &)
"""
_NV_FABRICMANAGER = """\
#!/bin/sh
# Simulated: does nothing but be there.
while grep -qs run {inside}/simulated/fabric-manager; do sleep 1; done
"""

#: reboot, poweroff, halt and shutdown ask an init that a lab host does not have: they ask INIT.
_SHUTDOWN = """\
#!/bin/sh
# Stands in for this command on a lab host, whose process 1 is a shell.
action={action} delay=0
for word in "$@"; do
    case $word in
        -r | --reboot) action=HUP ;;
        -h | -P | -H | -p | --poweroff | --halt) action=INT ;;
        +[0-9]*) delay=$((${{word#+}} * 60)) ;;
        -c) echo "nothing to cancel" >&2; exit 0 ;;
    esac
done
(sleep "$delay"; kill -s "$action" 1) >/dev/null 2>&1 </dev/null &
"""


def prepare(spec: HostSpec) -> None:
    """Make the host's copy-on-write layer, unless it has one from an earlier start. Raises OSError."""
    folder = spec.layout.layers(spec.name)
    ready = os.path.join(folder, READY)
    if os.path.exists(ready):
        return
    shutil.rmtree(folder, ignore_errors=True)
    _furnish(spec, Layer(folder))
    with open(ready, "w", encoding="ascii"):
        pass


def _furnish(spec: HostSpec, layer: Layer) -> None:
    options = spec.options
    _names(spec, layer)
    _accounts(layer)
    _sshd(spec, layer)
    _power(layer)
    if options.gpus:
        _simulated_gpus(spec, layer)
    if options.python:
        _python(options.python, layer)
    script = [*(["ldconfig\n"] if options.python else []), *map(add_user, options.users)]
    if script:
        layer.write(FIRST_START, "".join(script), 0o600)
    if options.profile_noise:
        _noise(options.profile_noise, layer)
    if options.seed:
        layer.copy(options.seed)
    for path, text in options.files.items():
        layer.write(path, text)
    layer.folder("/var/lib/gpuprov", 0o700)


def _names(spec: HostSpec, layer: Layer) -> None:
    layer.write("/etc/hostname", f"{spec.name}\n")
    layer.write("/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{spec.address} {spec.name}\n")
    layer.write("/etc/machine-id", f"{os.urandom(16).hex()}\n", 0o444)
    if os.path.exists("/etc/resolv.conf"):  # often a link into /run, which a host has of its own
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as f:
            layer.write("/etc/resolv.conf", f.read())


def _accounts(layer: Layer) -> None:
    """Empty homes, and a root that sshd lets in with a key."""
    layer.empty("/root", 0o700)
    layer.empty("/home", 0o755)
    with open("/etc/shadow", encoding="utf-8") as f:
        others = [line for line in f if not line.startswith("root:")]
    # "*" is no password; the "!" of some images would lock root out for its key too
    layer.write("/etc/shadow", "".join(["root:*:19000:0:99999:7:::\n", *others]), like="/etc/shadow")


def add_user(user: User) -> str:
    """Return the shell commands that make *user*."""
    lines = [f"useradd --create-home --shell {user.shell} --password '*' {user.name}"]
    if user.password:
        lines.append(f"chpasswd <<'END'\n{user.name}:{user.password}\nEND")
    if user.sudo:
        word = "NOPASSWD: " if user.sudo == "free" else ""
        rule = f"/etc/sudoers.d/{user.name}"
        lines += [f"echo '{user.name} ALL=(ALL:ALL) {word}ALL' >{rule}", f"chmod 440 {rule}"]
    return "\n".join(lines) + "\n"


def sshd_settings(spec: HostSpec) -> list[str]:
    """Return the lines of the host's sshd_config."""
    options = spec.options
    lines = [
        *options.sshd_config,
        f"Port {spec.port}",
        f"ListenAddress {spec.address}",
        f"HostKey {INSIDE}/host_key",
        f"AuthorizedKeysFile {INSIDE}/authorized_keys",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        f"UsePAM {'yes' if options.pam or options.booted else 'no'}",
        "PermitUserEnvironment no",
        "StrictModes no",
        "PidFile none",
        "PrintMotd no",
        "MaxStartups 1000:30:2000",
        "MaxSessions 100",
        "LogLevel VERBOSE",
        "Subsystem sftp internal-sftp",
    ]
    if options.banner:
        lines.append(f"Banner {INSIDE}/banner")
    if options.force_command:
        lines.append(f"ForceCommand {options.force_command}")
    return lines


def _sshd(spec: HostSpec, layer: Layer) -> None:
    options = spec.options
    if options.pam:  # a login id may be set once, and who started the lab has set it
        with open("/etc/pam.d/sshd", encoding="utf-8") as f:
            layer.write("/etc/pam.d/sshd", "".join(line for line in f if "pam_loginuid" not in line))
    if options.banner:
        layer.write(f"{INSIDE}/banner", options.banner)
    layer.folder(INSIDE, 0o755)
    layer.write(f"{INSIDE}/sshd_config", "\n".join(sshd_settings(spec)) + "\n")
    more = _FABRIC_MANAGER.format(inside=INSIDE) if options.gpus else ""
    layer.write(f"{INSIDE}/init", _INIT.format(inside=INSIDE, sshd=spec.sshd, more=more))
    with open(spec.host_key, encoding="ascii") as f:
        layer.write(f"{INSIDE}/host_key", f.read(), 0o600)
    layer.write(f"{INSIDE}/authorized_keys", spec.authorized_key)
    for key in glob.glob("/etc/ssh/ssh_host_*"):  # the machine's own are none of a host's business
        layer.hide(key)


def _power(layer: Layer) -> None:
    for name in ("reboot", "shutdown", "poweroff", "halt"):
        text = _SHUTDOWN.format(action="HUP" if name == "reboot" else "INT")
        layer.write(f"/usr/sbin/{name}", text, 0o755)
    # A package's services would listen on this machine's addresses: they are not started.
    layer.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)


def _simulated_gpus(spec: HostSpec, layer: Layer) -> None:
    """Install the simulated NVML where the loader looks without being told, and what the lab's folder shows."""
    (library,) = glob.glob(spec.layout.host(spec.name, "gpus", "libnvidia-ml.so.*"))
    folder = _loader_folder()
    layer.put(f"{folder}/{os.path.basename(library)}", library)
    layer.link(f"{folder}/libnvidia-ml.so.1", os.path.basename(library))
    layer.folder(f"{INSIDE}/simulated", 0o755)
    for name in ("gpus", "kmsg"):
        layer.link(f"{INSIDE}/{name}", f"simulated/{name}")
    layer.write("/usr/bin/nv-fabricmanager", _NV_FABRICMANAGER.format(inside=INSIDE), 0o755)


def _loader_folder() -> str:
    """Return the folder that this process's C library was loaded from: the loader looks there by default."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as f:
        paths = [line.split(None, 5)[5].strip() for line in f if "/libc.so" in line or "/libc-" in line]
    if not paths:
        raise OSError("the folder of this machine's C library is unknown")
    return os.path.dirname(os.path.realpath(paths[0]))


def _python(python: str, layer: Layer) -> None:
    for folder in ("/usr/bin", "/usr/local/bin", "/bin"):
        for path in glob.glob(f"{folder}/python*"):
            if os.path.realpath(folder) == folder:
                layer.hide(path)
    if python != "none":
        name = os.path.basename(os.path.realpath(python))
        layer.link("/usr/bin/python3", f"{INSIDE}/python/bin/{name}")
        layer.folder(f"{INSIDE}/python", 0o755)
        layer.write("/etc/ld.so.conf.d/gpuprov-lab-python.conf", f"{INSIDE}/python/lib\n")


def _noise(text: str, layer: Layer) -> None:
    lines = "".join(f"echo '{line}'\n" for line in text.replace("'", "").splitlines())
    for path in ("/etc/profile.d/00-noise.sh", "/root/.bashrc", "/etc/skel/.bashrc", "/etc/fish/conf.d/noise.fish"):
        layer.write(path, lines)
    for path in ("/etc/csh.cshrc", "/etc/zsh/zshenv"):
        old = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as f:
                old = f.read()
        layer.write(path, lines + old)
