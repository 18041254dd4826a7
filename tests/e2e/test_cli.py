"""The program as a person runs it, against real hosts: idempotence, check mode, interruption, resumption, secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB
PROGRAM = [sys.executable, "-m", "gpuprov"]
ROOT = Path(__file__).resolve().parents[2]

PLAY = """\
- name: everyday things
  hosts: all
  become: true
  vars:
    greeting: "hello from {{ inventory_hostname }}"
  tasks:
    - name: a folder
      ansible.builtin.file: {path: /opt/app, state: directory, mode: "0750"}
    - name: a file
      ansible.builtin.copy: {content: "{{ greeting }}\\n", dest: /opt/app/greeting, mode: "0644"}
      notify: tell
    - name: a template
      ansible.builtin.template: {src: app.conf.j2, dest: /opt/app/app.conf, mode: "0640"}
    - name: a line
      ansible.builtin.lineinfile: {path: /etc/hosts, line: "192.0.2.1 elsewhere"}
    - name: what is there
      ansible.builtin.command: cat /opt/app/greeting
      register: there
      changed_when: false
    - name: what depends on it
      ansible.builtin.copy: {content: "{{ there.stdout | upper }}\\n", dest: /opt/app/loud, mode: "0644"}
      when: "'hello' in there.stdout"
    - name: in a loop
      ansible.builtin.file: {path: "/opt/app/{{ item }}", state: directory, mode: "0755"}
      loop: [a, b]
  handlers:
    - name: tell
      ansible.builtin.shell: echo told >> /opt/app/told
"""
SLOW = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: first
      ansible.builtin.shell: echo first >> /opt/log
    - name: slow
      ansible.builtin.shell: echo slow-begins >> /opt/log; sleep 5; echo slow-ends >> /opt/log
    - name: last
      ansible.builtin.shell: echo last >> /opt/log
"""
HASHES = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /run \\) -prune"
HASHES += " -o -newer /opt/.mark"
HASHES += " -type f -not -path '/var/lib/gpuprov/*' -print"


@pytest.fixture(scope="module")
def lab():
    with lab_of(3) as lab:
        yield lab


@pytest.fixture
def work(lab, tmp_path):
    """A folder like an admin's: an inventory of the lab's hosts, playbooks, a template."""
    hosts = {}
    for name in ("gpu01", "gpu02", "gpu03"):
        hosts[name] = {key: str(value) for key, value in lab.connection(name).items()}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (tmp_path / "play.yaml").write_text(PLAY)
    (tmp_path / "slow.yaml").write_text(SLOW)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/app.conf.j2").write_text(
        "host={{ ansible_facts.hostname }}\ncpus={{ ansible_processor_vcpus }}\n"
    )
    for name in hosts:
        run_on(lab, name, "rm -rf /opt/app /opt/log; sed -i /elsewhere/d /etc/hosts")
    return tmp_path


