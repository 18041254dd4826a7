"""The 30-task play that every tool must carry out, as data.

bench.py stages it (inventories, generated files) and computes from it the end
state that each host must show; the Python peers read their task lists from it.
The Ansible and Salt peers spell the same tasks out in their own language.
"""

import hashlib
import json
import os
import platform
from pathlib import Path

import jinja2

HERE = Path(__file__).resolve().parent
TEMPLATES = HERE / "templates"

GROUP = {"name": "gpuops", "gid": 2100}
USER = {"name": "gpuops", "uid": 2100, "group": "gpuops", "shell": "/bin/bash", "home": "/home/gpuops"}
PACKAGE = "ca-certificates"

# path, mode, owner, group
DIRS = [
    ("/opt/gpu", 0o755, "root", "root"),
    ("/opt/gpu/bin", 0o755, "root", "root"),
    ("/opt/gpu/etc", 0o750, "root", "gpuops"),
    ("/var/lib/gpu", 0o755, "root", "root"),
    ("/var/lib/gpu/cache", 0o770, "gpuops", "gpuops"),
    ("/var/log/gpu", 0o750, "gpuops", "gpuops"),
]
# source, path, mode
RENDERED = [
    ("cuda.sh.j2", "/etc/profile.d/cuda.sh", 0o644),
    ("cuda.conf.j2", "/etc/ld.so.conf.d/cuda.conf", 0o644),
    ("blacklist-nouveau.conf.j2", "/etc/modprobe.d/blacklist-nouveau.conf", 0o644),
    ("90-gpu-sysctl.conf.j2", "/etc/sysctl.d/90-gpu.conf", 0o644),
    ("90-gpu-limits.conf.j2", "/etc/security/limits.d/90-gpu.conf", 0o644),
    ("motd.j2", "/etc/motd", 0o644),
]
# source, path, mode, owner, group
COPIED = [
    ("gpu-health", "/opt/gpu/bin/gpu-health", 0o755, "root", "root"),
    ("dcgm.yaml", "/opt/gpu/etc/dcgm.yaml", 0o640, "root", "gpuops"),
    ("topology.xml", "/opt/gpu/etc/topology.xml", 0o644, "root", "root"),
    ("kernels.bin", "/var/lib/gpu/kernels.bin", 0o644, "root", "root"),
]
# link, target
LINKS = [
    ("/usr/local/bin/gpu-health", "/opt/gpu/bin/gpu-health"),
    ("/etc/gpu", "/opt/gpu/etc"),
    ("/var/lib/gpu/logs", "/var/log/gpu"),
]
# file, pattern that the present line matches, line
LINES = [
    ("/etc/default/gpu-agent", "^#*PERSISTENCE=.*$", "PERSISTENCE=1"),
    ("/etc/default/grub", "^GRUB_CMDLINE_LINUX=.*$", 'GRUB_CMDLINE_LINUX="modprobe.blacklist=nouveau iommu=pt"'),
    ("/etc/environment", "^NVIDIA_VISIBLE_DEVICES=.*$", "NVIDIA_VISIBLE_DEVICES=all"),
]
LINE_RESULTS = {
    "/etc/default/gpu-agent": "# options of the GPU agent\nPERSISTENCE=1\nPOWER_LIMIT=700\nECC=1\n",
    "/etc/default/grub": "GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\n"
    'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'
    'GRUB_CMDLINE_LINUX="modprobe.blacklist=nouveau iommu=pt"\n',
    "/etc/environment": "LANG=C.UTF-8\nNVIDIA_VISIBLE_DEVICES=all\n",
}
COMMANDS = [
    "nvidia-smi --query-gpu=index,name,driver_version --format=csv,noheader",
    "ldconfig -p",
    "uname -r",
    "python3 -c 'import platform; print(platform.python_version())'",
]
TASKS = 1 + 2 + 1 + len(DIRS) + len(RENDERED) + len(COPIED) + len(LINKS) + len(LINES) + len(COMMANDS)
assert TASKS == 30

JINJA = {"trim_blocks": True, "keep_trailing_newline": True, "undefined": jinja2.StrictUndefined}
_environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), **JINJA)


