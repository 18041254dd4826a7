#!/usr/bin/env python3
"""Measure fleet provisioning tools against each other on a loopback sshd fleet.

    bench.py --tools ansible,mitogen,pyinfra,floor --hosts 50 --reps 3 --json results.json

For every repetition and tool: fresh hosts, a first run (everything changes), a
check of every host's end state, a second run (nothing to change), the check
again. Prints a Markdown table of medians; --json keeps every single run, and
appends to a file that is already there. See README.md.

Adding a tool is one function under "The tools" below.
"""

import argparse
import ctypes
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


# -- The tools ---------------------------------------------------------------


@dataclass
class Lab:
    """Where one tool finds the hosts and the staged material."""

    fleet: Path  # id, known_hosts, ssh_config (aliases gpu1..gpuN)
    stage: Path  # hosts.json, ansible.json, roster, files/
    home: Path  # a clean $HOME
    venv: Path
    salt_venv: Path
    gpuprov: Path
    count: int

    @property
    def forks(self):
        return min(self.count, 50)


@dataclass
class Command:
    argv: list
    env: dict = field(default_factory=dict)
    works: bool = True  # does the play (False: a floor, no end state to check)


TOOLS = {}


def tool(name):
    def register(function):
        TOOLS[name] = function
        return function

    return register


def _ansible(lab, **env):
    return Command(
        [lab.venv / "bin/ansible-playbook", "-i", lab.stage / "ansible.json", PEERS / "play.yml"],
        {
            "ANSIBLE_CONFIG": PEERS / "ansible.cfg",
            "ANSIBLE_HOME": lab.home / "ansible",
            "ANSIBLE_FORKS": lab.forks,
            "ANSIBLE_NOCOLOR": 1,
            **env,
        },
    )


def _mitogen(lab, strategy):
    found = sorted(lab.venv.glob("lib/python*/site-packages/ansible_mitogen/plugins/strategy"))
    return _ansible(lab, ANSIBLE_STRATEGY=strategy, ANSIBLE_STRATEGY_PLUGINS=found[-1] if found else "missing")


@tool("ansible")
def ansible(lab):
    return _ansible(lab)


@tool("ansible-free")
def ansible_free(lab):
    return _ansible(lab, ANSIBLE_STRATEGY="free")


@tool("mitogen")
def mitogen(lab):
    return _mitogen(lab, "mitogen_linear")


@tool("mitogen-free")
def mitogen_free(lab):
    return _mitogen(lab, "mitogen_free")


@tool("pyinfra")
def pyinfra(lab):
    return Command([lab.venv / "bin/pyinfra", "-y", PEERS / "pyinfra_inventory.py", PEERS / "pyinfra_deploy.py"])


@tool("gpuprov")
def gpuprov(lab):
    """The very playbook that Ansible runs, unmodified."""
    return Command(
        [lab.gpuprov, "apply", lab.stage / "ansible.json", PEERS / "play.yml", "--forks", lab.count],
        {"XDG_STATE_HOME": lab.home / "state", "XDG_CACHE_HOME": lab.home / "cache"},
    )


@tool("salt-ssh")
def salt_ssh(lab):
    return Command(
        [
            lab.salt_venv / "bin/salt-ssh",
            "--config-dir",
            lab.stage / "salt",
            "--max-procs",
            lab.forks,
            "--static",
            "*",
            "state.apply",
            "gpu",
        ]
    )


@tool("fabric")
def fabric(lab):
    return Command([lab.venv / "bin/python", PEERS / "fabric_shell.py"])


@tool("oneshot")
def oneshot(lab):
    return Command([lab.venv / "bin/python", PEERS / "oneshot.py"])


@tool("oneshot25519")
def oneshot25519(lab):
    return Command([lab.venv / "bin/python", PEERS / "oneshot.py"], {"BENCH_KEX": "curve25519"})


@tool("floor")
def floor(lab):
    loop = f"xargs -P {lab.forks} -I@ ssh -F '{lab.fleet}/ssh_config' @ 'python3 -c pass'"
    return Command(["sh", "-c", f"cut -d' ' -f1 '{lab.fleet}/hosts' | {loop}"], works=False)


@tool("floor-paramiko")
def floor_paramiko(lab):
    return Command([lab.venv / "bin/python", PEERS / "floor_paramiko.py"], works=False)


