"""Floor: one paramiko connection and one `python3 -c pass` per host, a thread pool."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, os.environ["BENCH_WORKLOAD"])
import paramiko  # noqa: E402
import spec  # noqa: E402

FLEET = Path(os.environ["BENCH_FLEET"])


def touch(name, address, port, variables):
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(FLEET / "known_hosts"))
        client.connect(
            address,
            port=port,
            username="root",
            key_filename=str(FLEET / "id"),
            allow_agent=False,
            look_for_keys=False,
            timeout=60,
            banner_timeout=60,
            auth_timeout=60,
        )
        _, out, _ = client.exec_command("python3 -c pass")
        assert out.channel.recv_exit_status() == 0


hosts = spec.load_hosts(os.environ["BENCH_LAB"])
with ThreadPoolExecutor(min(len(hosts), int(os.environ["BENCH_FORKS"]))) as pool:
    for done in [pool.submit(touch, *h) for h in hosts]:
        done.result()
