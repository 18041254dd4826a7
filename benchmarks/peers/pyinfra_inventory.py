"""pyinfra inventory of the staged lab named by BENCH_LAB."""

import json
import os
from pathlib import Path

_lab = Path(os.environ["BENCH_LAB"])
_fleet = Path(os.environ["BENCH_FLEET"])
fleet = [
    (
        h["name"],
        {
            "ssh_hostname": h["address"],
            "ssh_port": h["port"],
            "ssh_user": "root",
            "ssh_key": str(_fleet / "id"),
            "ssh_known_hosts_file": str(_fleet / "known_hosts"),
            "ssh_strict_host_key_checking": "yes",
            "ssh_allow_agent": False,
            "ssh_look_for_keys": False,
            **h["vars"],
        },
    )
    for h in json.loads((_lab / "hosts.json").read_text())
]