# -- Measuring one command ---------------------------------------------------


def descendants(pid):
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as f:
                    children = [int(c) for c in f.read().split()]
                found += children
                queue += children
        except OSError:
            continue
    return found


def memory(pids):
    """(sum of resident sets, sum of proportional sets) in bytes."""
    rss = pss = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                for line in f:
                    if line.startswith("Rss:"):
                        rss += int(line.split()[1]) * 1024
                    elif line.startswith("Pss:"):
                        pss += int(line.split()[1]) * 1024
        except OSError:
            continue
    return rss, pss


def meter(argv):
    """`bench.py __meter OUT TIMEOUT COMMAND...`: run COMMAND, write what it took to OUT.

    Its own process, as a child subreaper, so that daemonised helpers (ssh
    ControlPersist masters) stay its descendants and their CPU is counted.
    """
    out, limit, command = argv[0], float(argv[1]), argv[2:]
    me = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(36, 1, 0, 0, 0) != 0:  # PR_SET_CHILD_SUBREAPER
        raise OSError(ctypes.get_errno(), "prctl")
    peak = {"rss": 0, "pss": 0, "processes": 0}
    stop = threading.Event()

    def sample():
        delay = 0.05
        while not stop.wait(delay):
            before = time.thread_time()
            pids = descendants(me)
            rss, pss = memory(pids)
            peak["rss"], peak["pss"] = max(peak["rss"], rss), max(peak["pss"], pss)
            peak["processes"] = max(peak["processes"], len(pids))
            # at most about 3 % of one core, whatever the number of processes
            delay = max(0.1, 30 * (time.thread_time() - before))

    sampler = threading.Thread(target=sample)
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    sampler.start()
    timed_out = False
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        timed_out, code = True, 124
    wall = time.monotonic() - started
    stop.set()
    sampler.join()
    for sig in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + 5
        while (left := descendants(me)) and time.monotonic() < end:
            for pid in left:
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                break
    times = os.times()
    Path(out).write_text(
        json.dumps(
            {
                "rc": code,
                "timed_out": timed_out,
                "wall_s": round(wall, 3),
                "user_s": round(times.children_user, 2),
                "sys_s": round(times.children_system, 2),
                "rss_mb": round(peak["rss"] / 2**20),
                "pss_mb": round(peak["pss"] / 2**20),
                "processes": peak["processes"],
            }
        )
    )
    return 0


# -- The hosts ---------------------------------------------------------------


class Fleet:
    def __init__(self, state, port):
        self.state, self.port = state, port

    def _call(self, *words):
        subprocess.run(
            [HERE / "fleet.sh", "-s", self.state, "-p", str(self.port), "-d", HERE / "workload/seed", *words],
            check=True,
        )

    def reset(self, count):
        self._call("reset", str(count))

    def down(self):
        self._call("down")

    def hosts(self):
        return [line.split() for line in (self.state / "hosts").read_text().splitlines()]

    def cpu(self):
        """CPU seconds that the hosts have used: each one's sshd with all it has waited for."""
        total = 0
        for pidfile in self.state.glob("h[0-9]*/pid"):
            pid = pidfile.read_text().split()[0]
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                total += sum(map(int, Path(f"/proc/{child}/stat").read_text().rsplit(") ", 1)[1].split()[11:15]))
        return total / TICK

    def log_sizes(self):
        return {log: log.stat().st_size for log in self.state.glob("h[0-9]*/log")}

    def sessions_since(self, sizes):
        """(SSH connections, exec and sftp sessions) since log_sizes()."""
        connections = sessions = 0
        for log, size in sizes.items():
            with open(log, errors="replace") as f:
                f.seek(size)
                text = f.read()
            connections += text.count("Accepted publickey")
            sessions += text.count("Starting session")
        return connections, sessions


