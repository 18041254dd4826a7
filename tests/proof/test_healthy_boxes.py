"""Healthy hosts of many kinds have no warning: what a model lacks or an admin chose is a skip with its reason."""

from __future__ import annotations

import pytest

from gpuprov.proof.checks import around, modes, pcie
from gpuprov.proof.checks.each import Gpu
from gpuprov.proof.parts import Context
from tests.proof.test_around import config
from tests.support.boxes import BOXES, cards, linked, mesh_guest, sliced
from tests.support.gpu_case import PARTS
from tests.support.readings import Host, gpu, reading


def look(root, its: dict, files: dict | None = None, **expect: object) -> list[dict]:
    """Return the checks of a host with these GPUs and files."""
    host = Host(root)
    host.write("proc/uptime", "864000.00 1.0\n")
    host.write("sys/module/nvidia/version", "580.95.05\n")
    for one in its["gpus"]:
        host.pci(one["address"])
    for path, text in (files or {}).items():
        host.write(path, text)
    context = Context(root=str(root), expect=expect)
    found: list[dict] = []
    report = type("Report", (), {"check": staticmethod(found.append), "stage": staticmethod(str)})
    for part in around.PARTS:
        part.run(context, report)
    return found + [item for part in PARTS for item in part.run(context, its)]


def bad(found: list[dict]) -> list[tuple]:
    return [(i["name"], i["verdict"], i["device"]) for i in found if i["verdict"] not in ("pass", "skip")]


@pytest.mark.parametrize("name", BOXES)
def test_it_has_no_warning(tmp_path, monkeypatch, name):
    for variable in around.HARMFUL:
        monkeypatch.delenv(variable, raising=False)
    box = BOXES[name]
    found = look(tmp_path, box.reading(), box.files, **box.expect)
    assert [item for item in found if item["verdict"] not in ("pass", "skip")] == []
    assert all(len(item["reason"]) > 15 for item in found if item["verdict"] == "skip")


def of(found: list[dict], name: str) -> list[tuple]:
    return [(i["verdict"], i["device"]) for i in found if i["name"] == name and i["verdict"] not in ("pass", "skip")]


@pytest.mark.parametrize(
    ("its", "sick"),
    [
        (lambda: cards(12, 11, 0, 0), "gpu:1"),  # a link of a bridge
        (lambda: cards(12, 12, 8, 12), "gpu:2"),  # a bridge of its three
        (lambda: reading(*(linked(gpu(i), 18 - (i == 3), 18) for i in range(8))), "gpu:3"),
    ],
)
def test_a_link_that_should_be_up_is_a_fail(tmp_path, its, sick):
    assert of(look(tmp_path, its()), "nvlink.links") == [("fail", sick)]


def test_a_gpu_that_is_not_sliced_needs_its_links(tmp_path):
    its = sliced()
    linked(its["gpus"][0], 0, 12)
    assert of(look(tmp_path, its, mig=True), "nvlink.links") == [("fail", "gpu:0")]


def test_a_mesh_on_bare_metal_is_whole(tmp_path):
    assert {verdict for verdict, _ in of(look(tmp_path, mesh_guest()), "nvlink.links")} == {"fail"}


@pytest.mark.parametrize(("slot", "speed", "expected"), [("16", "32.0", 2), ("8", "16.0", 0), ("0", "Unknown", 2)])
def test_a_narrow_slow_link_is_judged_by_its_slot(tmp_path, slot, speed, expected):
    its = reading(gpu(0, pcie__width=8, pcie__generation=4))
    port = "sys/devices/pci0000:00/max_link_"
    look(tmp_path, its, {port + "width": slot + "\n", port + "speed": speed + " GT/s PCIe\n"})
    found = pcie.under_load(Context(root=str(tmp_path)), its)
    assert len([item for item in found if item["verdict"] == "fail"]) == expected
    built = Context(root=str(tmp_path), expect={"pcie_width": 8, "pcie_generation": 4})
    assert [item for item in pcie.under_load(built, its) if item["verdict"] == "fail"] == []


def test_a_gpu_on_a_port_of_its_own_has_no_transfer_that_acs_sends_around(tmp_path):
    host = Host(tmp_path)
    for number, above in enumerate(("0000:00:01.0", "0000:00:02.0", "0000:00:03.0/0000:10:00.0")):
        host.pci(f"0000:{number + 17}:00.0", above=above)
        port = above.rpartition("/")[2]
        host.write(f"sys/devices/pci0000:00/{above}/config", config((0x000D, 0x1D)))
        (tmp_path / "sys/bus/pci/devices" / port).symlink_to(tmp_path / "sys/devices/pci0000:00" / above)
    (found,) = [item for item in look(tmp_path, reading(gpu(0))) if item["name"] == "pcie.acs"]
    assert (found["verdict"], found["measured"]) == ("warn", 1)
    assert found["data"]["evidence"][0].startswith("0000:10:00.0")


@pytest.mark.parametrize("name", ["services", "gh200", "workstation", "vm", "ecc off"])
def test_its_gpus_are_free_to_be_measured(name):
    assert [modes.use(Gpu(one)) for one in BOXES[name].reading()["gpus"]] == [("", "")] * BOXES[name].reading()["count"]


def test_a_job_beside_services_is_one(tmp_path):
    job = {"pid": 5, "memory": 1 << 30, "name": "python3"}
    its = reading(gpu(0, processes__compute=[{"pid": 4, "memory": 1, "name": "Xorg"}, job]))
    assert modes.use(Gpu(its["gpus"][0])) == ("process 5", "")
    assert of(look(tmp_path, its, idle=True), "gpu.processes") == [("warn", "gpu:0")]


def test_behind_a_server_of_mps_are_jobs_that_nvml_does_not_list():
    its = reading(gpu(0, processes__compute=[{"pid": 77, "memory": 30 << 20, "name": "nvidia-cuda-mps"}]))
    assert modes.use(Gpu(its["gpus"][0])) == ("process 77", "")


def test_a_process_that_ended_after_nvml_was_asked_is_not_one_that_holds_memory(tmp_path):
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    ended, gone = {"pid": 4_200_001, "memory": 1, "name": "python3"}, {"pid": 4_200_002, "memory": 1}
    assert of(look(tmp_path, reading(gpu(0, processes__compute=[ended]))), "gpu.processes") == []
    its = reading(gpu(0, processes__compute=[ended, gone]))
    (found,) = [i for part in modes.PARTS for i in part.run(Context(root=str(tmp_path)), its) if i["verdict"] == "warn"]
    assert found["reason"].endswith("is held by processes that are gone: 4200002")
