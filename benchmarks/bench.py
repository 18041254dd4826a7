#!/usr/bin/env python3
#!/usr/bin/env python3
"""Measure fleet provisioning tools against each other on a loopback sshd fleet.

    bench.py --tools ansible,mitogen,pyinfra,floor --hosts 50 --reps 3 --json results.json

For every repetition and tool: fresh hosts, a first run (everything changes), a
check of every host's end state, a second run (nothing to change), the check
again. Prints a Markdown table of medians; --json keeps every single run, and
appends to a file that is already there. See README.md.

Adding a tool is one function in tools.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fleet import HERE, Fleet, judge, machine_busy, probe, stage
from tables import about, table
from tools import TOOLS, Lab


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
            [sys.executable, HERE / "meter.py", out, str(limit), *map(str, command.argv)],
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


def main():
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