def host_vars(index):
    """Inventory variables of host gpu<index>."""
    train = index % 3 != 0
    return {
        "inventory_name": f"gpu{index}",
        "rack": f"r{index // 8:02d}",
        "role": "train" if train else "infer",
        "gpu_count": 8 if train else 4,
        "gpu_model": "H100-SXM" if train else "L40S",
        "cuda_version": "12.6" if index % 5 else "12.4",
        "extra_libs": ["/opt/gpu/lib", "/opt/nccl/lib"] if train else ["/opt/gpu/lib"],
        "hugepages_per_gpu": 1024,
        "memlock": "unlimited",
        "nofile": 1048576,
    }


def facts(name):
    """What fact gathering must find on a fleet host (they share this kernel)."""
    return {"fact_hostname": name, "fact_kernel": platform.release(), "fact_cpus": os.cpu_count()}


def render(source, variables):
    return _environment.get_template(source).render(variables)


def stage_files(target):
    """Write the files that the play copies: small ones as they are, large ones generated."""
    target.mkdir(parents=True, exist_ok=True)
    for source in ("gpu-health", "dcgm.yaml"):
        (target / source).write_bytes((HERE / "files" / source).read_bytes())
    gpus = "".join(
        f'  <gpu id="{a}"><link to="{b}" kind="nvlink" lanes="{18 - (a + b) % 3}" gbps="{900 - a * b}"/></gpu>\n'
        for a in range(16)
        for b in range(16)
    )
    (target / "topology.xml").write_text(f"<topology>\n{gpus}</topology>\n")
    (target / "kernels.bin").write_bytes(hashlib.shake_256(b"kernels").digest(1 << 20))


def load_hosts(lab):
    """[(name, address, port, variables)] of a staged lab folder."""
    return [(h["name"], h["address"], h["port"], h["vars"]) for h in json.loads((Path(lab) / "hosts.json").read_text())]


def expected(name, variables, files):
    """Path -> [kind, mode, owner, group, content] that the host must show at the end."""
    values = variables | facts(name)

    def regular(mode, owner, group, data):
        return ["file", f"{mode:04o}", owner, group, hashlib.sha256(data).hexdigest()]

    want = {path: ["dir", f"{mode:04o}", owner, group, ""] for path, mode, owner, group in DIRS}
    for source, path, mode in RENDERED:
        want[path] = regular(mode, "root", "root", render(source, values).encode())
    for source, path, mode, owner, group in COPIED:
        want[path] = regular(mode, owner, group, (files / source).read_bytes())
    for path, target in LINKS:
        want[path] = ["link", "", "", "", target]
    for path, text in LINE_RESULTS.items():
        want[path] = regular(0o644, "root", "root", text.encode())
    want["user:gpuops"] = ["user", "2100", "2100", "/home/gpuops", "/bin/bash"]
    want["dir:/home/gpuops"] = ["exists", "", "", "", ""]
    return want


# Run on a host with the managed paths as arguments: prints its end state as JSON.
PROBE = r"""
import grp, hashlib, json, os, pwd, stat, sys
got, times = {}, {}
for path in sys.argv[1:]:
    try:
        s = os.lstat(path)
    except OSError:
        got[path] = None
        continue
    if stat.S_ISLNK(s.st_mode):
        got[path] = ["link", "", "", "", os.readlink(path)]
    else:
        kind, content = ("dir", "") if stat.S_ISDIR(s.st_mode) else ("file", "")
        if kind == "file":
            with open(path, "rb") as f:
                content = hashlib.sha256(f.read()).hexdigest()
            times[path] = [s.st_ino, s.st_mtime_ns]
        got[path] = [kind, "%04o" % (s.st_mode & 0o7777), pwd.getpwuid(s.st_uid).pw_name,
                     grp.getgrgid(s.st_gid).gr_name, content]
try:
    u = pwd.getpwnam("gpuops")
    got["user:gpuops"] = ["user", str(u.pw_uid), str(u.pw_gid), u.pw_dir, u.pw_shell]
except KeyError:
    pass
if os.path.isdir("/home/gpuops"):
    got["dir:/home/gpuops"] = ["exists", "", "", "", ""]
try:
    with open("/var/log/nvidia-smi.calls") as f:
        calls = len(f.readlines())
except OSError:
    calls = 0
print(json.dumps({"state": got, "times": times, "calls": calls}))
"""