def stage(spec, fleet, lab):
    """Write inventories and files for every tool."""
    hosts = [
        {"name": name, "address": address, "port": int(port), "vars": spec.host_vars(index)}
        for index, (name, address, port) in enumerate(fleet.hosts(), 1)
    ]
    lab.stage.mkdir(parents=True, exist_ok=True)
    lab.home.mkdir(parents=True, exist_ok=True)
    files = lab.stage / "files"
    spec.stage_files(files)
    (lab.stage / "hosts.json").write_text(json.dumps(hosts, indent=1))
    shared = {
        "ansible_ssh_common_args": f"-F {lab.fleet / 'ssh_config'}",
        "templates_dir": str(spec.TEMPLATES),
        "files_dir": str(files),
    }
    inventory = {"all": {"vars": shared, "hosts": {h["name"]: h["vars"] for h in hosts}}}
    (lab.stage / "ansible.json").write_text(json.dumps(inventory, indent=1))
    salt = lab.stage / "salt"
    salt.mkdir(exist_ok=True)
    roster = {
        h["name"]: {
            "host": h["address"],
            "port": h["port"],
            "user": "root",
            "priv": str(lab.fleet / "id"),
            "ssh_options": [f"UserKnownHostsFile={lab.fleet / 'known_hosts'}"],
            "minion_opts": {"grains": h["vars"], "jinja_env": {"trim_blocks": True}},
        }
        for h in hosts
    }
    (salt / "roster").write_text(json.dumps(roster, indent=1))
    master = {
        "root_dir": str(lab.stage / "salt-root"),
        "pki_dir": "pki",
        "cachedir": "cache",
        "sock_dir": str(lab.stage / "salt-root/sock"),
        "log_file": "log",
        "ssh_log_file": "ssh-log",
        "roster_file": str(salt / "roster"),
        "file_roots": {"base": [str(PEERS / "salt"), str(spec.TEMPLATES), str(files)]},
        "user": "root",
    }
    (salt / "master").write_text(json.dumps(master, indent=1))


def probe(spec, fleet, wanted):
    paths = [p for p in next(iter(wanted.values())) if p.startswith("/")]

    def one(name):
        done = subprocess.run(
            ["ssh", "-F", fleet.state / "ssh_config", "-o", "ConnectTimeout=30", name, "python3", "-", *paths],
            input=spec.PROBE,
            capture_output=True,
            text=True,
        )
        return name, json.loads(done.stdout) if done.returncode == 0 else {"state": {}, "times": {}, "calls": 0}

    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(one, wanted))


def judge(wanted, found, runs):
    """{host: [what is not as it should be]}; empty when all is well."""
    bad = {}
    for name, want in wanted.items():
        have = found[name]
        wrong = [
            f"{key}: {have['state'].get(key)} not {value}"
            for key, value in want.items()
            if have["state"].get(key) != value
        ]
        if have["calls"] != runs:
            wrong.append(f"nvidia-smi ran {have['calls']} times, not {runs}")
        if wrong:
            bad[name] = wrong
    return bad


# -- The experiment ----------------------------------------------------------


def machine_busy():
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / TICK


def measure(command, lab, limit, log):
    env = {
        "PATH": f"{lab.venv / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(lab.home),
        "LANG": "C.UTF-8",
        "TMPDIR": tempfile.gettempdir(),
        "BENCH_LAB": str(lab.stage),
        "BENCH_FLEET": str(lab.fleet),
        "BENCH_WORKLOAD": str(HERE / "workload"),
        "BENCH_FORKS": str(lab.forks),
        **{key: str(value) for key, value in command.env.items()},
    }
    out = log.with_suffix(".json")
    with open(log, "wb") as sink:
        subprocess.run(
            [sys.executable, __file__, "__meter", out, str(limit), *map(str, command.argv)],
            env=env,
            cwd=lab.home,
            stdout=sink,
            stderr=subprocess.STDOUT,
            check=True,
        )
    return json.loads(out.read_text())


