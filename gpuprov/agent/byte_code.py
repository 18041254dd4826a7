"""Modules as byte code of one kind of Python, in one piece that is checked and then run from memory.

Against a zip of sources this saves compiling them, and against a zip of byte code the zip: a third
of what it costs to start an agent. stage2.py has a finder of its own, since it comes before this.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    #: Full name -> (whether it is a package, marshalled code).
    Modules = dict[str, tuple[bool, bytes]]

#: Which Pythons can run what this one compiles.
MAGIC = MAGIC_NUMBER.hex()


def compiled(sources: bytes) -> bytes:
    """Return the byte code of all modules in a zip of *sources*."""
    import io
    import zipfile

    modules: Modules = {}
    with zipfile.ZipFile(io.BytesIO(sources)) as archive:
        for path in sorted(archive.namelist()):
            if path.endswith(".py"):
                name = path[: -len(".py")].replace("/", ".")
                package = name.endswith(".__init__")
                code = compile(archive.read(path), path, "exec", dont_inherit=True, optimize=0)
                modules[name[: -len(".__init__")] if package else name] = (package, marshal.dumps(code))
    return marshal.dumps(modules)


def digest(data: bytes) -> str:
    """Return the hash by which byte code is checked: BLAKE2b, which takes half as long as SHA-256."""
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return str(blake2b(data, digest_size=32).hexdigest())


def beside(source: str) -> str:
    """Return where this Python keeps the byte code of the zip at *source*."""
    return "%s.%s.code" % (source[: -len(".zip")], MAGIC)


def keep(source: str) -> None:
    """Compile the zip at *source* and leave the byte code beside it, after its hash. Raises OSError."""
    with open(source, "rb") as f:
        data = compiled(f.read())
    temporary = "%s.%s" % (beside(source), os.urandom(6).hex())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as f:
            f.write(digest(data).encode() + data)
        os.rename(temporary, beside(source))
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def run_from(source: str) -> bool:
    """Make the modules of the zip at *source* importable from kept byte code; False when there is none intact."""
    try:
        with open(beside(source), "rb") as f:
            data = f.read()
    except OSError:
        return False
    if digest(data[64:]).encode() != data[:64]:
        os.unlink(beside(source))
        return False
    sys.meta_path.insert(0, Finder(marshal.loads(data[64:])))  # noqa: S302 - we have made it
    return True


class Finder:
    """Finds and loads modules that are held in memory."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return the spec of a module that we have."""
        found = self._modules.get(name)
        return ModuleSpec(name, self, is_package=found[0]) if found is not None else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        exec(marshal.loads(self._modules[module.__name__][1]), module.__dict__)  # noqa: S102, S302 - checked before
