"""The module `template`: a file rendered on the controller; from there on it is `copy`."""

from __future__ import annotations

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.content import BACKUP, VALIDATE
from gpuprov.agent.modules.copy import Copy, needs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MODULE", "SPEC", "needs"]

SPEC: dict[str, Any] = {
    "summary": "A Jinja2 template of the controller, rendered for each host.",
    "args": {
        "src": {"type": "path", "required": True, "doc": "The template, on the controller."},
        "dest": {"type": "path", "required": True, "doc": "Where on the host. A folder, or one that ends with /, too."},
        "force": {"type": "bool", "default": True, "doc": "no: leave an existing file alone."},
        "backup": BACKUP,
        "validate": VALIDATE,
        "follow": {"type": "bool", "default": False, "doc": "Write to what a link at dest points to."},
        "newline_sequence": {"type": "str", "choices": ["\n", "\r", "\r\n"], "default": "\n", "doc": "Line ends."},
        "trim_blocks": {"type": "bool", "default": True, "doc": "Drop the line end after a block tag."},
        "lstrip_blocks": {"type": "bool", "default": False, "doc": "Drop blanks before a block tag."},
        "block_start_string": {"type": "str", "default": "{%", "doc": "Start of a block tag."},
        "block_end_string": {"type": "str", "default": "%}", "doc": "End of a block tag."},
        "variable_start_string": {"type": "str", "default": "{{", "doc": "Start of an expression."},
        "variable_end_string": {"type": "str", "default": "}}", "doc": "End of an expression."},
        "comment_start_string": {"type": "str", "doc": "Start of a comment."},
        "comment_end_string": {"type": "str", "doc": "End of a comment."},
        **attributes.ARGS,
    },
    "unsupported": {**attributes.UNSUPPORTED, "output_encoding": "files are written as UTF-8"},
    "internal": ["content", "_blob", "_text"],
    "returns": {
        "dest": "Where the file is.",
        "src": "The template.",
        "checksum": "SHA-1 of the file.",
        "backup_file": "The copy of the old file.",
        **attributes.RETURNS,
    },
}

MODULE = Copy
