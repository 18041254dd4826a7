"""A place for the tests of the module pip: an environment, a folder of wheels, and one task at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from gpuprov.agent.modules import arguments, base, pip, pip_tools
from gpuprov.agent.perform import failed, perform
from gpuprov.agent.system import System
from tests.support import wheels

TARGET = "{}.{}".format(*sys.version_info[:2])


def tree(folder):
    """Return every path under *folder* with its size and time of change."""
    found = {}
    for above, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(above, name)
            found[path] = (os.lstat(path).st_size, os.lstat(path).st_mtime_ns)
    return found


class PipCase(unittest.TestCase):
    """A place for an environment, a folder of wheels, and one task at a time."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="gpuprov-pip-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.wheels = os.path.join(self.folder, "wheels")
        self.state = os.path.join(self.folder, "state")
        self.env = os.path.join(self.folder, "opt", "env")
        for name in (self.wheels, self.state, os.path.dirname(self.env)):
            os.mkdir(name)
        self.blobs = {}
        self.lines = []
        self.addCleanup(setattr, pip_tools, "HOST_CACHE", pip_tools.HOST_CACHE)
        pip_tools.HOST_CACHE = os.path.join(self.folder, "cache")

    def make(self, name, version, *requires, **more):
        """Put a wheel into the folder of wheels and describe it as the controller would."""
        path = wheels.make_wheel(self.wheels, name, version, requires, **more)
        one = wheels.described(path, name, version)
        self.blobs[one["sha256"]] = path
        return one

    def uv(self):
        path = wheels.uv_wheel()
        one = wheels.described(path, "uv", "0")
        self.blobs[one["sha256"]] = path
        return one

    def args(self, **given):
        given.setdefault("virtualenv", self.env)
        checked, wrong = arguments.check(pip.SPEC, given)
        self.assertEqual([w.message for w in wrong], [])
        return checked

    def local(self, **given):
        """Arguments for the folder of wheels as the only source."""
        if given.get("state") != "absent":
            given.setdefault("extra_args", "--no-index")
            given.setdefault("find_links", self.wheels)
        return self.args(_uv=self.uv(), **given)

    def run_task(self, args, **more):
        call = base.Call(
            dict(args),
            System(),
            blob=self.blobs.__getitem__,
            state_dir=self.state,
            output=lambda stream, line: self.lines.append(line),
            **more,
        )
        self.warnings = call.warnings
        try:
            done = perform(pip.MODULE(call), lambda: None)
        except base.ModuleError as error:
            done = failed(error)
        self.assertEqual(os.listdir(self.state), [], "something was left in the agent's folder")
        left = [name for name in os.listdir(os.path.dirname(self.env)) if name.startswith(".")]
        self.assertEqual(left, [], "something was left beside the environment")
        return done

    def version_in_env(self, module):
        # -B: byte code is told from its source by second and size, and two versions can agree in both
        argv = [os.path.join(self.env, "bin", "python"), "-B", "-c", f"import {module}; print({module}.version)"]
        done = subprocess.run(argv, capture_output=True, check=False)
        return done.stdout.decode().strip()

    def assertOutcome(self, done, outcome):  # noqa: N802
        self.assertEqual(done["outcome"], outcome, done)

    def assertFault(self, done, code):  # noqa: N802
        self.assertEqual(done.get("fault", {}).get("code"), code, done)
        self.assertFalse(os.path.exists(os.path.join(self.env, "lib", "python" + TARGET, "site-packages", "alpha.py")))