def environment(work):
    state = {"XDG_STATE_HOME": str(work / "state"), "XDG_CACHE_HOME": str(work / "cache"), "HOME": str(work)}
    return {**os.environ, **state, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def gpuprov(work, *words, **more):
    command = [*PROGRAM, *words]
    return subprocess.run(
        command, cwd=work, env=environment(work), capture_output=True, text=True, timeout=120, check=False, **more
    )


def start(work, *words):
    return subprocess.Popen(
        [*PROGRAM, *words],
        cwd=work,
        env=environment(work),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(lab, name, text, limit_s=60):
    deadline = time.monotonic() + limit_s
    while text not in run_on(lab, name, "cat /opt/log 2>/dev/null").stdout:
        assert time.monotonic() < deadline, f"{text} never came"
        time.sleep(0.1)


def outcomes(report, host="gpu01"):
    tasks = next(h for h in report["hosts"] if h["host"] == host)["tasks"]
    return {task["name"]: task["outcome"] for task in tasks}


def test_twice_is_once(lab, work):
    first = gpuprov(work, "apply", "hosts.json", "play.yaml", "--json")
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert [h["outcome"] for h in report["hosts"]] == ["changed"] * 3
    assert run_on(lab, "gpu02", "cat /opt/app/loud").stdout == "HELLO FROM GPU02\n"
    assert run_on(lab, "gpu02", "cat /opt/app/app.conf").stdout == f"host=gpu02\ncpus={os.cpu_count()}\n"
    assert run_on(lab, "gpu02", "cat /opt/app/told").stdout == "told\n"
    second = gpuprov(work, "apply", "hosts.json", "play.yaml", "--json")
    report = json.loads(second.stdout)
    assert [h["outcome"] for h in report["hosts"]] == ["ok"] * 3
    assert set(outcomes(report).values()) == {"ok"}
    assert run_on(lab, "gpu02", "cat /opt/app/told").stdout == "told\n"


@pytest.mark.parametrize("command", [["apply", "--check", "--diff"], ["plan"]])
def test_check_mode_changes_nothing_and_says_what_it_cannot_know(lab, work, command):
    run_on(lab, "gpu01", "touch /opt/.mark; sleep 0.1")
    done = gpuprov(work, command[0], "hosts.json", "play.yaml", *command[1:], "--json", "--limit", "gpu01")
    assert done.returncode == 0, done.stderr + done.stdout
    assert run_on(lab, "gpu01", HASHES).stdout == ""
    assert run_on(lab, "gpu01", "ls -d /opt/app").returncode != 0
    found = outcomes(json.loads(done.stdout))
    assert found["a folder"] == "changed"
    assert found["a line"] == "changed"
    assert found["what is there"] == "skipped"
    assert found["what depends on it"] in ("unknown", "skipped")


def test_limit_and_tags(lab, work):
    done = gpuprov(work, "apply", "hosts.json", "play.yaml", "--limit", "all:!gpu02", "--json")
    assert [h["host"] for h in json.loads(done.stdout)["hosts"]] == ["gpu01", "gpu03"]
    done = gpuprov(work, "apply", "hosts.json", "play.yaml", "--limit", "gpu9")
    assert done.returncode == 5
    assert "did you mean" in done.stderr or "hint" in done.stderr
    assert done.stdout == ""


def test_a_failing_task_is_exit_2_with_its_sentence(lab, work):
    (work / "bad.yaml").write_text("- hosts: gpu01\n  tasks:\n    - name: breaks\n      command: cat /nowhere\n")
    done = gpuprov(work, "apply", "hosts.json", "bad.yaml")
    assert done.returncode == 2
    assert "No such file or directory" in done.stdout
    assert "exit 2" in done.stdout


def test_all_mistakes_at_once_before_any_connection(work):
    (work / "bad.yaml").write_text(
        "- hosts: all\n"
        "  tasks:\n"
        "    - name: one\n"
        "      copy: {src: nowhere.txt, dest: /opt/x}\n"
        "    - name: two\n"
        "      ansible.builtin.fiel: {path: /x}\n"
        "    - name: three\n"
        "      debug: {msg: '{{ greetnig }}'}\n"
        "      wehn: true\n"
    )
    (work / "hosts.json").write_text(
        '{"all": {"hosts": {"gpu01": {"ansible_host": "192.0.2.1", "ansible_port": 99999}}}}'
    )
    done = gpuprov(work, "apply", "hosts.json", "bad.yaml")
    assert done.returncode == 5
    for line in ("bad.yaml:6:", "bad.yaml:9:", "hosts.json:1:"):
        assert line in done.stderr, done.stderr
    assert "did you mean" in done.stderr
    assert "nothing was connected to" in done.stderr


def test_template_mistakes_name_their_place(work):
    (work / "bad.yaml").write_text(
        "- hosts: all\n  tasks:\n    - name: x\n      debug: {msg: 'a {{ greetnig }}'}\n  vars: {greeting: x}\n"
    )
    done = gpuprov(work, "apply", "hosts.json", "bad.yaml")
    assert done.returncode == 5
    assert "bad.yaml:4:" in done.stderr
    assert "greeting" in done.stderr


def test_an_unknown_fact_is_found_at_the_gate(lab, work):
    (work / "bad.yaml").write_text(
        "- hosts: all\n  tasks:\n    - copy: {content: x, dest: /opt/early}\n"
        "    - debug: {msg: '{{ ansible_facts.no_such_fact }}'}\n"
    )
    done = gpuprov(work, "apply", "hosts.json", "bad.yaml")
    assert done.returncode == 5
    assert "no_such_fact" in done.stderr
    assert "bad.yaml:4:" in done.stderr
    assert run_on(lab, "gpu01", "ls /opt/early").returncode != 0


def test_ctrl_c_stops_after_the_current_task_and_resume_goes_on(lab, work):
    run = start(work, "apply", "hosts.json", "slow.yaml")
    wait_for(lab, "gpu01", "slow-begins")
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 99, out
    assert run_on(lab, "gpu01", "cat /opt/log").stdout == "first\nslow-begins\nslow-ends\n"
    done = gpuprov(work, "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("gpu01", "gpu02", "gpu03"):
        assert run_on(lab, name, "cat /opt/log").stdout == "first\nslow-begins\nslow-ends\nlast\n"


def test_a_killed_controller_is_resumed(lab, work):
    run = start(work, "apply", "hosts.json", "slow.yaml")
    wait_for(lab, "gpu03", "slow-begins")
    run.kill()
    run.communicate()
    done = gpuprov(work, "resume", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert [h["outcome"] for h in report["hosts"]] == ["changed"] * 3
    assert outcomes(report) == {"first": "changed", "slow": "changed", "last": "changed"}
    for name in ("gpu01", "gpu02", "gpu03"):
        assert run_on(lab, name, "cat /opt/log").stdout == "first\nslow-begins\nslow-ends\nlast\n"


def test_the_run_folder_has_everything(lab, work):
    gpuprov(work, "apply", "hosts.json", "play.yaml")
    (folder,) = (work / "state/gpuprov/runs").iterdir()
    assert {p.name for p in folder.iterdir()} >= {"run.json", "hosts", "journal.jsonl", "report.html", "options.json"}
    assert sorted(p.name for p in (folder / "hosts").iterdir()) == ["gpu01.json", "gpu02.json", "gpu03.json"]
    assert json.loads((folder / "run.json").read_text())["state"] == "finished"
    assert (folder.stat().st_mode & 0o077) == 0


def test_a_planted_secret_is_nowhere(lab, work):
    secret = "pl4nted-s3cret"
    (work / "hide.yaml").write_text(
        "- hosts: gpu01\n  vars: {db_password: " + secret + "}\n  tasks:\n"
        "    - copy: {content: 'password={{ db_password }}', dest: /opt/app.secret, mode: '0600'}\n      no_log: true\n"
        "    - command: echo {{ db_password }}\n      no_log: true\n      register: said\n"
        "    - debug: {msg: '{{ said.stdout }}'}\n      no_log: true\n"
    )
    done = gpuprov(work, "apply", "hosts.json", "hide.yaml", "-vv", "--diff")
    assert done.returncode == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    assert run_on(lab, "gpu01", "cat /opt/app.secret").stdout == f"password={secret}"
    for path in (work / "state").rglob("*"):
        if path.is_file():
            assert secret not in path.read_text(errors="replace"), path
    assert run_on(lab, "gpu01", f"grep -rl {secret} /var/lib/gpuprov").stdout == ""
    run_on(lab, "gpu01", "rm /opt/app.secret")


def test_an_unreachable_host_is_exit_4_and_the_others_go_on(lab, work):
    hosts = json.loads((work / "hosts.json").read_text())
    hosts["all"]["hosts"]["gpu02"]["ansible_port"] = "1"
    (work / "hosts.json").write_text(json.dumps(hosts))
    done = gpuprov(work, "apply", "hosts.json", "play.yaml", "--json")
    assert done.returncode == 4
    assert [h["outcome"] for h in json.loads(done.stdout)["hosts"]] == ["changed", "unreachable", "changed"]


def test_expected_gpus_that_are_not_there_are_exit_3(lab, work):
    (work / "gpus.yaml").write_text(
        "- hosts: gpu01\n  vars: {gpuprov_expect_gpus: 8}\n"
        "  tasks:\n    - command: /bin/true\n      changed_when: false\n"
    )
    done = gpuprov(work, "apply", "hosts.json", "gpus.yaml", "--json")
    assert done.returncode == 3, done.stdout
    assert json.loads(done.stdout)["hosts"][0]["verdict"] == "fail"
