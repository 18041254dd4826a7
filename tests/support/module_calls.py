"""Calling modules as the engine does, and a private copy of this machine's /etc, /var ... to let them loose on."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import unittest

from gpuprov.agent.modules import arguments, base, load
from gpuprov.agent.perform import failed, perform
from gpuprov.agent.system import System

CLONE_NEWNS = 0x00020000
LOG = []  # what modules said live, of the last call


class ModuleCase(unittest.TestCase):
    """Tests of modules: `call` does one task and returns its outcome."""

    def setUp(self) -> None:
        self.folder = os.path.realpath(tempfile.mkdtemp(prefix="gpuprov-modules-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.blobs = {}
        self.pending = set()

    def path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def write(self, name: str, text: str | bytes, mode: int = 0o644) -> str:
        path = self.path(name)
        data = text.encode() if isinstance(text, str) else text
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, mode)
        return path

    def read(self, name: str) -> str:
        with open(self.path(name), "rb") as f:
            return f.read().decode()

    def mode(self, name: str) -> str:
        return "%04o" % (os.lstat(self.path(name)).st_mode & 0o7777)

    def blob(self, data: bytes, **more: object) -> dict:
        """Put *data* where files that travelled lie, and return the plan's word for it."""
        digest = hashlib.sha256(data).hexdigest()
        os.makedirs(self.path(".blobs"), exist_ok=True)
        self.blobs[digest] = self.write(os.path.join(".blobs", digest), data)
        return dict({"sha256": digest, "size": len(data)}, **more)

    def make(self, action: str, args: dict, **more: object) -> base.State | base.Action:
        file = load(action)
        given, wrong = arguments.check(file.SPEC, args)
        if wrong:
            raise AssertionError("%s: %s" % (action, "; ".join(one.message for one in wrong)))
        options = {
            "blob": self.blobs.__getitem__,
            "state_dir": self.folder,
            "pending": self.pending,
            "output": lambda *line: LOG.append(line),
        }
        options.update(more)
        LOG.clear()
        return file.MODULE(base.Call(given, System(), **options))

    def call(self, action: str, args: dict, **more: object) -> dict:
        """Do one task as the engine does; failures come back as outcomes."""
        try:
            return perform(self.make(action, args, **more), lambda: None)
        except base.NeedsEarlierChange as reason:
            return {"outcome": "unknown", "skip": str(reason)}
        except base.ModuleError as error:
            return failed(error)

    def twice(self, action: str, args: dict, **more: object) -> dict:
        """Do a task in check mode, for real, and again; return the real one. It must change once, and only once."""
        before = self.tree()
        self.assertEqual(self.call(action, args, check=True, diff=True)["outcome"], "changed")
        self.assertEqual(self.tree(), before, "check mode changed something")
        self.pending.clear()
        done = self.call(action, args, **more)
        self.assertEqual(done["outcome"], "changed", done)
        after = self.tree()
        again = self.call(action, args, **more)
        self.assertEqual(again["outcome"], "ok", again)
        self.assertEqual(self.tree(), after, "the second run changed something")
        return done

    def fails(self, code: str, action: str, args: dict, **more: object) -> str:
        """Do a task that must fail with this code; return its message."""
        done = self.call(action, args, **more)
        self.assertEqual(done["outcome"], "failed", done)
        self.assertEqual(done["fault"]["code"], code, done["msg"])
        return done["msg"]

    def tree(self) -> dict:
        """Return everything below the test's folder with mode, owner, times and content."""
        found = {}
        for folder, folders, files in os.walk(self.folder):
            for name in folders + files:
                path = os.path.join(folder, name)
                stat = os.lstat(path)
                content = b""
                if os.path.islink(path):
                    content = os.readlink(path).encode()
                elif os.path.isfile(path):
                    with open(path, "rb") as f:
                        content = f.read()
                found[path] = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime_ns, stat.st_ino, content)
        return found


def isolated(*folders: str):
    """Decorate a test that changes *folders* of this machine: it runs in a child with a private view of them.

    Needs root. The view is copy-on-write (overlayfs) on a tmpfs and goes with the child.
    """

    def decorate(test):
        @functools.wraps(test)
        def run(self):
            if os.geteuid() != 0:
                raise AssertionError("this test needs root: sudo make test")
            layers = tempfile.mkdtemp(prefix="gpuprov-layers-")
            self.addCleanup(os.rmdir, layers)
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                _child(test, self, folders, layers, write)
            os.close(write)
            with open(read, "rb") as f:
                said = f.read().decode("utf-8", "replace")
            _, status = os.waitpid(pid, 0)
            if status != 0:
                raise AssertionError(said or "the test's process ended with status %d" % status)

        return run

    return decorate


def _child(test, case, folders, layers, write) -> None:
    code = 1
    try:
        signal.alarm(120)
        _private_view(folders, layers)
        test(case)
        code = 0
    except BaseException:
        os.write(write, traceback.format_exc().encode()[-60000:])
    finally:
        os._exit(code)


def _private_view(folders, layers) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise AssertionError("unshare: %s" % os.strerror(ctypes.get_errno()))
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "layers", layers)
    for number, folder in enumerate(folders):
        upper, work = os.path.join(layers, "%d.upper" % number), os.path.join(layers, "%d.work" % number)
        os.mkdir(upper)
        os.mkdir(work)
        options = "lowerdir=%s,upperdir=%s,workdir=%s" % (folder, upper, work)
        _mount("-t", "overlay", "overlay", "-o", options, folder)


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError("mount %s: %s" % (" ".join(words), done.stderr.decode().strip()))


assert sys.version_info >= (3, 8)
