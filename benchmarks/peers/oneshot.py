"""The floor for the whole work: render here, send one tar and one script in one OpenSSH call per host.

No comparing, no reporting, no error messages worth having: a bound, not a tool.
"""

import base64
import io
import os
import shlex
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, os.environ["BENCH_WORKLOAD"])
import spec  # noqa: E402

LAB, FLEET = Path(os.environ["BENCH_LAB"]), Path(os.environ["BENCH_FLEET"])
# OpenSSH's default key exchange (sntrup761) costs the client 93 ms of CPU, curve25519 10 ms.
KEX = ["-o", "KexAlgorithms=curve25519-sha256"] if os.environ.get("BENCH_KEX") == "curve25519" else []


def script():
    group, user = spec.GROUP, spec.USER
    yield "set -e"
    yield f"getent group {group['name']} >/dev/null || groupadd -g {group['gid']} {group['name']}"
    yield (
        f"id -u {user['name']} >/dev/null 2>&1 || "
        f"useradd -u {user['uid']} -g {user['group']} -s {user['shell']} -d {user['home']} -m {user['name']}"
    )
    yield f"dpkg-query -W {spec.PACKAGE} >/dev/null"
    for path, mode, owner, grp in spec.DIRS:
        yield f"install -d -m {mode:o} -o {owner} -g {grp} {path}"
    yield "base64 -d <<'END' | tar -x -C / --no-same-owner"
    yield "@TAR@"
    yield "END"
    yield 'sed -i "s/@host@/$(hostname)/; s/@kernel@/$(uname -r)/; s/@cpus@/$(nproc)/" /etc/motd'
    for _, path, _, owner, grp in spec.COPIED:
        if (owner, grp) != ("root", "root"):
            yield f"chown {owner}:{grp} {path}"
    for path, target in spec.LINKS:
        yield f"ln -sfn {target} {path}"
    for path, pattern, line in spec.LINES:
        sed = shlex.quote(f"s|{pattern}|{line}|")
        yield (
            f"if grep -q {shlex.quote(pattern)} {path}; then sed -i {sed} {path}; "
            f"else echo {shlex.quote(line)} >> {path}; fi"
        )
    yield from spec.COMMANDS


SCRIPT = "\n".join(script())
FILES = {source: (LAB / "files" / source).read_bytes() for source, *_ in spec.COPIED}


def provision(name, address, port, variables):
    values = variables | {"fact_hostname": "@host@", "fact_kernel": "@kernel@", "fact_cpus": "@cpus@"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(path, mode, data):
            info = tarfile.TarInfo(path.lstrip("/"))
            info.mode, info.size = mode, len(data)
            tar.addfile(info, io.BytesIO(data))

        for source, path, mode in spec.RENDERED:
            add(path, mode, spec.render(source, values).encode())
        for source, path, mode, _, _ in spec.COPIED:
            add(path, mode, FILES[source])
    program = SCRIPT.replace("@TAR@", base64.encodebytes(buffer.getvalue()).decode().rstrip())
    subprocess.run(
        ["ssh", "-F", str(FLEET / "ssh_config"), *KEX, name, "sh", "-s"],
        input=program.encode(),
        stdout=subprocess.DEVNULL,
        check=True,
    )


hosts = spec.load_hosts(LAB)
with ThreadPoolExecutor(min(len(hosts), int(os.environ["BENCH_FORKS"]))) as pool:
    for done in [pool.submit(provision, *h) for h in hosts]:
        done.result()
