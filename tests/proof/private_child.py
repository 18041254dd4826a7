"""A double of the compiling process: python -m tests.proof.private_child JSON, where JSON says what it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    asked = json.loads(sys.argv[1])
    print(json.dumps({"stage": "starting workers"}), flush=True)
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    # One as inductor's pool starts them, one that left its group and its parent.
    workers = [subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid]
    folder = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    Path(folder).mkdir()
    Path(folder, "kernel.py").write_text("")
    print("a library's word")
    print(json.dumps({"workers": workers, "folder": folder, "pid": os.getpid()}), flush=True)
    if asked["hangs"]:
        print(json.dumps({"stage": "hanging"}), flush=True)
        time.sleep(600)
    print("what went wrong", file=sys.stderr)
    sys.exit(asked["code"])


if __name__ == "__main__":
    main()
