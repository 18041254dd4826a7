# The second stage of the bootstrap, sent as text and executed by the loader on the host.
# It reads one "boot" frame, makes sure that the bundle is here and intact, and starts the agent.
# It runs before anything of ours is on the host, so it repeats the little it needs of frames.py
# and system.py. `-I -S -B` are the interpreter's options; descriptor 0 is the channel.
import json
import marshal
import os
import stat
import struct
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER


def read_exact(size: int) -> bytes:
    parts = []
    while size:
        data = os.read(0, min(size, 1 << 20))
        if not data:
            os._exit(87)  # the controller is gone
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def read_frame() -> tuple:  # type: ignore[type-arg]
    head, body = struct.unpack("!II", read_exact(8))
    return json.loads(read_exact(head).decode()), read_exact(body)


def send(header: dict) -> None:  # type: ignore[type-arg]
    text = json.dumps(header).encode()
    data = struct.pack("!II", len(text), 0) + text
    while data:
        data = data[os.write(1, data) :]


def sha256(data: bytes) -> str:
    for name in ("_sha256", "_sha2", "hashlib"):
        try:
            return str(__import__(name).sha256(data).hexdigest())
        except ImportError:
            continue
    raise ImportError("no SHA-256 in this Python")


def blake2(data: bytes) -> str:
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return str(blake2b(data, digest_size=32).hexdigest())


def refuse(code: str, message: str, hint: str) -> None:
    send({"t": "fault", "code": code, "message": message, "hint": hint})
    os._exit(88)


def private_folder(path: str) -> None:
    """Make *path* ours alone: made 0700, owned by us, no symbolic link, not writable by others."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            refuse("state-folder", "%s is not a folder owned by uid %d" % (path, os.geteuid()), "move it away")
        if found.st_mode & 0o077:
            if os.path.basename(path) != "bundle" and set(os.listdir(path)) - {
                "bundle",
                "runs",
                "blobs",
                "lock",
                "tidied",
            }:
                refuse(
                    "state-folder", "%s is open to others and has files in it" % path, "name a folder for gpuprov alone"
                )
            os.chmod(path, 0o700)
    except OSError as error:
        refuse(
            "state-folder",
            "cannot use the agent's folder %s: %s" % (path, error.strerror),
            "free space or make it writable, or set gpuprov_state_dir",
        )


def safe_way(path: str) -> str:
    """Return *path* without symbolic links. For root, nobody else may be able to replace a folder on the way."""
    path = os.path.realpath(path)
    above = os.path.dirname(path)
    while os.geteuid() == 0:
        try:
            found = os.stat(above)
        except FileNotFoundError:
            found = None
        if found and (found.st_uid != 0 or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX)):
            message = "others may write to %s: root would execute their files from %s" % (above, path)
            refuse("state-folder", message, "set gpuprov_state_dir to a folder below folders of root")
        if above == "/":
            break
        above = os.path.dirname(above)
    return path


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""


def write(path: str, data: bytes) -> None:
    temporary = "%s.%s" % (path, os.urandom(6).hex())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        why = "is full" if error.errno in (28, 122) else "takes no files: %s" % error.strerror
        refuse("disk", "the file system of %s %s" % (os.path.dirname(path), why), "free some space there")


class Code:
    """Finds modules in the byte code that was read, checked and kept in memory."""

    def __init__(self, modules: dict) -> None:  # type: ignore[type-arg]
        self.modules = modules

    def find_spec(self, name, *_):  # type: ignore[no-untyped-def]
        found = self.modules.get(name)
        return found and ModuleSpec(name, self, is_package=found[0])  # type: ignore[arg-type]

    def create_module(self, _):  # type: ignore[no-untyped-def]
        return None

    def exec_module(self, module):  # type: ignore[no-untyped-def]
        exec(marshal.loads(self.modules[module.__name__][1]), module.__dict__)  # noqa: S102, S302


def bundle(folder: str, boot: dict) -> None:  # type: ignore[type-arg]
    """Make the agent importable: from byte code of this very Python, or from sources.

    The controller has byte code for its own Python's kind; else we have compiled ours after an
    earlier run; else the source is compiled while it is imported.
    """
    boot["source"] = ""
    magic, digest = boot["ready"]
    if magic == MAGIC_NUMBER.hex():
        boot["in_use"] = digest
        data = fetched(os.path.join(folder, digest + ".code"), digest, blake2)
        sys.meta_path.insert(0, Code(marshal.loads(data)))  # noqa: S302 - it is what the controller has
        return
    boot["in_use"] = boot["bundle"]
    source = os.path.join(folder, boot["bundle"] + ".zip")
    data = read("%s.%s.code" % (source[:-4], MAGIC_NUMBER.hex()))
    if data and blake2(data[64:]).encode() == data[:64]:
        sys.meta_path.insert(0, Code(marshal.loads(data[64:])))  # noqa: S302 - we have made it
        return
    fetched(source, boot["bundle"], sha256)
    boot["source"] = source
    sys.path.insert(0, source)


def fetched(path: str, digest: str, hash_of) -> bytes:  # type: ignore[no-untyped-def]
    """Return the file with this hash, asking the controller for it where it is not here or damaged."""
    data = read(path)
    if data and hash_of(data) == digest:
        return data
    send({"t": "need", "bundle": digest})
    header, data = read_frame()
    if header.get("packed"):
        import zlib

        data = zlib.decompress(data)
    if hash_of(data) != digest:
        refuse("bundle", "the agent's code arrived damaged", "run it again")
    write(path, data)
    return data


def start() -> None:
    # whoever else reads our memory or our files is none of our business: nobody does
    os.umask(0o077)
    boot, _ = read_frame()
    home = boot.get("state_dir")
    if not home:
        import pwd

        base = os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
        home = "/var/lib/gpuprov" if os.geteuid() == 0 else os.path.join(base, ".local/state/gpuprov")
    home = safe_way(os.path.expanduser(home))
    private_folder(home)
    folder = os.path.join(home, "bundle")
    private_folder(folder)
    boot["home"] = home
    bundle(folder, boot)
    os.umask(0o022)
    from gpuprov.agent.main import main

    main(boot)


start()
