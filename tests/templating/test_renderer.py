"""Rendering: native values, lazy variables, what wins, and what is said about mistakes."""

from __future__ import annotations

import os
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.templating.renderer import Outside, Renderer
from gpuprov.templating.values import OMIT
from tests.support.problems import problem_of


class Native(unittest.TestCase):
    renderer = Renderer({"items": [1, 2], "nothing": None, "word": "w"}, {"fact": {"cpus": 4}})

    def test_a_lone_expression_gives_its_own_type(self) -> None:
        for source, expected in {
            "{{ items }}": [1, 2],
            "{{ fact.cpus }}": 4,
            "{{ fact.cpus * 2 }}": 8,
            "{{ 5 }}": 5,
            "{{ nothing }}": None,
            "{{ word == 'w' }}": True,
            "{{ items | map('string') }}": ["1", "2"],
            "{{ range(3) }}": [0, 1, 2],
            "{{ {'a': (1, 2)} }}": {"a": [1, 2]},
        }.items():
            with self.subTest(source):
                self.assertEqual(self.renderer.render(source), expected)
                self.assertIs(type(self.renderer.render(source)), type(expected))

    def test_anything_else_gives_text(self) -> None:
        self.assertEqual(self.renderer.render("n={{ fact.cpus }}"), "n=4")
        self.assertEqual(self.renderer.render("{{ fact.cpus }}{{ word }}"), "4w")
        self.assertEqual(self.renderer.render("[{{ nothing }}]"), "[]")
        self.assertEqual(self.renderer.render("{% if true %}yes{% endif %}"), "yes")

    def test_a_block_scalar_keeps_its_line_end_when_it_is_text(self) -> None:
        self.assertEqual(self.renderer.render("{{ word }}\n"), "w\n")
        self.assertEqual(self.renderer.render("a\n{{ word }}\n"), "a\nw\n")
        self.assertEqual(self.renderer.render("{{ items }}\n"), [1, 2])

    def test_a_list_built_in_a_block_is_a_list(self) -> None:
        source = "{% set r = [] %}{% for i in items %}{% set _ = r.append(i * 2) %}{% endfor %}{{ r }}\n"
        self.assertEqual(self.renderer.render(source), [2, 4])

    def test_changing_a_variable_in_a_template_changes_nobody_elses(self) -> None:
        self.assertEqual(self.renderer.render("{% set _ = items.append(9) %}{{ items | length }}"), 3)
        self.assertEqual(self.renderer.render("{{ items }}"), [1, 2])

    def test_values_without_templates_are_returned_as_they_are(self) -> None:
        value = {"a": ["plain", {"b": 1}], "c": "{single}"}
        self.assertIs(self.renderer.render(value), value)

    def test_keys_and_depth(self) -> None:
        self.assertEqual(self.renderer.render({"{{ word }}": ["{{ fact.cpus }}", ["x"]]}), {"w": [4, ["x"]]})

    def test_what_is_no_data_is_an_error(self) -> None:
        self.assertIn("no data", problem_of(self.renderer.render, "{{ cycler }}").message)


