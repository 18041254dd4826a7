"""Host patterns and --limit. The expected lists are what ansible-core selects for this inventory."""

from pathlib import Path

import pytest

from gpuprov.errors import EXIT_INPUT, UsageError
from gpuprov.load.inventory import load_inventory
from gpuprov.load.patterns import check_hosts, matching, select
from gpuprov.load.ranges import expand_all
from gpuprov.model import Inventory
from gpuprov.source import Position

FLEET = """\
all:
  hosts: {login: , gpu-old: , "fe80::1": , mail.example.com: }
  children:
    gpus:
      children:
        h100: {hosts: {"gpu[05:08]": }}
        a100: {hosts: {"gpu[01:04]": }}
    web:
      hosts: {www2: , www1: , gpu03: }
      children: {db: {hosts: {db1: }}}
other:
  hosts: {"h100-x": }
nobody:
"""


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    path = tmp_path_factory.mktemp("patterns") / "hosts.yaml"
    path.write_text(FLEET)
    problems: list = []
    loaded = load_inventory(str(path), problems)
    assert problems == []
    return loaded


SAME_AS_ANSIBLE = [
    ("gpus", "gpu[05-08],gpu[01-04]"),
    ("gpus:web", "gpu[05-08],gpu[01-04],www2,www1,db1"),
    ("gpus, web", "gpu[05-08],gpu[01-04],www2,www1,db1"),
    ("web:&gpus", "gpu03"),
    ("gpus:!h100", "gpu[01-04]"),
    ("gpus:&web:!a100", ""),
    ("gpus[0]", "gpu05"),
    ("gpus[-1]", "gpu04"),
    ("gpus[1:3]", "gpu[06-08]"),
    ("gpus[2:]", "gpu07,gpu08,gpu[01-04]"),
    ("gpus[0:100]", "gpu[05-08],gpu[01-04]"),
    ("a100[1-2]", "gpu[02-03]"),
    ("web[1:2]", "www1,gpu03"),
    ("w*[0]", "www2"),
    ("~gpu0[1-3]", "gpu[01-03]"),
    ("~.*1$", "fe80::1,gpu01,www1,db1"),
    ("~web|db", "www2,www1,gpu03,db1"),
    ("gpus:&~.*[24]$", "gpu02,gpu04"),
    ("h100*", "gpu[05-08],h100-x"),
    ("h?00", "gpu[05-08]"),
    ("!gpus", "login,gpu-old,fe80::1,mail.example.com,www2,www1,h100-x,db1"),
    ("&web", "www2,www1,gpu03,db1"),
    ("www1:www2", "www1,www2"),
    ("ungrouped", "login,gpu-old,fe80::1,mail.example.com"),
    ("nobody", ""),
    ("fe80::1", "fe80::1"),
]


@pytest.mark.parametrize(("pattern", "hosts"), SAME_AS_ANSIBLE)
def test_patterns(inventory: Inventory, pattern: str, hosts: str) -> None:
    assert matching(inventory, pattern) == expand_all(hosts)


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("gpu[01-03,07]", "gpu[01-03,07]"),
        ("gpu[01:02],login", "gpu01,gpu02,login"),
        ("gpu0[1-3]", "gpu[01-03]"),
        ("a100:!gpu03,web:&gpus", "gpu01,gpu02,gpu04"),
    ],
)
def test_what_ansible_does_not_understand(inventory: Inventory, pattern: str, hosts: str) -> None:
    assert matching(inventory, pattern) == expand_all(hosts)


def test_all_has_every_host_once(inventory: Inventory) -> None:
    for pattern in ("all", "*"):
        assert sorted(matching(inventory, pattern)) == sorted(inventory.hosts)


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ("gpux", "did you mean gpu07 or gpu08 or gpus?"),
        ("gpu09", "has gpu[01-08]"),
        ("gpu[07:09]", "gpu09 is neither"),
        ("gpus:!typo", "typo is neither a host nor a group"),
        ("gpus:&web,logn", "did you mean login?"),
        ("mail", "did you mean mail.example.com?"),
        ("zzz", "has the groups all, gpus, h100"),
        ("localhost", "ansible_connection: local"),
        ("gpus[20]", "gpus has 8 hosts"),
        ("~(", "no regular expression"),
        ("gpu[08:01]", "backwards"),
        ("", "empty"),
        ("{{ target }}", "is a template"),
        ("gpus:!", "no name behind it"),
        ("nobody", "no host matches nobody"),
        ("zzz*", "no host matches zzz*"),
    ],
)
def test_what_selects_nothing_is_an_error(inventory: Inventory, pattern: str, part: str) -> None:
    with pytest.raises(UsageError) as error:
        select(inventory, pattern)
    assert error.value.exit_code == EXIT_INPUT
    assert part in f"{error.value} | {error.value.hint}"


def test_limit_narrows_and_keeps_the_order_of_the_pattern(inventory: Inventory) -> None:
    assert select(inventory, "gpus", "gpu01,gpu08") == ["gpu08", "gpu01"]
    assert select(inventory, "gpus", "all:!h100") == ["gpu01", "gpu02", "gpu03", "gpu04"]
    with pytest.raises(UsageError, match="no host matches gpus with --limit login"):
        select(inventory, "gpus", "login")
    with pytest.raises(UsageError, match="gpu99 is neither"):
        select(inventory, "gpus", "gpu99")


def test_limit_from_a_file(inventory: Inventory, tmp_path: Path) -> None:
    file = tmp_path / "failed"
    file.write_text("# of last night\ngpu03\n\na100:!gpu01 # but not this\n")
    assert select(inventory, "all", f"@{file}") == ["gpu03", "gpu02", "gpu04"]
    assert select(inventory, "all", f"@{file},login,!gpu04") == ["login", "gpu03", "gpu02"]
    file.write_text("\n# nothing\n")
    with pytest.raises(UsageError, match="names no host"):
        select(inventory, "all", f"@{file}")
    with pytest.raises(UsageError, match="cannot be read"):
        select(inventory, "all", f"@{tmp_path}/missing")


def test_hosts_of_a_play(inventory: Inventory) -> None:
    at = Position("site.yaml", 2, 10)
    assert check_hosts(inventory, "gpus:!nobody", at) == []
    assert check_hosts(inventory, "{{ target }}", at) == []
    [problem] = check_hosts(inventory, "gpu", at)
    assert (problem.code, problem.position) == ("hosts-unknown", at)
    assert "did you mean" in problem.hint
