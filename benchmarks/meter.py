"""Measure one command: `meter.py OUT TIMEOUT COMMAND...` runs it and writes what it took to OUT."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


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
    """Run COMMAND of OUT TIMEOUT COMMAND..., write what it took to OUT.

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


if __name__ == "__main__":
    sys.exit(meter(sys.argv[1:]))
