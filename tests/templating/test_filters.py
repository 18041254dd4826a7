"""Filters and tests against what ansible-core gives for the same expressions."""

from __future__ import annotations

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.templating.environment import ENVIRONMENT
from gpuprov.templating.renderer import Renderer
from tests.support.problems import problem_of

VARIABLES = {
    "words": ["b", "a", "b"],
    "nested": [1, [2, [3, None]]],
    "one": {"a": 1, "deep": {"x": [1], "y": 2}},
    "two": {"b": 2, "deep": {"x": [2], "z": 3}},
    "users": [{"name": "ann", "keys": ["k1", "k2"]}, {"name": "bob", "keys": []}],
}
#: Expression -> result; checked once against ansible-core 2.19.
SAME = {
    "words | unique": ["b", "a"],
    "words | intersect(['a', 'c'])": ["a"],
    "words | difference(['a'])": ["b"],
    "nested | flatten": [1, 2, 3],
    "nested | flatten(levels=1)": [1, 2, [3, None]],
    "[1, 2] | zip(['a', 'b'])": [[1, "a"], [2, "b"]],
    "[1, 2] | zip_longest(['a'], fillvalue='-')": [[1, "a"], [2, "-"]],
    "[1, 2] | product(['a'])": [[1, "a"], [2, "a"]],
    "one | combine(two)": {"a": 1, "b": 2, "deep": {"x": [2], "z": 3}},
    "one | combine(two, recursive=true)": {"a": 1, "b": 2, "deep": {"x": [2], "y": 2, "z": 3}},
    "one | combine(two, recursive=true, list_merge='append')": {
        "a": 1,
        "b": 2,
        "deep": {"x": [1, 2], "y": 2, "z": 3},
    },
    "{'k': 1} | dict2items": [{"key": "k", "value": 1}],
    "[{'key': 'k', 'value': 1}] | items2dict": {"k": 1},
    "users | subelements('keys') | map('last') | list": ["k1", "k2"],
    "users | rekey_on_member('name') | list": ["ann", "bob"],
    "'aXbX' | regex_replace('x', '-', ignorecase=true)": "a-b-",
    "'v535.104' | regex_replace('v(\\d+)\\..*', '\\1')": "535",
    "'a1b22' | regex_findall('\\d+')": ["1", "22"],
    "'driver 535' | regex_search('\\d+')": "535",
    "'driver 535.1' | regex_search('(\\d+)\\.(\\d+)', '\\1', '\\2')": ["535", "1"],
    "'none' | regex_search('\\d')": None,
    "'a.b' | regex_escape": "a\\.b",
    "'yes' | bool": True,
    "'nope' | bool": False,
    "true | ternary('a', 'b')": "a",
    "none | ternary('a', 'b', 'c')": "c",
    "'hello' | b64encode": "aGVsbG8=",
    "'aGVsbG8=' | b64decode": "hello",
    "'x' | hash('sha256')": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    "'x' | checksum": "11f6ad8ec52a2984abaafd7c3b516503785c2072",
    "{'b': 1, 'a': [true, none]} | to_json": '{"b": 1, "a": [true, null]}',
    "{'b': 1, 'a': 2} | to_nice_json": '{\n    "a": 2,\n    "b": 1\n}',
    "'[1, {\"a\": null}]' | from_json": [1, {"a": None}],
    "'/a/b.tar.gz' | basename": "b.tar.gz",
    "'/a/b' | dirname": "/a",
    "'b.tar.gz' | splitext": ["b.tar", ".gz"],
    "['/a', 'b'] | path_join": "/a/b",
    "'a,b' | split(',')": ["a", "b"],
    "'it is' | quote": "'it is'",
    "'a' | type_debug": "str",
    "[1] | type_debug": "list",
    "'gpu' | to_uuid": "d7082360-18ef-5f57-a6d1-c3d188307a62",
    "'k' | extract({'k': {'x': 5}}, 'x')": 5,
    "'10M' | human_to_bytes": 10485760,
    "1024 | human_readable": "1.00 KB",
    "'http://h:8/p?q=1' | urlsplit('port')": 8,
    "'a%20b' | urldecode": "a b",
    "'550.54.15' is version('550.40', '>=')": True,
    "'1.10' is version('1.9', 'lt')": False,
    "'12.4' is version('12.4.0', '<')": True,
    "[1] is subset([1, 2])": True,
    "[1, 2] is superset([3])": False,
    "[1, 2] is contains(2)": True,
    "'nvidia0' is match('nvidia')": True,
    "'a nvidia' is match('nvidia')": False,
    "'a NVIDIA' is search('nvidia', ignorecase=true)": True,
    "'abc' is regex('b', match_type='search')": True,
    "{'failed': true} is failed": True,
    "{'changed': true} is succeeded": True,
    "{'results': [{'changed': false}, {'changed': true}]} is changed": True,
    "{'skipped': true} is skipped": True,
    "[true, false] is any": True,
    "[true, false] is all": False,
}


