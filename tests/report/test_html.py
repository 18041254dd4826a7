import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpuprov.report.html import pack, render
from gpuprov.report.jsonout import to_json
from gpuprov.results import RunReport
from tests.report import rehearsal

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
]
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">@SCRIPT@ @DATA@"


def dom(page: Path, tmp_path: Path, anchor: str = "") -> str:
    """Return the page's DOM after Chromium ran its script."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    url = f"file://{page}{anchor}"
    command = [CHROMIUM, *FLAGS, profile, "--enable-logging=stderr", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert "Refused to" not in done.stderr, done.stderr
    assert "Uncaught" not in done.stderr, done.stderr
    return done.stdout


def page_of(report: RunReport, tmp_path: Path) -> Path:
    page = tmp_path / "report.html"
    page.write_bytes(render(to_json(report)))
    return page


def evil_report() -> RunReport:
    fold = rehearsal.HostFold("gpu01", EVIL)
    fold.plan(rehearsal.plan("gpu01"))
    result = {"stdout": EVIL, EVIL: EVIL, "checks": [{"name": EVIL, "verdict": "fail", "reason": EVIL}]}
    diff = [{"before": "x", "after": EVIL, "after_header": EVIL}]
    event = {"kind": "TaskFinished", "id": "p1.t18", "name": EVIL, "action": "gpuprov_proof", "outcome": "failed"}
    fold.event({"seq": 1, **event, "msg": EVIL, "result": result, "diff": diff, "action": "gpuprov_proof"})
    fold.facts({EVIL: EVIL})
    return RunReport(
        "r", f"gpuprov apply {EVIL}", EVIL, EVIL, (fold.report(),), 0.0, 1.0, warnings=(EVIL,), version="1"
    )


def test_the_page_needs_nothing_from_outside() -> None:
    text = render(to_json(rehearsal.report(4))).decode()
    assert not re.findall(
        r"""(?:src|href)=["'](?!#)|url\(|@import|fetch\(|XMLHttp|https?://(?!www\.w3\.org/2000/svg)""", text
    )
    assert "default-src 'none'" in text
    assert "innerHTML" not in text


def test_what_hosts_send_cannot_end_the_data() -> None:
    text = render(to_json(evil_report())).decode()
    scripts: list[str] = []

    class Parser(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attrs: list) -> None:
            self.inside = tag == "script"
            assert tag != "img"
            if self.inside:
                scripts.append("")

        def handle_endtag(self, tag: str) -> None:
            self.inside = False

        def handle_data(self, data: str) -> None:
            if self.inside:
                scripts[-1] += data

    Parser().feed(text)
    assert len(scripts) == 2
    assert json.loads(scripts[0])["hosts"][0]["address"] == EVIL


def test_equal_results_are_there_once() -> None:
    document = to_json(rehearsal.report(30))
    packed = pack(document)
    tasks = sum(len(h["tasks"]) for h in packed["hosts"])
    assert tasks > 400
    assert len(packed["shapes"]) == 18
    assert len(packed["results"]) < 60  # the proofs differ, nothing else does


def test_in_a_browser_the_fleet_is_there(tmp_path: Path) -> None:
    found = dom(page_of(rehearsal.report(24), tmp_path), tmp_path)
    main = found[found.index('<main id="page">') : found.index("</main>")]
    assert main.count('<tr><td><a href="#host=') == 24
    assert main.count('class="line"') + main.count('class="line bad"') == 34
    assert "gpu[06-08,13]" in main
    assert "apt lock held by unattended-upgrades" in main
    assert "gpuprov apply inventory/lab.yaml --diff" in main
    assert "SIMULATED" not in main


def test_in_a_browser_one_host_is_there(tmp_path: Path) -> None:
    found = dom(page_of(rehearsal.report(4, simulated=True), tmp_path), tmp_path, "#host=gpu02")
    main = found[found.index('<main id="page">') : found.index("</main>")]
    assert "<h1>gpu02</h1>" in main
    assert main.count("<details") == 19  # tasks and facts
    assert main.count("<path") == 2
    assert "2.13.0+cpu" in main


def test_in_a_browser_simulated_hardware_is_said_loudly(tmp_path: Path) -> None:
    found = dom(page_of(rehearsal.report(4, simulated=True), tmp_path), tmp_path)
    assert '<div class="simulated" role="note"><b>SIMULATED</b> All of 4 hosts' in found


@pytest.mark.parametrize("anchor", ["", "#host=gpu01"])
def test_in_a_browser_evil_text_stays_text(tmp_path: Path, anchor: str) -> None:
    found = dom(page_of(evil_report(), tmp_path), tmp_path, anchor)
    assert "<title>gpuprov r</title>" in found
    main = found[found.index('<main id="page">') : found.index("</main>")]
    assert main.count("&lt;img src=x onerror") > (10 if anchor else 3)  # the failed task is open: output, diff, keys
    assert "<img" not in main
    assert "<script" not in main


def test_the_controller_spends_little(tmp_path: Path) -> None:
    report = rehearsal.report(200)
    document = to_json(report)
    times = []
    for _ in range(3):
        began = time.process_time()
        render(document)
        times.append((time.process_time() - began) / 200)
    assert min(times) < 0.002, f"{min(times) * 1000:.2f} ms per host"
