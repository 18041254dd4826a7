from __future__ import annotations

from typing import Any

import pytest

from gpuprov.errors import SourceErrors
from gpuprov.source import Position, SourceStr
from gpuprov.transport.common_args import CommonArgs
from gpuprov.transport.target import ConnectOptions, Target, target_of

OPTIONS = ConnectOptions(user="dev", private_key="/k/cli")


def target(**variables: Any) -> Target:
    return target_of("gpu01", variables, OPTIONS)


def problem(**variables: Any) -> Any:
    with pytest.raises(SourceErrors) as caught:
        target(**variables)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_without_variables_the_name_and_the_command_line_count() -> None:
    found = target()
    assert (found.address, found.port, found.user, found.key_file) == ("gpu01", None, "dev", "/k/cli")
    assert (found.connection, found.host_key_checking, found.password) == ("ssh", None, None)


def test_variables_win_over_the_command_line() -> None:
    found = target(
        ansible_user="root", ansible_ssh_private_key_file="/k/inv", ansible_host="10.0.0.1", ansible_port="2"
    )
    assert (found.address, found.port, found.user, found.key_file) == ("10.0.0.1", 2, "root", "/k/inv")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ansible_ssh_host", "ansible_host"),
        ("ansible_ssh_user", "ansible_user"),
        ("ansible_ssh_pass", "ansible_password"),
        ("ansible_ssh_private_key_file", "ansible_private_key_file"),
    ],
)
def test_old_names_count_unless_the_new_one_is_there(old: str, new: str) -> None:
    assert target(**{old: "x"}) == target(**{new: "x"})
    assert target(**{old: "y", new: "x"}) == target(**{new: "x"})


@pytest.mark.parametrize(
    ("variables", "says", "hint"),
    [
        ({"ansible_port": "ssh"}, "ansible_port is 'ssh'", "1 to 65535"),
        ({"ansible_port": 0}, "ansible_port is 0", "1 to 65535"),
        ({"ansible_port": True}, "ansible_port is True", "1 to 65535"),
        ({"ansible_host": ["a"]}, "ansible_host is ['a']", "a string"),
        ({"ansible_host": "a\nb"}, "a line break or a control character", ""),
        ({"ansible_connection": "winrm"}, "ansible_connection is 'winrm'", '"ssh" or "local"'),
        ({"ansible_timeout": "soon"}, "ansible_timeout is 'soon'", "seconds above 0"),
        ({"ansible_timeout": -1}, "ansible_timeout is -1", "seconds above 0"),
        ({"ansible_host_key_checking": "perhaps"}, "ansible_host_key_checking is 'perhaps'", "accept-new"),
        ({"gpuprov_known_hosts": 7}, "gpuprov_known_hosts is 7", "a list of paths"),
        (
            {"ansible_ssh_private_key": "---"},
            "ansible_ssh_private_key is not supported",
            "ansible_ssh_private_key_file",
        ),
        ({"ansible_ssh_common_args": "-o 'x"}, "cannot be split into words", ""),
        ({"ansible_ssh_common_args": "-A"}, "-A is not supported", "allowed: -F -o -J"),
        ({"ansible_ssh_common_args": "host"}, '"host" is not an option', "allowed:"),
        ({"ansible_ssh_common_args": "-o"}, "-o needs a value", ""),
        ({"ansible_ssh_common_args": "-o Prot=1"}, '"Prot" is not an option of ssh', "did you mean"),
        ({"ansible_ssh_common_args": "-o Port"}, '-o "Port" has no value', "Keyword=value"),
        ({"ansible_ssh_extra_args": "-o RemoteCommand=x"}, 'remotecommand "x" is not supported', "Host entry"),
    ],
)
def test_bad_values_are_problems_of_their_host(variables: dict[str, Any], says: str, hint: str) -> None:
    found = problem(**variables)
    assert found.message.startswith("host gpu01: ")
    assert says in found.message
    assert hint in found.hint


def test_a_problem_has_the_position_of_its_value_and_all_are_told() -> None:
    where = Position("inventory/lab.yaml", 3, 9)
    with pytest.raises(SourceErrors) as caught:
        target(ansible_port=SourceStr("x", where), ansible_connection="winrm")
    assert [p.position for p in caught.value.problems] == [where, None]


def test_common_args_are_read_as_ssh_reads_them() -> None:
    found = target(
        ansible_ssh_common_args="-F /f -i /key -l me -p23 -4 -q -o 'ProxyCommand ssh -W %h:%p door' -oControlPath=x",
        ansible_ssh_extra_args='-oUser=late -J "a,b"',
    ).common_args
    assert found == CommonArgs(
        (
            ("identityfile", "/key"),
            ("user", "me"),
            ("port", "23"),
            ("addressfamily", "inet"),
            ("proxycommand", "ssh -W %h:%p door"),
            ("user", "late"),
            ("proxyjump", "a,b"),
        ),
        "/f",
    )


def test_local() -> None:
    assert target(ansible_connection="local").connection == "local"


def test_known_hosts_is_one_path_or_several() -> None:
    assert target(gpuprov_known_hosts="a").known_hosts == ("a",)
    assert target(gpuprov_known_hosts=["a", "b"]).known_hosts == ("a", "b")