class Variables(unittest.TestCase):
    def test_variables_are_rendered_when_named(self) -> None:
        renderer = Renderer({"a": "{{ b }}/x", "b": "{{ c }}", "c": "1", "broken": "{{ nowhere }}"}, {})
        self.assertEqual(renderer.render("{{ a }}"), "1/x")

    def test_a_final_value_is_never_a_template(self) -> None:
        renderer = Renderer({"a": "{{ result }}"}, {"result": "{{ 7 * 7 }}"})
        self.assertEqual(renderer.render("{{ a }}"), "{{ 7 * 7 }}")

    def test_a_final_value_wins_also_over_a_childs_template(self) -> None:
        renderer = Renderer({"x": "template"}, {"x": "final"})
        self.assertEqual(renderer.child(templates={"x": "child"}).render("{{ x }}"), "final")

    def test_a_childs_variable_reaches_into_its_parents_templates(self) -> None:
        parent = Renderer({"path": "/data/{{ item }}", "fixed": "{{ 1 + 1 }}"}, {})
        self.assertEqual(
            [parent.child(final={"item": i}).render("{{ path }}{{ fixed }}") for i in (1, 2)], ["/data/12", "/data/22"]
        )
        self.assertEqual(problem_of(parent.render, "{{ path }}").name, "item")

    def test_what_is_rendered_for_one_child_is_kept_for_the_next(self) -> None:
        asked = []
        outside = Outside(lookups={"count": lambda terms, options: asked.append(1) or ["x"]})
        parent = Renderer({"costly": "{{ lookup('count') }}"}, {}, outside=outside)
        for item in range(3):
            parent.child(final={"item": item}).render("{{ costly }}{{ item }}")
        self.assertEqual(len(asked), 1)

    def test_registering_a_result_forgets_what_was_made_from_the_old_one(self) -> None:
        renderer = Renderer({"shown": "<{{ result.rc }}>", "other": "{{ 3 }}"}, {"result": {"rc": 1}})
        self.assertEqual(renderer.render("{{ shown }}{{ other }}"), "<1>3")
        renderer.register("result", {"rc": 2})
        self.assertEqual(renderer.render("{{ shown }}{{ other }}"), "<2>3")

    def test_a_circle_is_named(self) -> None:
        problem = problem_of(Renderer({"a": "{{ b }}", "b": "x{{ a }}"}, {}).render, "{{ a }}")
        self.assertEqual(problem.code, "template-loop")
        self.assertIn("a -> b -> a", problem.message)

    def test_vars_and_lookup_vars_find_by_name(self) -> None:
        renderer = Renderer({"a_1": "{{ 6 }}", "n": 1}, {})
        self.assertEqual(renderer.render("{{ vars['a_' ~ n] }}"), 6)
        self.assertEqual(renderer.render("{{ lookup('vars', 'a_' ~ n) }}"), 6)
        self.assertEqual(renderer.render("{{ lookup('vars', 'none', default='d') }}"), "d")

    def test_omitted_entries_are_gone(self) -> None:
        renderer = Renderer({}, {})
        self.assertEqual(renderer.render({"a": "{{ omit }}", "b": ["{{ omit }}", 1]}), {"b": [1]})
        self.assertIs(renderer.render("{{ nope | default(omit) }}"), OMIT)
        self.assertIn("omit", problem_of(renderer.render, "x{{ omit }}").message)

    def test_renderers_in_many_threads_share_compiled_templates(self) -> None:
        found: dict[int, set[str]] = {}

        def work(number: int) -> None:
            renderer = Renderer({"base": "{{ n * 2 }}"}, {"n": number})
            found[number] = {renderer.child(final={"item": i}).render("{{ base }}") for i in range(50)}

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, {n: {n * 2} for n in range(8)})


class Mistakes(unittest.TestCase):
    renderer = Renderer({"d": {"colour": 1}, "uses": "{{ nowhere }}"}, {})

    def test_undefined_names_are_errors_that_name_them(self) -> None:
        problem = problem_of(self.renderer.render, "a {{ nope }}")
        self.assertEqual((problem.code, problem.name, problem.token), ("undefined", "nope", "nope"))

    def test_a_missing_key_says_what_was_meant(self) -> None:
        problem = problem_of(self.renderer.render, "{{ d.color }}")
        self.assertEqual((problem.code, problem.name, problem.token), ("undefined", None, "color"))
        self.assertIn("did you mean 'colour'", problem.message)

    def test_the_way_to_an_undefined_name_is_told(self) -> None:
        problem = problem_of(self.renderer.render, "{{ uses }}")
        self.assertEqual((problem.name, problem.via, problem.source), ("nowhere", ("uses",), "{{ nowhere }}"))

    def test_a_backslash_in_yaml_is_a_backslash(self) -> None:
        renderer = Renderer({"v": "v535.104"}, {})
        self.assertEqual(renderer.render(r"{{ v | regex_replace('v(\d+)\..*', '\1') }}"), "535")
        self.assertEqual(renderer.text(r"{{ 'a\tb' }}"), "a\tb")

    def test_undefined_hidden_in_a_list_is_found(self) -> None:
        self.assertEqual(problem_of(self.renderer.render, "{{ [1, nope] }}").name, "nope")

    def test_attributes_of_undefined_can_be_asked_for(self) -> None:
        self.assertEqual(self.renderer.render("{{ a.b.c is defined }}"), False)
        self.assertEqual(self.renderer.render("{{ a.b['c'] | default('none') }}"), "none")
        self.assertEqual(problem_of(self.renderer.render, "{{ a.b.c }}").name, "a")

    def test_syntax_errors_have_their_line(self) -> None:
        problem = problem_of(self.renderer.render, "one\ntwo {{ x y }}")
        self.assertEqual((problem.code, problem.lineno), ("template-syntax", 2))

    def test_errors_while_running_have_their_line(self) -> None:
        problem = problem_of(self.renderer.render, "one\n\n{{ 1 // 0 }}")
        self.assertEqual((problem.code, problem.lineno), ("template-failed", 3))

    def test_an_unknown_filter_or_test_says_what_was_meant(self) -> None:
        problem = problem_of(self.renderer.render, "{{ 'x' | uper }}")
        self.assertEqual(problem.code, "unknown-filter")
        self.assertIn("'upper'", problem.message)
        self.assertEqual(problem_of(self.renderer.render, "{{ 1 is evn }}").code, "unknown-test")

    def test_the_sandbox_holds(self) -> None:
        for source in ("{{ ''.__class__.__mro__ }}", "{{ d.update(a=1).__init__ }}", "{{ '{0.__class__}'.format(1) }}"):
            with self.subTest(source):
                self.assertIn("unsafe", problem_of(self.renderer.render, source).message)

    def test_a_position_in_a_file_survives(self) -> None:
        class Placed(str):
            position = "here"

        self.renderer.render("{{ 1 }}{{ 2 }}")
        for _ in range(2):  # the second time it comes from the cache
            problem = problem_of(self.renderer.render, Placed("{{ nope }}"))
            self.assertEqual(getattr(problem.source, "position", None), "here")


