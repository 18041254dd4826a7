"""The play for pyinfra. Run by bench.py with BENCH_LAB naming the staged lab."""

import os
import sys
from pathlib import Path

sys.path.insert(0, os.environ["BENCH_WORKLOAD"])
import spec  # noqa: E402
from pyinfra import host  # noqa: E402
from pyinfra.facts import hardware, server as server_facts  # noqa: E402
from pyinfra.operations import apt, files, server  # noqa: E402

staged = Path(os.environ["BENCH_LAB"]) / "files"
variables = {key: host.data.get(key) for key in spec.host_vars(1)}
variables["fact_hostname"] = host.get_fact(server_facts.Hostname)
variables["fact_kernel"] = host.get_fact(server_facts.KernelVersion)
variables["fact_cpus"] = host.get_fact(hardware.Cpus)

server.group(name="Operations group", group=spec.GROUP["name"], gid=spec.GROUP["gid"])
server.user(
    name="Operations user",
    user=spec.USER["name"],
    uid=spec.USER["uid"],
    group=spec.USER["group"],
    shell=spec.USER["shell"],
    home=spec.USER["home"],
    create_home=True,
)
apt.packages(name="Certificates are installed", packages=[spec.PACKAGE])
for path, mode, owner, group in spec.DIRS:
    files.directory(name=f"Folder {path}", path=path, mode=f"{mode:o}", user=owner, group=group)
for source, path, mode in spec.RENDERED:
    files.template(
        name=f"Template {path}",
        src=str(spec.TEMPLATES / source),
        dest=path,
        mode=f"{mode:o}",
        jinja_env_kwargs={"trim_blocks": True},
        **variables,
    )
for source, path, mode, owner, group in spec.COPIED:
    files.put(name=f"Copy {path}", src=str(staged / source), dest=path, mode=f"{mode:o}", user=owner, group=group)
for path, target in spec.LINKS:
    files.link(name=f"Link {path}", path=path, target=target)
for path, pattern, line in spec.LINES:
    files.line(name=f"Line in {path}", path=path, line=pattern, replace=line)
for command in spec.COMMANDS:
    server.shell(name=command.split()[0], commands=[command])
