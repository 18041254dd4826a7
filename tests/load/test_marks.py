"""YAML and JSON text to values with positions, and what is said about text that is neither."""

import json
import time

import pytest

from gpuprov.load.marks import load_text, load_yaml
from gpuprov.source import Position, SourceDict, SourceList, SourceStr, position_of


def read(text: str, **options: bool) -> object:
    problems: list = []
    value = load_text(text, "f.yml", problems, **options)
    assert problems == []
    return value


def problems_of(text: str) -> list:
    problems: list = []
    load_text(text, "f.yml", problems)
    return problems


WRONG = [
    ("a: {{ x }}", "yaml-unquoted-template", 1, 4, 'write "{{ x }}"'),
    ("a: {{ x }}/bin", "yaml-unquoted-template", 1, 4, 'write "{{ x }}/bin"'),
    ("- {{ x }}", "yaml-unquoted-template", 1, 3, "{{"),
    ("copy: {src: {{ x }}, dest: /b}", "yaml-unquoted-template", 1, 13, 'write "{{ x }}"'),
    ("a:\n\tb: 1", "yaml-tab", 2, 1, "tab"),
    ("a:\n  b: 1\n\tc: 2", "yaml-tab", 3, 1, "tab"),
    ("b: 1\na: 'x", "yaml-unclosed", 2, 4, "never closed"),
    ("a: [1, 2\nb: 3", "yaml-unclosed", 1, 4, "list in [ ]"),
    ("x: {a: 1\n", "yaml-unclosed", 1, 4, "mapping in { }"),
    ("a: b: c", "yaml-colon", 1, 5, "quote the value"),
    ("a: 1\n  b: 2", "yaml-colon", 2, 4, "indented deeper"),
    ("a:b\nc: d", "yaml-colon", 1, 2, "write a: VALUE"),
    ("a: @x", "yaml-character", 1, 4, "cannot start with @"),
    ("a: `b`", "yaml-character", 1, 4, "cannot start with `"),
    ("a: \x07", "yaml-character", 1, 4, "control character"),
    ('a: "x" y', "yaml-quote", 1, 8, "whole value in quotes"),
    ("a:\n  b: 1\n c: 2", "yaml-indent", 3, 2, "mapping above"),
    ("- a\nb: c", "yaml-indent", 2, 1, "list above"),
    ('a: "\\d"', "yaml-escape", 1, 5, "single quotes"),
    ("a: *x", "yaml-alias", 1, 4, "*x refers to an anchor"),
    ("a: &x [*x]", "yaml-alias", 1, 8, "*x"),
    ("a: 65:00", "yaml-number", 1, 4, '"65:00" for text, 3900 for the number'),
    ("a: 1\nb: 2\na: 3", "yaml-duplicate-key", 3, 1, "the first is at f.yml:1:1"),
    ("a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256", "vault-unsupported", 1, 4, "vault is not supported yet"),
    ("a: !custom x", "yaml-tag", 1, 4, "!custom"),
    ("a: !!python/object/apply:os.system [id]", "yaml-tag", 1, 4, "python/object"),
    ("a: !!int five", "yaml-tag", 1, 4, "does not fit"),
    ("? [a]\n: b", "yaml-key", 1, 3, "a key must be text"),
    ("a: 1\nb:\n  <<: text", "yaml-merge", 3, 3, "<< takes"),
    ("--- a\n--- b", "yaml-documents", 2, 1, "second document"),
    ("[" * 65 + "]" * 65, "yaml-depth", 1, 65, "64 levels"),
]


@pytest.mark.parametrize(("text", "code", "line", "column", "part"), WRONG, ids=[w[0][:30] for w in WRONG])
def test_wrong_text_is_one_problem_at_its_place(text: str, code: str, line: int, column: int, part: str) -> None:
    [problem] = problems_of(text)
    assert (problem.code, problem.position) == (code, Position("f.yml", line, column))
    assert part in f"{problem.message} | {problem.hint}"


def test_all_duplicates_and_templates_are_reported_together() -> None:
    problems = problems_of("a: 1\na: 2\nb: {{ x }}\nc: !vault x\n")
    assert [p.code for p in problems] == ["yaml-duplicate-key", "yaml-unquoted-template", "vault-unsupported"]


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    [problem] = problems_of("\n".join(lines))
    assert problem.code == "yaml-size"


