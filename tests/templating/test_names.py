"""Which names a template needs, without running it."""

from __future__ import annotations

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.templating.names import NONE, condition_names, names_of, text_names
from tests.support.problems import problem_of


class Needed(unittest.TestCase):
    def needs(self, source: str, *expected: str) -> None:
        with self.subTest(source):
            self.assertEqual(sorted(text_names(source).needed), sorted(expected))

    def test_names_at_the_start_of_chains(self) -> None:
        self.needs("{{ a.b[c].d }} and {{ e | join(f) }}", "a", "c", "e", "f")

    def test_what_the_template_defines_is_not_needed(self) -> None:
        self.needs("{% for i in l %}{{ i }}{{ loop.index }}{% endfor %}{% set q = 1 %}{{ q }}", "l")
        self.needs("{% macro m(x) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}", "y")

    def test_functions_that_every_template_has(self) -> None:
        self.needs("{{ range(3) }}{{ omit }}{{ lookup('vars', 'x') }}{{ now() }}")

    def test_guards(self) -> None:
        self.needs("{{ a | default(b) }}", "b")
        self.needs("{{ a.b.c | default('x') }}")
        self.needs("{{ a is defined }}")
        self.needs("{{ a if b else c }}", "a", "c")
        self.needs("{% if a is defined and a > 1 %}{{ a }}{% endif %}")
        self.needs("{{ a | default(1) }} {{ a }}", "a")
        self.assertEqual(text_names("{{ a | default(1) }}").guarded, {"a"})

    def test_names_in_other_values(self) -> None:
        value = {"{{ k }}": ["{{ v }}", 1, {"x": "{{ d | default('') }}"}], "plain": "{x}"}
        self.assertEqual((names_of(value).needed, names_of(value).guarded), ({"k", "v"}, {"d"}))
        self.assertIs(names_of(["plain", 3]), NONE)

    def test_conditions(self) -> None:
        names = condition_names("a == '{{ b }}' and c is not defined")
        self.assertEqual((names.needed, names.guarded), ({"a", "b"}, {"c"}))


class MoreThanNames(unittest.TestCase):
    def test_facts_are_known_one_by_one(self) -> None:
        self.assertEqual(text_names("{{ ansible_facts.kernel }}{{ ansible_facts['os'].x }}").facts, {"kernel", "os"})
        self.assertEqual(text_names("{{ ansible_facts[name] }}").facts, {"*"})
        self.assertEqual(text_names("{{ ansible_facts }}").facts, {"*"})
        self.assertIn("ansible_facts", text_names("{{ ansible_facts.kernel }}").needed)

    def test_what_only_the_controller_has(self) -> None:
        names = text_names("{{ lookup('env', 'A') }}{{ x | to_yaml }}{{ p is file }}{{ query(n, 1) }}")
        self.assertEqual(
            {kind for kind, _ in names.controller} | {name for _, name in names.controller},
            {"lookup", "filter", "test", "env", "to_yaml", "file", "a lookup whose name is not constant"},
        )

    def test_what_nobody_has(self) -> None:
        names = text_names("{{ x | nofilter }}{% if a %}{{ y is notest }}{% endif %}")
        self.assertEqual(names.unknown, {("filter", "nofilter"), ("test", "notest")})
        self.assertEqual(names.needed, {"x", "y", "a"})

    def test_included_files(self) -> None:
        self.assertEqual(text_names("{% include 'a.j2' %}{% import 'b.j2' as b %}").files, {"a.j2", "b.j2"})

    def test_syntax_errors(self) -> None:
        problem = problem_of(names_of, {"a": ["ok", "x\n{{ a b }}"]})
        self.assertEqual((problem.code, problem.lineno), ("template-syntax", 2))
        self.assertEqual(problem.source, "x\n{{ a b }}")


if __name__ == "__main__":
    unittest.main()
