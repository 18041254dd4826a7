"""Templates on hosts: the layer with Jinja2 goes where a plan needs it, and works on the oldest Python."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from gpuprov import bundle
from tests.fleet.test_session import settled
from tests.support.agent_process import plan, shell, task
from tests.support.interpreters import interpreters
from tests.support.local_session import run_plan, start

if TYPE_CHECKING:
    from pathlib import Path

OLDEST = min(interpreters(), default=sys.version_info[:2])
PYTHONS = {"oldest": interpreters().get(OLDEST, sys.executable), "own": sys.executable}


@pytest.fixture(params=sorted(PYTHONS))
def python(request):
    return PYTHONS[request.param]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


def nodes(path: Path) -> list[dict]:
    """Tasks that use templates in every place where a host can."""
    say = "{{ r.stdout_lines | map('upper') | join('+') }} {{ ansible_facts.nodename | length > 0 }}"
    return [
        shell(1, "printf 'a\\nb\\n'; echo x >> %s/tries" % path, register="r", until=["r.rc == 0"]),
        task(2, "set_fact", {"all": "{{ all | default([]) + [item] }}"}, loop="{{ r.stdout_lines }}", defer=["args"]),
        task(3, "copy", {"content": say + "\n", "dest": "%s/file" % path, "mode": "0600"}, defer=["args"]),
        task(4, "debug", {"msg": "{{ all }}"}, when=["r is changed", "all | length == 2"], defer=["args"]),
        task(5, "assert", {"that": ["all[1] == 'b'", "r.attempts == 1"]}, failed_when=["r.rc != 0"], register="s"),
        shell(6, "echo {{ word }}", vars={"word": "{{ all | first }}"}, defer=["args"], register="s"),
    ]


def check(events: list[dict], path: Path) -> None:
    assert events[-1].get("outcome") == "ok", events
    finished = {e["id"]: e for e in events if e["kind"] == "TaskFinished"}
    assert finished["p1.t4"]["result"]["msg"] == ["a", "b"]
    assert finished["p1.t6"]["result"]["stdout"] == "a"
    assert (path / "file").read_text() == "A+B True\n"


def test_a_plan_with_templates(home, tmp_path, python):
    found, odd = start(home, python)
    before = odd.sent
    check(run_plan(found, plan("r1", nodes(tmp_path), jinja=True), ("jinja",)), tmp_path)
    assert odd.sent - before > 100_000  # the layer
    settled(home)
    found, odd = start(home, python)
    check(run_plan(found, plan("r2", nodes(tmp_path), jinja=True), ("jinja",)), tmp_path)
    assert odd.sent < 30_000
    assert (tmp_path / "tries").read_text() == "x\nx\n"


def test_the_layer_is_compiled_once_and_then_used(home, tmp_path):
    found, _ = start(home, sys.executable)
    check(run_plan(found, plan("r1", nodes(tmp_path), jinja=True), ("jinja",)), tmp_path)
    settled(home)
    digest = bundle.layer("jinja").sha256
    code = home / "bundle" / f"jinja-{digest}.{bundle.byte_code().magic}.code"
    compiled = code.read_bytes()
    for number, damaged in enumerate((compiled[:-1], b"", b"0" * 64 + compiled[64:])):
        code.write_bytes(damaged)
        found, _ = start(home, sys.executable)
        check(run_plan(found, plan(f"r2{number}", nodes(tmp_path), jinja=True), ("jinja",)), tmp_path)
        settled(home)
        assert len(code.read_bytes()) == len(compiled)


def test_a_damaged_layer_is_sent_again(home, tmp_path):
    found, _ = start(home, sys.executable)
    check(run_plan(found, plan("r1", nodes(tmp_path), jinja=True), ("jinja",)), tmp_path)
    settled(home)
    layer = home / "bundle" / f"jinja-{bundle.layer('jinja').sha256}.zip"
    layer.write_bytes(layer.read_bytes()[:-1] + b"!")
    found, odd = start(home, sys.executable)
    check(run_plan(found, plan("r2", nodes(tmp_path), jinja=True), ("jinja",)), tmp_path)
    assert odd.sent > 100_000
    assert layer.read_bytes() == bundle.layer("jinja").data


def test_a_plan_without_templates_gets_no_layer(home):
    found, _ = start(home, sys.executable)
    assert run_plan(found, plan("r1", [shell(1, "true")]))[-1]["outcome"] == "ok"
    assert not [path for path in (home / "bundle").iterdir() if path.name.startswith("jinja")]


def test_the_proof_is_unpacked_and_mended(tmp_path):
    from gpuprov.agent.proof_layer import unpack
    from gpuprov.agent.system import System

    layer = bundle.layer("proof")
    (tmp_path / "bundle").mkdir()
    zipped = tmp_path / "bundle" / f"proof-{layer.sha256}.zip"
    zipped.write_bytes(layer.data)
    folder = tmp_path / "bundle" / f"proof-{layer.sha256}"
    assert unpack(str(tmp_path), layer.sha256, System()) == str(folder)
    main = folder / "gpuprov/proof/__main__.py"
    text = main.read_text()
    for trouble in ("", text[:-1] + "!"):  # what a power cut leaves
        main.write_text(trouble)
        unpack(str(tmp_path), layer.sha256, System())
        assert main.read_text() == text
    zipped.write_bytes(layer.data[:-1] + b"!")
    with pytest.raises(OSError, match="damaged"):
        unpack(str(tmp_path), layer.sha256, System())
    assert not zipped.exists()