SCALARS = [
    ("yes", True),
    ("No", False),
    ("ON", True),
    ("off", False),
    ("true", True),
    ("False", False),
    ("y", "y"),
    ("n", "n"),
    ("yES", "yES"),
    ("null", None),
    ("~", None),
    ("", None),
    ("Null", None),
    ("0", 0),
    ("12", 12),
    ("-3", -3),
    ("+3", 3),
    ("1_000", 1000),
    ("0644", 420),
    ("0x1F", 31),
    ("0b101", 5),
    ("089", "089"),
    ("1.5", 1.5),
    ("1.", 1.0),
    (".5", 0.5),
    ("1.5e+3", 1500.0),
    ("1e5", "1e5"),
    (".inf", float("inf")),
    ("1.2.3", "1.2.3"),
    ("2024-01-01", "2024-01-01"),
    ("=", "="),
    ("a:b", "a:b"),
    ("'yes'", "yes"),
    ('"0644"', "0644"),
    ("127.0.0.1", "127.0.0.1"),
    ("!!str 5", "5"),
    ("!!int '7'", 7),
    ("!!float '1'", 1.0),
    ("!!bool 'yes'", True),
    ("!!null x", None),
    ("! 5", "5"),
    ("!unsafe text", "text"),
    ("!unsafe '{{ x }}'", "{% raw %}{{ x }}{% endraw %}"),
    ("00:16:3e:00:00:01", "00:16:3e:00:00:01"),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[s[0] for s in SCALARS])
def test_scalars_mean_what_they_mean_in_ansible(text: str, value: object) -> None:
    found = read(f"key: {text}")["key"]
    assert found == value
    assert type(found) is (SourceStr if isinstance(value, str) else type(value))


def test_everything_knows_its_place() -> None:
    value = read("hosts:\n  - gpu01\n  - {name: 'gpu 02', port: 22}\n")
    assert isinstance(value, SourceDict)
    assert value.position == Position("f.yml", 1, 1)
    assert value.keys_at == {"hosts": Position("f.yml", 1, 1)}
    hosts = value["hosts"]
    assert isinstance(hosts, SourceList)
    assert hosts.position == Position("f.yml", 2, 3)
    assert hosts.items_at == [Position("f.yml", 2, 5), Position("f.yml", 3, 5)]
    assert position_of(hosts[0]) == Position("f.yml", 2, 5)
    assert position_of(hosts[1]["name"]) == Position("f.yml", 3, 12)
    assert hosts[1].keys_at["port"] == Position("f.yml", 3, 22)


def test_columns_count_characters_not_bytes() -> None:
    assert read("{ä: 1, ö: x}").keys_at["ö"] == Position("f.yml", 1, 8)


def test_merge_keys_give_way_to_explicit_ones() -> None:
    text = "base: &b {k: 1, j: 2}\nmore: &m {j: 3, l: 4}\nuse:\n  k: 5\n  <<: [*b, *m]\n"
    use = read(text)["use"]
    assert use == {"k": 5, "j": 2, "l": 4}
    assert use.keys_at["j"] == Position("f.yml", 1, 17)


def test_an_anchor_is_the_same_value_everywhere() -> None:
    assert read("a: &x [1, {b: 2}]\nc: *x\nd: &s text\ne: *s") == {
        "a": [1, {"b": 2}],
        "c": [1, {"b": 2}],
        "d": "text",
        "e": "text",
    }


def test_json_is_read_as_json() -> None:
    document = {
        "emoji": "\U0001f600",
        "big": 1e22,
        "nested": [None, True, {"path": "/a"}],
        "tab": "a\tb",
        "slash": "a/b",
    }
    text = json.dumps(document, indent="\t").replace("a/b", "a\\/b")
    assert read(text, json=True) == document


def test_empty_text_is_nothing() -> None:
    assert read("") is None
    assert read("# only a comment\n") is None


def test_files_that_cannot_be_read(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yml").write_bytes(b"a: 1\nb: \xff\n")
    problems: list = []
    assert load_yaml("bad.yml", problems) is None
    assert load_yaml(str(tmp_path / "missing.yml"), problems) is None
    assert load_yaml(str(tmp_path), problems) is None
    assert [p.code for p in problems] == ["file-encoding", "file-unreadable", "file-unreadable"]
    assert problems[0].position == Position("bad.yml", 2, 4)
    assert "missing.yml cannot be read: No such file" in problems[1].message


def test_paths_are_shown_relative_only_below_the_working_directory(tmp_path, monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a.yml"
    file.write_text("\ufeffa: 1\n")  # a byte order mark is no part of the first key
    monkeypatch.chdir(tmp_path)
    assert load_yaml(str(file), []).keys_at == {"a": Position("in/a.yml", 1, 1)}
    monkeypatch.chdir(tmp_path / "in")
    assert load_yaml("../in/a.yml", []).position.path == "a.yml"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert load_yaml("../in/a.yml", []).position.path == str(file)


def test_two_hundred_hosts_load_fast(tmp_path) -> None:
    hosts = {f"gpu{n:03}": {f"variable_{k}": f"value {n} {k}" for k in range(12)} for n in range(200)}
    file = tmp_path / "inventory.json"
    file.write_text(json.dumps({"all": {"hosts": hosts}}))
    times = []
    for _ in range(5):
        started = time.process_time()
        loaded = load_yaml(str(file), [])
        times.append(time.process_time() - started)
    assert loaded["all"]["hosts"] == hosts
    assert min(times) < 0.060
