from __future__ import annotations

import pytest

from gpuprov.lab.addresses import BLOCKS, address_of
from gpuprov.lab.layout import MAX_HOSTS, default_state, host_index, host_name
from gpuprov.lab.options import HostOptions, User


def test_hosts_are_named_as_the_range_gpu01_to_n_counts_them():
    assert [host_name(index) for index in (1, 9, 10, 99, 100, 1000)] == [
        "gpu01",
        "gpu09",
        "gpu10",
        "gpu99",
        "gpu100",
        "gpu1000",
    ]


def test_a_name_leads_back_to_its_index():
    assert all(host_index(host_name(index)) == index for index in range(1, MAX_HOSTS + 1))


@pytest.mark.parametrize("name", ["gpu1", "gpu00", "gpu001", "gpu1001", "cpu01", "gpu", "gpu-1", "../gpu01"])
def test_other_names_are_no_lab_hosts(name):
    with pytest.raises(ValueError, match="not a lab host"):
        host_index(name)


def test_no_two_hosts_of_no_two_labs_share_an_address():
    seen = {address_of(block, index) for block in BLOCKS for index in range(1, MAX_HOSTS + 1)}
    assert len(seen) == len(BLOCKS) * MAX_HOSTS
    numbers = [list(map(int, address.split("."))) for address in seen]
    assert all(n[:2] == [127, 0] and 4 <= n[2] <= 255 and 1 <= n[3] <= 250 for n in numbers)


def test_the_state_folder_is_the_same_whoever_asks_unless_told(monkeypatch):
    monkeypatch.delenv("GPUPROV_LAB_STATE", raising=False)
    assert default_state() == "/var/lib/gpuprov-lab"
    monkeypatch.setenv("GPUPROV_LAB_STATE", "/somewhere")
    assert default_state() == "/somewhere"


def test_options_survive_the_way_to_the_supervisor():
    import json

    options = HostOptions(users=(User("a", sudo="free"),), read_only=("/usr",), files={"/etc/x": "y"}, journal_kib=4)
    assert HostOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert options.programs() == ["/bin/bash", "sudo"]
