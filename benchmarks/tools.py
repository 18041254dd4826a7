"""The tools that are measured: how each is told to do the play.

Adding one is one function here."""

from dataclasses import dataclass, field
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"


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
