"""Run the whole suite in two halves at the same time: most of one waits for hosts, most of the other computes.

    python tools/halves.py PYTEST_OPTIONS...

The second half is shown while it runs, the first one after it. Exits with the first code that is not 0.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECOND = ("cli", "compile", "doctor", "e2e", "judge", "load", "proof", "report", "stack", "store", "templating", "wire")


def main(options: list[str]) -> int:
    """Run both; return the exit code."""
    pytest = [sys.executable, "-m", "pytest", *options]
    second = [f"tests/{name}" for name in SECOND]
    first = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").iterdir()) if path.is_dir()]
    first = [path for path in first if path not in second and any((ROOT / path).rglob("test_*.py"))]
    with tempfile.TemporaryFile("w+b") as said:
        with subprocess.Popen([*pytest, *first], cwd=ROOT, stdout=said, stderr=subprocess.STDOUT) as begun:
            codes = [subprocess.run([*pytest, *second], cwd=ROOT, check=False).returncode]
            sys.stdout.write(f"and {' '.join(first)}, when they have ended:\n")
            sys.stdout.flush()
            codes.append(begun.wait())
        said.seek(0)
        sys.stdout.buffer.write(said.read())
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