def run_tool(name, spec, fleet, lab, rep, limit):
    command = TOOLS[name](lab)
    fleet.reset(lab.count)
    stage(spec, fleet, lab)
    wanted = {n: spec.expected(n, v, lab.stage / "files") for n, _, _, v in spec.load_hosts(lab.stage)}
    before = None
    for number, phase in enumerate(("first", "again"), 1):
        load = os.getloadavg()[0]
        sizes, host_cpu, busy = fleet.log_sizes(), fleet.cpu(), machine_busy()
        row = {"tool": name, "hosts": lab.count, "rep": rep, "phase": phase, "load_before": round(load, 2)}
        row |= measure(command, lab, limit, lab.stage / f"{name}-{lab.count}-{rep}-{phase}.log")
        time.sleep(0.2)
        row["host_cpu_s"] = round(fleet.cpu() - host_cpu, 2)
        row["other_cpu_s"] = round(machine_busy() - busy - row["host_cpu_s"] - row["user_s"] - row["sys_s"], 2)
        row["connections"], row["sessions"] = fleet.sessions_since(sizes)
        bad = {}
        if command.works:
            found = probe(spec, fleet, wanted)
            bad = judge(wanted, found, number)
            if before is not None:
                row["rewritten"] = sum(
                    before[n]["times"].get(path) != when for n in found for path, when in found[n]["times"].items()
                )
            before = found
        row["ok"] = row["rc"] == 0 and not bad
        if bad:
            row["bad_hosts"] = len(bad)
            row["bad"] = dict(list(bad.items())[:2])
        yield row
        if row["timed_out"]:
            return


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


def main():
    if sys.argv[1:2] == ["__meter"]:
        return meter(sys.argv[2:])
    base = Path(os.environ.get("BENCH_STATE", Path(tempfile.gettempdir()) / "gpuprov-bench"))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tools", default="ansible,mitogen,pyinfra,floor", help=f"of {', '.join(TOOLS)}")
    p.add_argument("--hosts", type=int, default=10)
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--json", type=Path, help="keep the runs here; appended to when it exists")
    p.add_argument("--table", action="store_true", help="only print the table of --json")
    p.add_argument("--limit", type=float, default=480, help="seconds for a single run")
    p.add_argument("--state", type=Path, default=base, help="fleet, staged files and logs")
    p.add_argument("--port", type=int, default=int(os.environ.get("FLEET_PORT", 2222)))
    p.add_argument("--venv", type=Path, default=os.environ.get("BENCH_VENV", base / "venv"))
    p.add_argument("--salt-venv", type=Path, default=os.environ.get("BENCH_SALT_VENV", base / "salt-venv"))
    p.add_argument("--gpuprov", default=HERE.parent / ".venv/bin/gpuprov", help="the program to measure")
    p.add_argument("--keep", action="store_true", help="leave the fleet up at the end")
    a = p.parse_args()
    kept = json.loads(a.json.read_text()) if a.json and a.json.exists() else {"runs": []}
    runs = kept["runs"]
    if a.table:
        print(table(runs))
        return 0
    names = [n for n in a.tools.split(",") if n]
    unknown = [n for n in names if n not in TOOLS]
    if unknown:
        p.error(f"no such tool: {', '.join(unknown)}")
    sys.path[:0] = [str(HERE / "workload"), *map(str, Path(a.venv).glob("lib/python*/site-packages"))]
    sys.dont_write_bytecode = True
    import spec

    fleet = Fleet(a.state / "fleet", a.port)
    lab = Lab(
        fleet=fleet.state,
        stage=a.state / "stage",
        home=a.state / "home",
        venv=Path(a.venv),
        salt_venv=Path(a.salt_venv),
        gpuprov=Path(a.gpuprov).absolute(),
        count=a.hosts,
    )
    first = len(runs)
    kept["about"] = about(lab)
    done = max((r["rep"] for r in runs if r["hosts"] == a.hosts), default=0)
    try:
        for rep in range(done + 1, done + a.reps + 1):
            turn = (rep - 1) % len(names)  # a different tool goes first each time
            for name in names[turn:] + names[:turn]:
                for row in run_tool(name, spec, fleet, lab, rep, a.limit):
                    runs.append(row)
                    print(
                        f"{time.strftime('%H:%M:%S')} {name} x{a.hosts} rep {rep} {row['phase']}: {row['wall_s']} s, "
                        f"cpu {row['user_s'] + row['sys_s']:.1f} s, other {row['other_cpu_s']} s, "
                        f"{'ok' if row['ok'] else 'NOT OK ' + str(row.get('bad', row['rc']))[:600]}",
                        file=sys.stderr,
                        flush=True,
                    )
                    if a.json:
                        a.json.write_text(json.dumps(kept, indent=1) + "\n")
    finally:
        if not a.keep:
            fleet.down()
    print(table(runs[first:]))
    return 0 if all(r["ok"] for r in runs[first:]) else 1


if __name__ == "__main__":
    sys.exit(main())
