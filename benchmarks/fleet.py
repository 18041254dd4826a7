"""The hosts: a fleet of real sshd, what tools need to reach it, and whether each host ended as it should."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import PEERS

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")


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


def machine_busy():
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / TICK
