"""The table of `gpuprov top`: sick ones first, equal hosts folded, unknown never 0."""

from __future__ import annotations

from gpuprov.report.ink import Ink
from gpuprov.report.top import Host, host_of, render, summary

INK = Ink(False)


def gpu(index: int, **more: object) -> dict:
    found = {"index": index, "lost": "", "name": "NVIDIA H100", "utilization": 97, "memory_total": 80 << 30}
    found |= {"memory_used": 60 << 30, "temperature": 55, "power_mw": 650_000, "limit_mw": 700_000, "throttle": 1}
    return found | {"uncorrected": 0, "processes": [{"pid": 41, "name": "python", "memory": 1, "uid": 0}]} | more


def host(name: str, *gpus: dict, **more: object) -> Host:
    return host_of(name, {"error": "", "hung": "", "gpus": list(gpus), **more}, 100.0)


def test_one_row_per_gpu() -> None:
    text = render([host("gpu01", gpu(0), gpu(1, utilization=3, processes=[]))], 101.0, INK, 200)
    lines = text.splitlines()
    assert lines[0] == "1 host, 2 GPUs, 50 % used on average, 1.3 kW"
    assert lines[2].split() == ["gpu01", "0", "97", "60.0", "/", "80", "55", "650", "/", "700", "H100", "python(41)"]
    assert lines[3].split()[:3] == ["gpu01", "1", "3"]


def test_what_nvml_does_not_tell_is_a_question_mark() -> None:
    unknown = dict.fromkeys(["utilization", "memory_used", "memory_total", "temperature", "power_mw", "limit_mw"])
    text = render([host("gpu01", gpu(0, **unknown, processes=None))], 101.0, INK, 200)
    assert text.splitlines()[0] == "1 host, 1 GPU"
    assert text.splitlines()[2].split() == ["gpu01", "0", "?", "?", "?", "?", "H100", "processes", "unknown"]


def test_sick_gpus_and_silent_hosts_come_first() -> None:
    hosts = [
        host("gpu01", gpu(0)),
        host("gpu02", gpu(0), gpu(1, throttle=0x80)),
        host("gpu03", {"index": 0, "lost": "GpuIsLost"}),
        host("gpu04", gpu(0, uncorrected=2)),
        host("gpu05", hung="nvmlDeviceGetTemperature"),
        Host("gpu06", (), "connection refused", unreachable=True),
        Host("gpu07", (), "connection refused", unreachable=True),
    ]
    lines = render(hosts, 101.0, INK, 200).splitlines()
    assert lines[0].endswith("3 sick GPUs, 3 hosts without values")
    assert "nvmlDeviceGetTemperature does not return: NVML hangs" in lines[2]
    assert lines[3].split()[0] == "gpu[06-07]"
    assert lines[4].split()[:2] == ["gpu02", "1"]
    assert "power brake" in lines[4]
    assert "lost: GpuIsLost" in lines[6]
    assert "2 uncorrected ECC errors" in lines[7]
    assert lines[8].split()[:2] == ["gpu01", "0"]


def test_a_host_that_fell_silent_has_no_values_any_more() -> None:
    text = render([host("gpu01", gpu(0))], 130.0, INK, 200)
    assert "silent for 30 s" in text
    assert "97" not in text


def test_four_hundred_hosts_fit_a_window() -> None:
    hosts = [host(f"gpu{n:03}", *(gpu(i, utilization=90 + n % 10) for i in range(8))) for n in range(1, 399)]
    hosts.append(host("gpu399", *(gpu(i, utilization=0, processes=[]) for i in range(8))))
    hosts.append(host("gpu400", gpu(0), gpu(1, throttle=0x40)))
    lines = render(hosts, 101.0, INK, 160, 24).splitlines()
    assert len(lines) <= 24
    assert "hardware thermal slowdown" in lines[2]
    assert lines[4].split()[:5] == ["gpu[001-398]", "398", "x", "8", "90-99"]
    assert lines[5].split()[:3] == ["gpu399", "all", "8"]
    assert "3184 processes" in lines[4]


def test_too_many_sick_ones_say_how_many_are_not_shown() -> None:
    hosts = [host(f"gpu{n}", gpu(0, throttle=8)) for n in range(50)]
    lines = render(hosts, 101.0, INK, 160, 24).splitlines()
    assert len(lines) == 24
    assert lines[-1] == "... and 29 rows more: a higher window, or --limit"


def test_simulated_gpus_cannot_be_missed() -> None:
    assert summary([host("gpu01", gpu(0), simulated=True)]).startswith("SIMULATED GPUs on 1 host")


def test_nonsense_from_a_host_is_unknown_and_harmless() -> None:
    wild = {"index": "x", "name": "\x1b[2J", "utilization": "9" * 500, "processes": [1, {"pid": None}], "throttle": []}
    text = render([host("gpu01", wild), host_of("gpu02", {"gpus": 7}, 100.0)], 101.0, INK, 200)
    assert "\x1b" not in text
    assert "NVML has no GPU" in text