#: Expression -> result, where Ansible has no fixed order or needs a collection.
OURS = {
    "['a', 'b'] | symmetric_difference(['b', 'c'])": ["a", "c"],
    "words | union(['c'])": ["b", "a", "c"],
    "['1.10', '1.9'] | version_sort": ["1.9", "1.10"],
    "{'A': 1, 'B': 'x y', 'C': 0.5} | environment_variables": {"A": "1", "B": "x y", "C": "0.5"},
    "['/a b', '/c'] | environment_folders": ["/a b", "/c"],
    "'a!b' | quote_for('csh')": "'a\\!b'",
    r"'a\b' | quote_for('fish')": r"'a\\b'",
    "'50%' | quote_for('systemd')": "50%%",
    "'a b' | quote_for('sh')": "'a b'",
}


class AsInAnsible(unittest.TestCase):
    def test_results(self) -> None:
        renderer = Renderer(VARIABLES, {})
        for expression, expected in {**SAME, **OURS}.items():
            with self.subTest(expression):
                self.assertEqual(renderer.render("{{ %s }}" % expression), expected)

    def test_fully_qualified_names(self) -> None:
        self.assertEqual(Renderer({}, {}).render("{{ 'a' | ansible.builtin.b64encode }}"), "YQ==")
        self.assertTrue(Renderer({}, {}).test("{'changed': true} is ansible.builtin.changed"))

    def test_every_filter_of_the_corpus_is_there_or_says_why_not(self) -> None:
        counted = (
            "default bool length lower int string first join map list b64decode replace select basename combine sort "
            "dict2items regex_replace trim split from_json selectattr ternary dirname exists last type_debug count "
            "quote rejectattr difference splitext from_yaml to_nice_yaml unique zip_longest b64encode flatten product "
            "regex_search reject reverse round to_json to_nice_json urlencode version_sort extract intersect "
            "mandatory max regex_findall slice symmetric_difference to_datetime"
        )
        self.assertEqual([name for name in counted.split() if name not in ENVIRONMENT.filters], [])


class Mistakes(unittest.TestCase):
    def test_wrong_values_are_named(self) -> None:
        for expression, words in {
            "'text' | dict2items": "needs a mapping",
            "5 | flatten": "needs a list",
            "[1] | combine": "needs mappings",
            "{} | combine({}, list_merge='x')": "allowed are",
            "'x' | from_json": "not JSON",
            "'x' | hash('none')": "no hash",
            "'x' is failed": "needs a registered result",
            "'1' is version('2', '~')": "operator",
            "'' is version('2')": "empty",
            "'x' | human_to_bytes": "no size",
            "{'A': 'x\\ny'} | environment_variables": "A has a line break",
            "{'A': true} | environment_variables": "A is true, not text",
            "['/a:/b'] | environment_folders": "cannot be an element",
            "'x' | quote_for('cmd')": "allowed are sh, csh, fish and systemd",
            "'x' is regex('x', match_type='y')": "allowed are",
        }.items():
            with self.subTest(expression):
                assert words in problem_of(Renderer({}, {}).evaluate, expression).message

    def test_mandatory_says_what_was_asked(self) -> None:
        problem = problem_of(Renderer({}, {}).evaluate, "nope | mandatory('set nope')")
        self.assertEqual((problem.message, problem.name), ("set nope", "nope"))

    def test_what_ansible_has_and_gpuprov_not_says_what_to_do(self) -> None:
        problem = problem_of(Renderer({}, {}).evaluate, "'x' | password_hash('sha512')")
        self.assertEqual(problem.code, "unknown-filter")
        self.assertIn("hash itself", problem.hint)


class Seeds(unittest.TestCase):
    def test_a_seed_gives_the_same_every_time(self) -> None:
        renderer = Renderer({}, {})
        for expression in ("[1, 2, 3, 4, 5] | shuffle(seed='h')", "1000 | random(seed='h')"):
            self.assertEqual(renderer.evaluate(expression), renderer.evaluate(expression))
        self.assertEqual(sorted(renderer.evaluate("[3, 1, 2] | shuffle(seed=1)")), [1, 2, 3])


if __name__ == "__main__":
    unittest.main()
