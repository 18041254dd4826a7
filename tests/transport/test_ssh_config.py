"""The evaluation of ssh_config against the real thing: `ssh -G` is the judge."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.errors import SourceErrors
from gpuprov.transport import ways

if TYPE_CHECKING:
    from pathlib import Path

    from gpuprov.transport.hop import Hop
    from tests.transport.conftest import Person

USER = getpass.getuser()
SSH = shutil.which("ssh")

#: configuration, host, further arguments of the ssh command line
CASES = {
    "nothing": ("", "gpu01", ""),
    "first value wins": ("Host gpu01\n Port 1\nHost *\n Port 2\n User late\nHost gpu01\n User later\n", "gpu01", ""),
    "before any host": ("User early\nHost gpu01\n User late\n", "gpu01", ""),
    "equals and quotes": ('Host gpu01\n HostName="10.0.0.1"\n Port = 23\n User\t"a b"\n', "gpu01", ""),
    "comments": ("# one\nHost gpu01 # two\n  Port 24 # three\n", "gpu01", ""),
    "case of keywords": ("HOST gpu01\n hOSTnAME x\n", "gpu01", ""),
    "case of hosts": ("Host gpu01\n Port 25\n", "GPU01", ""),
    "negation": ("Host gpu* !gpu01\n Port 26\nHost *\n Port 27\n", "gpu01", ""),
    "negation alone": ("Host !gpu02\n Port 28\n", "gpu01", ""),
    "question mark": ("Host gpu0?\n Port 29\n", "gpu01", ""),
    "tokens in host name": ("Host *\n HostName %h.example.com\n", "gpu01", ""),
    "match host sees the host name": ("Host gpu01\n HostName a.example\nMatch host *.example\n Port 30\n", "gpu01", ""),
    "match original host": ("Host gpu01\n HostName a.b\nMatch originalhost gpu*\n Port 31\n", "gpu01", ""),
    "match user": ("Host gpu01\n User bob\nMatch user bob,eve\n Port 32\n", "gpu01", ""),
    "match local user": (f"Match localuser {USER}\n Port 33\n", "gpu01", ""),
    "match negated": ("Match !host gpu02 originalhost gpu*\n Port 34\n", "gpu01", ""),
    "match all": ("Match all\n Port 35\n", "gpu01", ""),
    "match exec": ('Match exec true\n Port 36\nMatch exec "test %n = gpu02"\n User no\n', "gpu01", ""),
    "match exec not": ('Match !exec "test %h = gpu01"\n Port 37\n', "gpu01", ""),
    "match final": ("Host gpu01\n HostName x.y\nMatch final host x.y\n Port 38\n User fin\n", "gpu01", ""),
    "match canonical": ("Match canonical\n Port 39\n", "gpu01", ""),
    "match with equals": ("Match host=gpu01\n Port 40\n", "gpu01", ""),
    "several identities": ("Host gpu01\n IdentityFile /a\nHost *\n IdentityFile /b\n IdentityFile /a\n", "gpu01", ""),
    "identity tokens": ("IdentityFile /k/%h/%r/%p/%n/%%x/%u\nUser bob\n", "gpu01", ""),
    "identities only": ("IdentitiesOnly yes\n", "gpu01", ""),
    "command line wins": ("Host *\n Port 41\n User no\n", "gpu01", "-p 42 -l me -o HostName=there"),
    "identity on the command line": ("IdentityFile /conf\n", "gpu01", "-i /dev/null"),
    "known hosts": ("UserKnownHostsFile /a /b\nGlobalKnownHostsFile /c\n", "gpu01", ""),
    "checking": ("StrictHostKeyChecking accept-new\nHashKnownHosts yes\n", "gpu01", ""),
    "jump": ("Host gpu*\n ProxyJump a@b:9,c\n", "gpu01", ""),
    "jump on the command line": ("Host gpu*\n ProxyJump no\n", "gpu01", "-J door"),
    "jump before command": ("Host gpu*\n ProxyJump a\nHost *\n ProxyCommand nc %h %p\n", "gpu01", ""),
    "command before jump": ("Host gpu*\n ProxyCommand nc %h %p\nHost *\n ProxyJump a\n", "gpu01", ""),
    "none before jump": ("Host gpu*\n ProxyCommand none\nHost *\n ProxyJump a\n", "gpu01", ""),
    "jump none": ("Host gpu*\n ProxyJump none\nHost *\n ProxyCommand nc %h %p\n", "gpu01", ""),
    "keepalive": ("ServerAliveInterval 7\nServerAliveCountMax 5\nConnectTimeout 9\n", "gpu01", ""),
    "alias": ("HostKeyAlias rack\n", "gpu01", ""),
    "family and address": ("AddressFamily inet6\nBindAddress ::1\n", "gpu01", ""),
    "ignored ones": (
        "ControlMaster auto\nControlPath /tmp/%C\nForwardAgent yes\nLocalForward 1 a:2\nSendEnv A B\n"
        "LogLevel QUIET\nCompression yes\nTCPKeepAlive no\nSetEnv A=1 B=2\nPort 43\n",
        "gpu01",
        "",
    ),
    "ignore unknown": ("IgnoreUnknown UseKeychain,Foo*\nUseKeychain yes\nFoobar 1 2\nPort 44\n", "gpu01", ""),
    "authentication": ("PreferredAuthentications password,publickey\nPubkeyAuthentication no\n", "gpu01", ""),
    "include": ("Include {folder}/inc_*\nPort 45\n", "gpu01", ""),
    "include under host": ("Host other\n Include {folder}/inc_a\nHost *\n Port 46\n", "gpu01", ""),
    "include under host that matches": (
        "Host gpu01\n Include {folder}/inc_a\n User after\nHost *\n Port 47\n",
        "gpu01",
        "",
    ),
}


def ssh_g(config: Path, host: str, arguments: str) -> dict[str, list[str]]:
    assert SSH is not None
    words = [SSH, "-G", "-F", str(config), *arguments.split(), host]
    found: dict[str, list[str]] = {}
    for line in subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_ssh_says(person: Person, tmp_path: Path, name: str) -> None:
    text, host, arguments = CASES[name]
    (tmp_path / "inc_a").write_text("Host gpu01\n Port 71\nHost gpu02\n Port 72\n")
    (tmp_path / "inc_b").write_text("User included\n")
    config = tmp_path / "config"
    config.write_text(text.format(folder=tmp_path) if "{folder}" in text else text)
    config.chmod(0o600)
    said = ssh_g(config, host, arguments)
    hop = person.ways.route(person.target(name=host, ansible_ssh_common_args=f"-F {config} {arguments}"))
    assert hop.host.lower() == said["hostname"][0]
    assert str(hop.port) == said["port"][0]
    assert hop.user == said["user"][0]
    assert_files(hop, said)
    assert_ways(hop, said)
    assert hop.keys.identities_only is (said["identitiesonly"] == ["yes"])
    assert hop.hash_names is (said["hashknownhosts"] == ["yes"])
    assert hop.checking == {"accept-new": "accept-new"}.get(said["stricthostkeychecking"][0], "yes")
    assert ("publickey" in hop.methods) is (said["pubkeyauthentication"][0] in {"yes", "true"})
    assert hop.key_name == said.get("hostkeyalias", [hop.host])[0]
    assert hop.bind_address == said.get("bindaddress", [None])[0]
    assert hop.family == {"any": 0, "inet": socket.AF_INET, "inet6": socket.AF_INET6}[said["addressfamily"][0]]
    assert hop.keepalive_s == (int(said["serveraliveinterval"][0]) or 10)
    assert hop.connect_timeout_s == (int(said["connecttimeout"][0]) if said["connecttimeout"] != ["none"] else 5)


def assert_files(hop: Hop, said: dict[str, list[str]]) -> None:
    if hop.keys.explicit:

        def real(path: str) -> str:
            return os.path.expanduser(path).replace("%%", "%")

        tokens = {"%h": hop.host, "%r": hop.user, "%p": str(hop.port), "%n": "gpu01", "%u": USER}
        wanted = []
        for path in said["identityfile"]:
            for token, value in tokens.items():
                path = path.replace(token, value)
            wanted.append(real(path))
        assert list(hop.keys.files) == wanted
    else:
        assert all("/.ssh/id_" in path for path in said["identityfile"])
    if "/a" in said["userknownhostsfile"][0]:
        files = f"{said['userknownhostsfile'][0]} {said['globalknownhostsfile'][0]}"
        assert list(hop.known_hosts) == files.split()


def assert_ways(hop: Hop, said: dict[str, list[str]]) -> None:
    jump, command = said.get("proxyjump"), said.get("proxycommand")
    if jump:
        last = jump[0].split(",")[-1]
        assert hop.via is not None
        assert hop.via.label == last.rpartition("@")[2].partition(":")[0]
        assert hop.proxy_command is None
    else:
        assert hop.via is None
        expected = command[0].replace("%h", hop.host).replace("%p", str(hop.port)) if command else None
        assert hop.proxy_command == expected


MISTAKES = {
    "Prot 22": ('"Prot" is not an option of ssh', 'did you mean "port"?', 2),
    "Port": ("Port needs an argument", "", 2),
    "Port 22 23": ('Port takes one argument, "23" is too much', "", 2),
    "Port many": ('port is "many"', "a number from 1 to 65535", 2),
    'HostName "open': ('a quote (") is not closed', "", 2),
    "Match tagged x": ("Match tagged is not supported", "supported: all,", 2),
    "Match hots x": ('"hots" is not a criterion of Match', "allowed: all,", 2),
    "Match host": ("Match host needs an argument", "", 2),
    "RemoteCommand htop": ('remotecommand "htop" is not supported', "Host entry of their own", 2),
    "CanonicalizeHostname yes": ('canonicalizehostname "yes" is not supported', "full name", 2),
    "KnownHostsCommand /bin/x": ("is not supported", "UserKnownHostsFile", 2),
    "RevokedHostKeys /etc/x": ("is not supported", "@revoked", 2),
    "StrictHostKeyChecking maybe": ('stricthostkeychecking is "maybe"', "accept-new", 2),
    "AddressFamily ipx": ('addressfamily is "ipx"', "any, inet, inet6", 2),
    "IdentitiesOnly perhaps": ('identitiesonly is "perhaps"', "yes, no", 2),
    "Include ~/.ssh/config": ("nested more than 16 deep", "include itself", 2),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_found_with_their_line(person: Person, line: str) -> None:
    message, hint, number = MISTAKES[line]
    path = person.config(f"# first\n{line}\n")
    problems = person.ways.check([person.target(), person.target(name="gpu02")])
    assert len(problems) == 1
    assert message in problems[0].message
    assert hint in problems[0].hint
    assert problems[0].position is not None
    assert (problems[0].position.path, problems[0].position.line) == (str(path), number)


def test_all_mistakes_are_found_at_once(person: Person) -> None:
    person.config("Prot 1\nHosst x\nPort 1 2\n")
    problems = person.ways.check([person.target()])
    assert [p.position.line for p in problems if p.position] == [1, 2, 3]


def test_a_mistake_for_another_host_does_not_matter(person: Person) -> None:
    person.config("Host desk\n RemoteCommand htop\n CanonicalizeHostname yes\n")
    assert person.ways.check([person.target()]) == []


def test_unknown_tokens_and_variables(person: Person) -> None:
    person.config("Host a\n HostName %z\nHost b\n IdentityFile ${NO_SUCH_THING}/k\n")
    messages = [p.message for p in person.ways.check([person.target(name="a"), person.target(name="b")])]
    assert messages == [
        'host a: unknown token "%z" in "%z"',
        'host b: the environment has no NO_SUCH_THING, which "${NO_SUCH_THING}/k" needs',
    ]


def test_a_file_that_others_can_write_is_refused(person: Person) -> None:
    path = person.config("Port 1\n")
    path.chmod(0o666)
    (problem,) = person.ways.check([person.target()])
    assert "can be written by, others" in problem.message


def test_a_named_file_must_exist(person: Person) -> None:
    with pytest.raises(SourceErrors) as caught:
        person.ways.route(person.target(ansible_ssh_common_args="-F /no/such/file"))
    assert caught.value.problems[0].message == "there is no such file"


def test_relative_includes_are_in_the_ssh_folder(person: Person) -> None:
    (person.home / ".ssh" / "conf.d").mkdir()
    (person.home / ".ssh" / "conf.d" / "gpu").write_text("Host gpu01\n  Port 77\n")
    person.config("Include conf.d/*\nInclude ~/.ssh/none-here\n")
    assert person.ways.route(person.target()).port == 77


def test_the_system_file_comes_after_the_users(person: Person, tmp_path: Path) -> None:
    system = tmp_path / "ssh_config"
    system.write_text("Port 81\nUser sys\n")
    person.config("Port 80\n")
    hop = person.fresh(system_ssh_config=str(system)).ways.route(person.target())
    assert (hop.port, hop.user) == (80, "sys")
    hop = person.ways.route(person.target(ansible_ssh_common_args="-F none"))
    assert (hop.port, hop.user) == (22, USER)


def test_a_match_command_runs_once_per_run(person: Person, tmp_path: Path) -> None:
    count = tmp_path / "count"
    person.config(f'Match exec "echo x >> {count}"\n  Port 90\n')
    for number in range(5):
        assert person.ways.route(person.target(name=f"gpu{number}")).port == 90
    assert count.read_text() == "x\n"


def test_inventory_wins_over_the_file(person: Person) -> None:
    person.config("Host gpu01\n Port 1\n User no\n HostName there\n ConnectTimeout 3\n")
    hop = person.ways.route(person.target(ansible_port=2, ansible_user="me", ansible_timeout=4))
    assert (hop.host, hop.port, hop.user, hop.connect_timeout_s) == ("there", 2, "me", 4)


def test_hundreds_of_hosts_are_routed_by_one_reading_of_the_files(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.config("".join(f"Host gpu{n:03} node{n}\n  HostName 10.0.0.{n % 250}\n" for n in range(400)))
    targets = [person.target(name=f"gpu{n:03}") for n in range(400)]
    parsed, parse = [], ways.parse

    def counted(path: str, *more: Any, **named: Any) -> Any:
        parsed.append(path)
        return parse(path, *more, **named)

    monkeypatch.setattr(ways, "parse", counted)
    assert person.ways.check(targets) == []
    assert len(parsed) == len(set(parsed)) > 0
