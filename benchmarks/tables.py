"""What bench.py says: the table of medians, and on which machine."""

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

from tools import TOOLS

PAGE = os.sysconf("SC_PAGE_SIZE")


def median(rows, key):
    return statistics.median(r[key] for r in rows)


#: What "x yardstick" is relative to: the same number of hosts, the same phase, the same file.
YARDSTICK = "oneshot25519"


def table(runs):
    lines = [
        "| hosts | tool | run | n | wall s | x yardstick | user+sys s | ms CPU /host | hosts' CPU s | PSS MB | RSS MB "
        "| procs | conns | sessions | ok |",
        "|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    order = {name: i for i, name in enumerate(TOOLS)}
    groups = {}
    for r in runs:
        groups.setdefault((r["hosts"], order.get(r["tool"], 99), r["tool"], r["phase"]), []).append(r)
    floors = {}
    for (hosts, _, name, phase), rows in groups.items():
        if name == YARDSTICK:
            floors[hosts, phase] = rows
    for (hosts, _, name, phase), rows in sorted(groups.items(), key=lambda g: (g[0][0], g[0][3] != "first", g[0][1])):
        wall = median(rows, "wall_s")
        cpu = statistics.median(r["user_s"] + r["sys_s"] for r in rows)
        ratio = f"{wall / median(floors[hosts, phase], 'wall_s'):.2f}" if (hosts, phase) in floors else ""
        good = sum(r["ok"] for r in rows)
        late = any(r["timed_out"] for r in rows)
        lines.append(
            f"| {hosts} | {name} | {phase} | {len(rows)} | {'>' if late else ''}{wall:.2f} | {ratio} | {cpu:.2f} "
            f"| {1000 * cpu / hosts:.1f} | {median(rows, 'host_cpu_s'):.1f} | {median(rows, 'pss_mb'):.0f} "
            f"| {median(rows, 'rss_mb'):.0f} | {median(rows, 'processes'):.0f} | {median(rows, 'connections'):.0f} "
            f"| {median(rows, 'sessions'):.0f} | {good}/{len(rows)} |"
        )
    return "\n".join(lines)


def about(lab):
    """The machine and the programs, for the result file."""

    def out(*argv):
        done = subprocess.run(list(map(str, argv)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout.strip()

    wanted = ("ansible-core", "mitogen", "pyinfra", "fabric", "paramiko", "salt", "jinja2", "gpuprov")
    packages = {}
    for venv in (lab.venv, lab.salt_venv):
        for info in venv.glob("lib/python*/site-packages/*.dist-info"):
            name, _, version = info.name[: -len(".dist-info")].partition("-")
            if (name := name.lower().replace("_", "-")) in wanted:
                packages.setdefault(name, version)
    cpus = [
        x.split(":", 1)[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")
    ]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * PAGE / 2**30),
        "kernel": platform.release(),
        "ssh": out("ssh", "-V"),
        "controller_python": out(lab.venv / "bin/python", "-V"),
        "host_python": out("/usr/bin/python3", "-V"),
        "packages": dict(sorted(packages.items())),
    }
