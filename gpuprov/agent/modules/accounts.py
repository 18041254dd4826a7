"""What `user` and `group` share: the account files, and the programs that change them."""

from __future__ import annotations

from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.agent.modules.base import Call

#: What the exit codes of shadow-utils' programs mean, where the last line of output alone does not say.
_MEANINGS = {
    1: "the account files cannot be changed",
    4: "the number is in use already",
    6: "the account does not exist",
    8: "the user is logged in or has processes running",
    9: "the name is in use already",
    10: "the group file cannot be changed",
    12: "the home directory cannot be made or removed",
}


def tool(call: Call, program: str, *words: str) -> None:
    """Run one of useradd, usermod, userdel, groupadd ... . Raises ModuleError with its reason."""
    path = call.system.which(program) or call.system.which(program, "/usr/sbin:/sbin")
    if path is None:
        message = "program %s is not on this host" % program
        raise ModuleError(message, "install the package passwd or shadow-utils", code="program-missing")
    done = call.system.run([path, *words], env=call.env, timeout_s=call.timeout_s or 300)
    if done.rc == 0:
        return
    why = done.last_line or _MEANINGS.get(done.rc, "")
    hint = "is / writable, and does another program hold /etc/passwd.lock?" if done.rc in (1, 10) else ""
    message = "%s: %s" % (program, why or done.why)
    raise ModuleError(message, hint, code="account-failed", rc=done.rc, stderr=done.err)


def local_line(call: Call, file: str, name: str) -> list[str] | None:
    """Return the fields of *name*'s line in an account file such as /etc/shadow, or None. Raises OSError."""
    start = name.encode() + b":"
    for line in call.system.read(file).split(b"\n"):
        if line.startswith(start):
            return line.decode("utf-8", "surrogateescape").split(":")
    return None
