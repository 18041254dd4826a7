"""What is not imported and how many descriptors there are. What a connection costs is measured in benchmarks/."""

from __future__ import annotations

import subprocess
import sys

from gpuprov.transport.ways import raise_descriptor_limit


def test_paramiko_is_imported_only_to_connect() -> None:
    script = (
        "import sys\n"
        "from gpuprov.transport.target import ConnectOptions, target_of\n"
        "from gpuprov.transport.ways import Ways\n"
        "o = ConnectOptions(home='/nonexistent', system_ssh_config='/dev/null')\n"
        "w = Ways(o)\n"
        "w.route(target_of('h', {}, o))\n"
        "w.connect(target_of('h', {'ansible_connection': 'local'}, o)).close()\n"
        "print('paramiko' in sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert out.stdout == "False\n"


def test_the_descriptor_limit_is_raised_as_far_as_allowed() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        raise_descriptor_limit(1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
        raise_descriptor_limit(200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(1456, before[1])
        raise_descriptor_limit(10**9)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
