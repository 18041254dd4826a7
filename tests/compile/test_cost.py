"""What is not imported before something is compiled."""

from __future__ import annotations

import os
import subprocess
import sys


def test_help_does_not_load_jinja() -> None:
    code = "import sys; import gpuprov.cli.main; sys.exit('jinja2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
