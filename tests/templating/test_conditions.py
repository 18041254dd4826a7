"""Conditions: what holds, what braces mean, and that data is never read as an expression."""

from __future__ import annotations

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.templating.conditions import condition_source
from gpuprov.templating.renderer import Renderer
from tests.support.problems import problem_of

RESULT = {"rc": 0, "stdout": "no", "changed": True, "failed": False}


class Truth(unittest.TestCase):
    renderer = Renderer({"flag": "false", "on": "yes", "nothing": None, "text": "some words"}, {"out": RESULT})

    def check(self, expected: bool, *conditions: object) -> None:
        for condition in conditions:
            with self.subTest(condition):
                self.assertIs(self.renderer.test(condition), expected)

    def test_expressions(self) -> None:
        self.check(True, "out.rc == 0", "out is changed and out is not failed", "nope is not defined", "1", "[0]", True)
        self.check(False, "out.rc > 0", "out is failed", "nope.deep is defined", "[]", "nothing", "{}", False)

    def test_texts_that_spell_a_boolean_mean_it(self) -> None:
        self.check(False, "flag", "'no'", "out.stdout", "''", "'0'")
        self.check(True, "on", "text", "'anything'")

    def test_lists_must_all_hold_and_stop_at_the_first_that_does_not(self) -> None:
        self.check(True, ["out.rc == 0", "on"], [], None)
        self.check(False, ["out.rc == 1", "nope.would_fail"])

    def test_undefined_is_an_error(self) -> None:
        problem = problem_of(self.renderer.test, "nope")
        self.assertEqual(problem.name, "nope")


class Braces(unittest.TestCase):
    def test_they_are_tolerated(self) -> None:
        renderer = Renderer({"a": "x", "n": 3}, {})
        for condition in ("{{ a == 'x' }}", "{{ a }} == 'x'", "'{{ a }}' == 'x'", "'<{{ a }}{{ n }}>' == '<x3>'"):
            with self.subTest(condition):
                self.assertTrue(renderer.test(condition))

    def test_what_a_value_contains_is_never_an_expression(self) -> None:
        renderer = Renderer({}, {"data": "' or true or '", "code": "true"})
        self.assertFalse(renderer.test("'{{ data }}' == 'x'"))
        self.assertFalse(renderer.test("{{ data }} == 'x'"))
        self.assertFalse(renderer.test("'{{ code }}' == 'x'"))

    def test_mistakes_have_their_place(self) -> None:
        for text, line in (("a ==\n{{ b", 2), ("{% if a %}", 1)):
            problem = problem_of(condition_source, text)
            self.assertEqual((problem.code, problem.lineno), ("template-syntax", line))

    def test_without_braces_nothing_is_changed(self) -> None:
        for text in ("a == 'b'", "x in {'a': {'b': 1}}", "it's"):
            self.assertEqual(condition_source(text), text)


if __name__ == "__main__":
    unittest.main()
