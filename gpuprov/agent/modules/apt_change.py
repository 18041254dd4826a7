"""What `apt` needs only when there is something to change or to ask apt itself."""

from __future__ import annotations

import random
import re
import time

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.apt_command import apt_get, configure
from gpuprov.agent.modules.base import ModuleError, absent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.agent.modules.apt import Apt
    from gpuprov.agent.modules.base import Call, Change

_ACTION = re.compile(r"^(Inst|Remv|Conf) (\S+)(?: \[(\S+)\])?(?: \((\S+))?", re.MULTILINE)


def change_packages(apt: Apt, change: Change) -> None:
    """Bring the packages into the state that *apt* wants. Raises ModuleError."""
    if apt.cache_is_old() and apt.args["state"] != "absent":
        update_cache(apt)
        change.result.update(cache_updated=True, cache_update_time=int(time.time()))
        if apt.reads_first() and not apt.left_to_do():
            change.result["changed"] = False
            return
    if apt.dpkg.broken():
        configure(apt.call)
        apt.forget()
    outputs = [apt_get(apt.call, *words) for words in _commands(apt)]
    if outputs:
        change.result["stdout"] = "".join(done.out for done in outputs)
        change.result["stderr"] = "".join(done.err for done in outputs)
    apt.cleaned()
    apt.forget()


def update_cache(apt: Apt) -> None:
    """Read the package sources, again when the network fails. Raises ModuleError."""
    tries = max(1, apt.args["update_cache_retries"])
    for number in range(1, tries + 1):
        try:
            apt_get(apt.call, "update", "-o", "APT::Update::Error-Mode=any")
        except ModuleError as error:
            if number == tries or error.code not in ("network", "hash-mismatch"):
                raise
            pause_s = min(2 ** (number - 1) + random.random(), apt.args["update_cache_retry_max_delay"])  # noqa: S311
            apt.call.output("stdout", "%s; trying again in %.0f s" % (error.message, pause_s))
            time.sleep(pause_s)
        else:
            apt.cache_was_read()
            return


def option_words(apt: Apt) -> list[str]:
    """Return the options for installing and upgrading."""
    args = apt.args
    words = []
    if args.get("install_recommends") is not None:
        words += ["-o", "APT::Install-Recommends=%s" % ("true" if args["install_recommends"] else "false")]
    words += ["-t", args["default_release"]] if args.get("default_release") else []
    words += ["--only-upgrade"] if args["only_upgrade"] else []
    words += ["--allow-downgrades"] if args["allow_downgrade"] or args["force"] else []
    words += ["--allow-change-held-packages"] if args["allow_change_held_packages"] else []
    words += ["--allow-unauthenticated"] if args["allow_unauthenticated"] or args["force"] else []
    words += ["--no-remove"] if args["fail_on_autoremove"] else []
    return words + (["--auto-remove"] if args["autoremove"] else [])


def simulated_commands(apt: Apt) -> list[list[str]]:
    """Return the commands that have to be simulated to tell whether there is something to do."""
    state, options, names = apt.args["state"], option_words(apt), apt.names_to_change()
    commands = []
    if state == "build-dep":
        commands.append(["build-dep", *options, *names])
    elif state != "absent" and names and (state == "latest" or any(wanted.pattern for wanted in apt.wanted)):
        commands.append(["install", *options, *names])
    if state == "fixed":
        commands.append(["install", "-f", *options])
    if apt.upgrade:
        commands.append([*apt.upgrade, *options])
    if apt.args["autoremove"] and not commands:
        commands.append(["autoremove", *(["--purge"] if apt.args["purge"] else [])])
    return commands


def would_do(call: Call, words: list[str]) -> list[str]:
    """Return what apt-get would do: "upgrade foo 1.0 to 1.1", "install bar 2", "remove baz". Raises ModuleError."""
    names = []
    for action, name, old, new in _ACTION.findall(apt_get(call, *words, simulate=True).out):
        if action == "Inst":
            names.append("upgrade %s %s to %s" % (name, old, new) if old else "install %s %s" % (name, new))
        elif action == "Remv":
            names.append("remove %s" % name)
    return names


def _commands(apt: Apt) -> list[list[str]]:
    state, names = apt.args["state"], apt.names_to_change()
    commands = []
    if state == "absent":
        if names:
            words = ["purge" if apt.args["purge"] else "remove"]
            words += ["--auto-remove"] if apt.args["autoremove"] else []
            words += ["--allow-change-held-packages"] if apt.args["allow_change_held_packages"] else []
            commands.append([*words, *names])
    else:
        if apt.args.get("deb"):
            commands.append(["install", *option_words(apt), attributes.path(apt.args["deb"])])
        if names and (apt._missing() or simulated_commands(apt)):
            commands.append(["build-dep" if state == "build-dep" else "install", *option_words(apt), *names])
    if state == "fixed":
        commands.append(["install", "-f", *option_words(apt)])
    if apt.upgrade:
        commands.append([*apt.upgrade, *option_words(apt)])
    if apt.args["autoremove"] and not commands:
        commands.append(["autoremove", *(["--purge"] if apt.args["purge"] else [])])
    if apt.args["autoclean"]:
        commands.append(["autoclean"])
    return commands + ([["clean"]] if apt.args["clean"] else [])


def deb_differences(apt: Apt) -> list[str]:
    """Return what differs between a package file and what is installed. Raises ModuleError."""
    path = attributes.path(apt.args["deb"])
    done = apt.system.run(["dpkg-deb", "-f", path, "Package", "Version", "Architecture"])
    if done.rc != 0:
        if "No such file" in done.err:
            raise absent(apt.call, "package file %s does not exist" % path, code="file-missing")
        raise ModuleError("%s is no package file: %s" % (path, done.last_line), code="not-a-package")
    fields = dict(line.split(": ", 1) for line in done.out.splitlines() if ": " in line)
    arch = fields["Architecture"]
    name = fields["Package"] if arch == "all" else "%s:%s" % (fields["Package"], arch)
    package = apt.dpkg.find(name)
    if package is not None and package.works and package.version == fields["Version"]:
        return []
    return ["package %s %s is not installed" % (fields["Package"], fields["Version"])]
