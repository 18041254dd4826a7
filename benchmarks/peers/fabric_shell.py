"""What a script author writes: Fabric, one shell command or upload per step, a thread per host.

Uploads are not compared first, so a second run writes every file again.
"""

import io
import os
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, os.environ["BENCH_WORKLOAD"])
import paramiko  # noqa: E402
import spec  # noqa: E402
from fabric import Config, Connection  # noqa: E402

LAB, FLEET = Path(os.environ["BENCH_LAB"]), Path(os.environ["BENCH_FLEET"])


def provision(name, address, port, variables):
    config = Config(overrides={"load_ssh_configs": False, "run": {"hide": True, "in_stream": False}})
    kwargs = {"key_filename": str(FLEET / "id"), "allow_agent": False, "look_for_keys": False}
    with Connection(address, user="root", port=port, config=config, connect_kwargs=kwargs) as c:
        c.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        c.client.load_system_host_keys(str(FLEET / "known_hosts"))
        values = variables | {
            "fact_hostname": c.run("hostname").stdout.strip(),
            "fact_kernel": c.run("uname -r").stdout.strip(),
            "fact_cpus": c.run("nproc").stdout.strip(),
        }
        group, user = spec.GROUP, spec.USER
        c.run(f"getent group {group['name']} || groupadd -g {group['gid']} {group['name']}")
        c.run(
            f"id -u {user['name']} || "
            f"useradd -u {user['uid']} -g {user['group']} -s {user['shell']} -d {user['home']} -m {user['name']}"
        )
        c.run(f"dpkg -s {spec.PACKAGE} || apt-get install -y {spec.PACKAGE}")
        for path, mode, owner, grp in spec.DIRS:
            c.run(f"install -d -m {mode:o} -o {owner} -g {grp} {path}")
        for source, path, mode in spec.RENDERED:
            c.put(io.BytesIO(spec.render(source, values).encode()), path)
            c.run(f"chmod {mode:o} {path} && chown root:root {path}")
        for source, path, mode, owner, grp in spec.COPIED:
            c.put(str(LAB / "files" / source), path)
            c.run(f"chmod {mode:o} {path} && chown {owner}:{grp} {path}")
        for path, target in spec.LINKS:
            c.run(f"ln -sfn {target} {path}")
        for path, pattern, line in spec.LINES:
            old, new = shlex.quote(pattern), shlex.quote(line)
            sed = shlex.quote(f"s|{pattern}|{line}|")
            c.run(f"if grep -q {old} {path}; then sed -i {sed} {path}; else echo {new} >> {path}; fi")
        for command in spec.COMMANDS:
            c.run(command)


hosts = spec.load_hosts(LAB)
with ThreadPoolExecutor(min(len(hosts), int(os.environ["BENCH_FORKS"]))) as pool:
    for done in [pool.submit(provision, *h) for h in hosts]:
        done.result()
