"""Conditions are expressions; those written with braces anyway are turned into such ones."""

from __future__ import annotations

from gpuprov.templating.problem import TemplateProblem


def condition_source(text: str) -> str:
    """Return condition *text* as one expression without braces. Raises TemplateProblem.

    `{{ a }} == 'x{{ b }}'` becomes `(a) == ('x' ~ (b) ~ '')`: the values are compared, and
    what they contain is never read as an expression.
    """
    if "{{" not in text and "{%" not in text:
        return text
    out: list[str] = []
    at, quote, opened = 0, "", 0
    while at < len(text):
        char = text[at]
        if text.startswith("{%", at):
            raise TemplateProblem(
                "a condition is an expression; statements ({% %}) cannot be used in it",
                code="template-syntax",
                lineno=text.count("\n", 0, at) + 1,
                source=text,
            )
        if text.startswith("{{", at):
            end = _closing(text, at + 2)
            inner = "({})".format(text[at + 2 : end].strip("-+ "))
            out.append(f"{quote} ~ {inner} ~ {quote}" if quote else inner)
            at = end + 2
            continue
        if not quote and char in "'\"":
            quote, opened = char, len(out)
            out.append("(" + char)
        elif quote and char == quote and text[at - 1] != "\\":
            out.append(char + ")")
            quote = ""
        else:
            out.append(char)
        at += 1
    if quote:
        out[opened] = out[opened][1:]  # an unclosed text: let the parser complain about what was written
    return "".join(out)


def _closing(text: str, start: int) -> int:
    """Return where the `}}` is that closes the `{{` before *start*, texts skipped."""
    at, quote = start, ""
    while at < len(text):
        char = text[at]
        if quote:
            quote = "" if char == quote and text[at - 1] != "\\" else quote
        elif char in "'\"":
            quote = char
        elif text.startswith("}}", at):
            return at
        at += 1
    raise TemplateProblem(
        "a {{ is not closed by }}",
        code="template-syntax",
        lineno=text.count("\n", 0, start) + 1,
        source=text,
    )
