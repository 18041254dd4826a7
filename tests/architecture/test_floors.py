"""Rules about the code that no type checker knows: what hosts may import, how long things may be, what may be named."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpuprov import bundle, errors

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [p for room in ("wire", "agent", "proof") for p in sorted((ROOT / "gpuprov" / room).rglob("*.py"))]
SOURCES = sorted((ROOT / "gpuprov").rglob("*.py"))
#: What the proof finds in the environment that it proves.
PROOF_MAY = {"torch", "pynvml"}


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or "", node.lineno


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_hosts_need_the_standard_library_only(path):
    allowed = sys.stdlib_module_names | {"gpuprov"} | (PROOF_MAY if "proof" in path.parts else set())
    foreign = [f"{name} (line {line})" for name, line in imports(path) if name.split(".")[0] not in allowed]
    foreign = [f for f in foreign if not f.startswith(("_sha2", "_sha256"))]
    assert not foreign


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_shipped_code_parses_as_python_3_8(path):
    ast.parse(path.read_text(), feature_version=(3, 8))


SLOW_IMPORTS = {
    "typing",
    "dataclasses",
    "subprocess",
    "shutil",
    "tempfile",
    "hashlib",
    "pathlib",
    "logging",
    "threading",
}
SLOW_IMPORTS |= {"shlex", "platform", "socket", "zipfile", "urllib", "inspect", "ctypes"}


def test_the_agent_imports_nothing_slow_at_start():
    """Every one of these costs a host some milliseconds of each run."""
    found = []
    for path in sorted((ROOT / "gpuprov/agent").rglob("*.py")):
        if path.name in ("compiled.py", "download.py", "survey_ask.py"):  # after the run; only where it downloads, asks
            continue
        for node in ast.parse(path.read_text()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [f"{path.relative_to(ROOT)}:{node.lineno} {n}" for n in names if n.split(".")[0] in SLOW_IMPORTS]
    assert not found


def test_files_and_functions_stay_small():
    long_files = [f"{p.relative_to(ROOT)} {n}" for p in SOURCES if (n := len(p.read_text().splitlines())) > 400]
    long_functions = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 60:
                    long_functions.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} {lines}")
    assert not long_files
    assert not long_functions


def test_nothing_is_left_to_do_in_the_code():
    words = re.compile("TO" + "DO|FIX" + "ME|XX" + "X|HA" + "CK")
    assert not [str(p.relative_to(ROOT)) for p in SOURCES if words.search(p.read_text())]


def test_no_committed_file_names_a_registry_or_this_machine():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    hosts = ["py" + "pi.org", "python" + "hosted", "npm" + "js", "deb." + "debian.org", "archive." + "ubuntu.com"]
    common = (Path("/"), Path("/root"), Path("/tmp"), Path.home())  # says nothing about this machine
    places = [f"{ROOT}/"] if ROOT.parent in common else [f"{ROOT.parent}/"]
    patterns = re.compile("|".join(map(re.escape, [*hosts, *places])))
    found = []
    for name in filter(None, names.split("\0")):
        path = ROOT / name
        if path.is_file() and patterns.search(path.read_bytes().decode("utf-8", "replace")):
            found.append(name)
    assert not found


def test_the_bundle_holds_what_ships_and_nothing_else():
    import io
    import zipfile

    names = zipfile.ZipFile(io.BytesIO(bundle.layer("agent").data)).namelist()
    assert {n.split("/")[1] for n in names if n.count("/") > 1} == {"wire", "agent"}
    assert "gpuprov/agent/stage2.py" not in names
    assert len(bundle.layer("agent").data) < 320 * 1024  # sent once to a host, and kept there


def test_the_error_tree_in_the_docstring_is_the_one_in_the_code():
    words = set(re.findall(r"\b[A-Z]\w+", errors.__doc__ or ""))
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.GpuprovError)
    }
    assert classes <= words


def test_loader_command_is_one_plain_word_for_every_shell():
    command = bundle.loader_command("gpuprov-0123456789abcdef", sudo="prompt:")
    inner = command.split("'")[1]
    assert command.count("'") == 2
    assert not set(inner) & set("'!`\\\n")