class Texts(unittest.TestCase):
    def test_a_template_file_is_always_text(self) -> None:
        renderer = Renderer({}, {"n": [1, 2]})
        self.assertEqual(renderer.text("{{ n }}\n"), "[1, 2]\n")

    def test_line_ends_are_ansibles(self) -> None:
        renderer = Renderer({}, {"n": [1, 2]})
        self.assertEqual(renderer.text("{% for i in n %}\n  {{ i }}\n{% endfor %}\n"), "  1\n  2\n")
        self.assertEqual(renderer.text("a{% if n %}b{% endif %}\n"), "ab\n")
        self.assertEqual(renderer.text("no end"), "no end")

    def test_the_header_changes_the_rules_for_one_file(self) -> None:
        renderer = Renderer({}, {"n": [1]})
        source = "#jinja2: trim_blocks:False\n{% for i in n %}\n{{ i }}\n{% endfor %}\n"
        self.assertEqual(renderer.text(source), "\n1\n")
        self.assertEqual(
            renderer.text("#jinja2: variable_start_string:'[%', variable_end_string:'%]'\n[% n %]{{x}}"), "[1]{{x}}"
        )
        self.assertIn("allowed are", problem_of(renderer.text, "#jinja2: nonsense:1\nx").message)

    def test_lines_below_a_header_are_counted_from_the_file(self) -> None:
        problem = problem_of(Renderer({}, {}).text, "#jinja2: lstrip_blocks:True\nok\n{{ 1 // 0 }}")
        self.assertEqual(problem.lineno, 3)

    def test_includes_see_variables_and_what_was_set(self) -> None:
        files = {"part": "{{ x }}-{{ own }}-{{ i }};", "macros": "{% macro m(a) %}<{{ a }}{{ x }}>{% endmacro %}"}
        renderer = Renderer({"x": "{{ 1 + 1 }}"}, {}, outside=Outside(load=files.get))
        source = "{% set own = 'o' %}{% for i in [7, 8] %}{% include 'part' %}{% endfor %}"
        self.assertEqual(renderer.text(source), "2-o-7;2-o-8;")
        self.assertEqual(renderer.text("{% import 'macros' as m with context %}{{ m.m(1) }}"), "<12>")
        self.assertEqual(problem_of(renderer.text, "{% import 'macros' as m %}{{ m.m(1) }}").name, "x")
        self.assertIn("absent", problem_of(renderer.text, "a\n{% include 'absent' %}").message)

    def test_without_a_controller_nothing_of_it_is_there(self) -> None:
        renderer = Renderer({}, {})
        for source in ("{{ lookup('env', 'HOME') }}", "{{ {} | to_yaml }}", "{{ '/etc' is directory }}"):
            with self.subTest(source):
                self.assertEqual(problem_of(renderer.render, source).code, "controller-only")


if __name__ == "__main__":
    unittest.main()
