"""The modules `apt` and `package`: real apt and dpkg, a package source made here, a private copy of the system."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
import unittest

from gpuprov.agent.modules.apt_command import failure
from gpuprov.agent.modules.dpkg import Dpkg
from gpuprov.agent.process import Finished
from gpuprov.agent.system import System
from tests.support.module_calls import LOG, ModuleCase, isolated

CONTROL = """Package: {name}
Version: {version}
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: test
{more}"""


class AptCase(ModuleCase):
    """A package source with gpuprov-a 1.0 and 2.0, gpuprov-b that needs it, gpuprov-bad that cannot be installed."""

    def setUp(self) -> None:
        super().setUp()
        self.repo = self.path("repo")
        os.mkdir(self.repo)
        os.chmod(self.folder, 0o755)  # apt reads sources as a user of its own

    def prepare(self) -> None:
        self.package("gpuprov-a", "1.0")
        self.package("gpuprov-b", "1.0", "Depends: gpuprov-a\nProvides: gpuprov-virtual (= 3)\n")
        self.package("gpuprov-bad", "1.0", script="#!/bin/sh\necho broken by design >&2\nexit 7\n")
        self.package("gpuprov-unmet", "1.0", "Depends: gpuprov-nowhere (>= 9)\n")
        with open("/etc/apt/sources.list", "w") as f:
            # not file:, whose lists apt may link to instead of copying them
            f.write("deb [trusted=yes] copy:%s ./\n" % self.repo)
        subprocess.run("rm -rf /etc/apt/sources.list.d/*; rm -f /var/lib/apt/lists/*", shell=True, stderr=-3)
        self.publish()

    def package(self, name: str, version: str, more: str = "", script: str = "") -> str:
        folder = self.path("build-%s-%s" % (name, version))
        os.makedirs(os.path.join(folder, "DEBIAN"))
        with open(os.path.join(folder, "DEBIAN/control"), "w") as f:
            f.write(CONTROL.format(name=name, version=version, more=more))
        if script:
            with open(os.path.join(folder, "DEBIAN/postinst"), "w") as f:
                f.write(script)
            os.chmod(f.name, 0o755)
        target = os.path.join(self.repo, "%s_%s_all.deb" % (name, version))
        subprocess.run(["dpkg-deb", "-b", "-Znone", folder, target], stdout=subprocess.DEVNULL, check=True)
        return target

    def publish(self) -> None:
        with open(os.path.join(self.repo, "Packages"), "w") as index:
            for name in sorted(os.listdir(self.repo)):
                if name.endswith(".deb"):
                    path = os.path.join(self.repo, name)
                    said = subprocess.run(["dpkg-deb", "-f", path], stdout=subprocess.PIPE, check=True).stdout.decode()
                    with open(path, "rb") as f:
                        digest = hashlib.sha256(f.read()).hexdigest()
                    index.write("%sFilename: ./%s\n" % (said, name))
                    index.write("Size: %d\nSHA256: %s\n\n" % (os.path.getsize(path), digest))

    def read_sources(self) -> None:
        done = self.call("apt", {"update_cache": True})
        self.assertEqual((done["outcome"], done["result"].get("cache_updated")), ("changed", True), done)

    def version(self, name: str) -> str:
        found = Dpkg(System()).find(name)
        return found.version if found is not None and found.works else ""


class InstallTest(AptCase):
    @isolated("/etc", "/var", "/usr")
    def test_install_and_remove(self) -> None:
        self.prepare()
        self.read_sources()
        args = {"name": "gpuprov-b", "state": "present"}
        self.assertEqual(self.call("apt", args, check=True)["outcome"], "changed")
        self.assertEqual(self.version("gpuprov-b"), "")
        self.pending.clear()
        done = self.call("apt", args)
        self.assertEqual(done["outcome"], "changed", done)
        self.assertIn("gpuprov-a", done["result"]["stdout"])
        self.assertEqual((self.version("gpuprov-a"), self.version("gpuprov-b")), ("1.0", "1.0"))
        self.assertEqual(self.call("apt", args)["outcome"], "ok")
        self.assertEqual(self.call("package", {"name": "gpuprov-b"})["outcome"], "ok")
        self.assertEqual(self.call("apt", {"name": "gpuprov-virtual"})["outcome"], "ok")
        done = self.call("apt", {"name": ["gpuprov-a"], "state": "absent"})
        self.assertEqual((done["outcome"], self.version("gpuprov-a"), self.version("gpuprov-b")), ("changed", "", ""))
        self.assertEqual(self.call("apt", {"name": "gpuprov-a", "state": "absent"})["outcome"], "ok")

    @isolated("/etc", "/var", "/usr")
    def test_versions(self) -> None:
        self.prepare()
        self.package("gpuprov-a", "2.0")
        self.publish()
        self.read_sources()
        old = {"name": "gpuprov-a=1.*"}
        self.assertEqual(self.call("apt", old)["outcome"], "changed")
        self.assertEqual(self.version("gpuprov-a"), "1.0")
        self.assertEqual(self.call("apt", old)["outcome"], "ok")
        self.assertEqual(self.call("apt", {"name": "gpuprov-a"})["outcome"], "ok")
        self.assertEqual(self.call("apt", {"name": "gpuprov-a>=2.0"})["outcome"], "changed")
        self.assertEqual(self.version("gpuprov-a"), "2.0")
        self.fails("downgrade", "apt", {"name": "gpuprov-a=1.0"})
        self.assertEqual(self.call("apt", {"name": "gpuprov-a=1.0", "allow_downgrade": True})["outcome"], "changed")
        self.assertIn("9.9", self.fails("version-unknown", "apt", {"name": "gpuprov-a=9.9"}))

    @isolated("/etc", "/var", "/usr")
    def test_latest_and_upgrade(self) -> None:
        self.prepare()
        self.read_sources()
        latest = {"name": "gpuprov-a", "state": "latest"}
        self.assertEqual(self.call("apt", latest)["outcome"], "changed")
        self.assertEqual(self.call("apt", latest)["outcome"], "ok")
        self.package("gpuprov-a", "2.0")
        self.publish()
        self.assertEqual(self.call("apt", latest)["outcome"], "ok")  # as far as the sources were read
        self.assertEqual(self.call("apt", dict(latest, update_cache=True), check=True)["outcome"], "unknown")
        done = self.call("apt", dict(latest, update_cache=True))
        self.assertEqual((done["outcome"], self.version("gpuprov-a")), ("changed", "2.0"))
        done = self.call("apt", dict(latest, update_cache=True))
        self.assertEqual((done["outcome"], done["result"]["cache_updated"]), ("ok", True), done)
        self.package("gpuprov-a", "3.0")
        self.publish()
        self.read_sources()
        self.assertEqual(self.call("apt", {"upgrade": "dist"}, check=True)["outcome"], "changed")
        self.assertEqual(self.version("gpuprov-a"), "2.0")

    @isolated("/etc", "/var", "/usr")
    def test_sources_are_read_only_when_something_is_missing(self) -> None:
        self.prepare()
        args = {"name": "gpuprov-a", "update_cache": True}
        self.assertEqual(self.call("apt", args, check=True)["outcome"], "unknown")
        self.pending.clear()
        done = self.call("apt", args)
        self.assertEqual((done["outcome"], done["result"]["cache_updated"]), ("changed", True), done)
        self.assertFalse(self.call("apt", args)["result"]["cache_updated"])
        self.assertEqual(self.call("apt", {"update_cache": True, "cache_valid_time": 3600})["outcome"], "ok")
        self.assertEqual(self.call("apt", {"cache_valid_time": 3600})["outcome"], "ok")

    @isolated("/etc", "/var", "/usr")
    def test_a_package_file(self) -> None:
        self.prepare()
        args = {"deb": os.path.join(self.repo, "gpuprov-a_1.0_all.deb")}
        self.assertEqual(self.call("apt", args, check=True)["outcome"], "changed")
        self.assertEqual(self.call("apt", args)["outcome"], "changed")
        self.assertEqual(self.call("apt", args)["outcome"], "ok")
        self.fails("file-missing", "apt", {"deb": self.path("none.deb")})
        self.fails("not-a-package", "apt", {"deb": self.write("x.deb", "nothing")})

    @isolated("/etc", "/var", "/usr")
    def test_what_nothing_needs_any_more(self) -> None:
        self.prepare()
        self.read_sources()
        self.call("apt", {"name": "gpuprov-b"})
        done = self.call("apt", {"name": "gpuprov-b", "state": "absent", "purge": True, "autoremove": True})
        self.assertEqual((done["outcome"], self.version("gpuprov-a")), ("changed", ""))


class TroubleTest(AptCase):
    @isolated("/etc", "/var", "/usr")
    def test_reasons(self) -> None:
        self.prepare()
        self.read_sources()
        said = self.fails("package-unknown", "apt", {"name": "gpuprov-none"})
        self.assertEqual(said, "package gpuprov-none is in none of the host's package sources")
        self.assertIn("gpuprov-nowhere", self.fails("dependencies", "apt", {"name": "gpuprov-unmet"}))
        said = self.fails("script-failed", "apt", {"name": "gpuprov-bad"})
        self.assertIn("installing gpuprov-bad failed", said)
        self.assertIn("exit status 7", said)

    @isolated("/etc", "/var", "/usr")
    def test_half_configured_is_no_ok(self) -> None:
        self.prepare()
        self.read_sources()
        self.call("apt", {"name": "gpuprov-bad"})
        found = Dpkg(System())
        self.assertEqual(found.broken(), ["gpuprov-bad"])
        self.fails("script-failed", "apt", {"name": "gpuprov-bad"})
        with open("/var/lib/dpkg/info/gpuprov-bad.postinst", "w") as f:
            f.write("#!/bin/sh\n")
        self.assertEqual(self.call("apt", {"name": "gpuprov-bad"})["outcome"], "changed")
        self.assertEqual(self.call("apt", {"name": "gpuprov-bad"})["outcome"], "ok")

    @isolated("/etc", "/var", "/usr")
    def test_check_mode_knows_packages_that_do_not_exist(self) -> None:
        self.prepare()
        self.read_sources()
        self.pending.clear()
        self.fails("package-unknown", "apt", {"name": "gpuprov-none"}, check=True)
        self.pending.add("task p1.t1")
        self.assertEqual(self.call("apt", {"name": "gpuprov-none"}, check=True)["outcome"], "unknown")

    @isolated("/etc", "/var", "/usr")
    def test_held_packages(self) -> None:
        self.prepare()
        self.read_sources()
        self.call("apt", {"name": "gpuprov-a"})
        subprocess.run(["apt-mark", "hold", "gpuprov-a"], stdout=subprocess.DEVNULL, check=True)
        self.assertEqual(self.call("apt", {"name": "gpuprov-a"})["outcome"], "ok")
        self.package("gpuprov-a", "2.0")
        self.publish()
        self.read_sources()
        wanted = {"name": "gpuprov-a=2.0"}
        self.fails("packages-held", "apt", wanted)
        self.assertEqual(self.call("apt", dict(wanted, allow_change_held_packages=True))["outcome"], "changed")
        self.assertEqual(self.version("gpuprov-a"), "2.0")

    @isolated("/etc", "/var", "/usr")
    def test_the_holder_of_the_lock_is_named(self) -> None:
        self.prepare()
        self.read_sources()
        holder = self.hold("/var/lib/dpkg/lock-frontend", 30)
        try:
            said = self.fails("package-lock", "apt", {"name": "gpuprov-a", "lock_timeout": 1})
            self.assertIn("process %d (holder.py)" % holder.pid, said)
            self.assertIn("waiting for the package lock", str(LOG))
        finally:
            holder.kill()
            holder.wait()
        holder = self.hold("/var/lib/dpkg/lock-frontend", 2)
        self.assertEqual(self.call("apt", {"name": "gpuprov-a", "lock_timeout": 60})["outcome"], "changed")
        holder.wait()

    def hold(self, path: str, seconds: float) -> subprocess.Popen:
        script = self.write(
            "holder.py",
            "import fcntl, os, time\nfd = os.open(%r, os.O_RDWR | os.O_CREAT, 0o640)\n"
            "fcntl.lockf(fd, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(%r)\n" % (path, seconds),
        )
        holder = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
        self.assertEqual(holder.stdout.readline(), b"held\n")
        holder.stdout.close()
        return holder

    @isolated("/etc", "/var", "/usr")
    def test_an_unreachable_source(self) -> None:
        with open("/etc/apt/sources.list", "w") as f:
            f.write("deb [trusted=yes] http://127.0.0.1:9/debian ./\n")
        with open("/etc/apt/apt.conf.d/99test", "w") as f:
            f.write('Acquire::Retries "0";\n')
        subprocess.run("rm -rf /etc/apt/sources.list.d/*; rm -f /var/lib/apt/lists/*", shell=True, stderr=-3)
        args = {"update_cache": True, "update_cache_retries": 2, "update_cache_retry_max_delay": 0}
        said = self.fails("network", "apt", args, env={"http_proxy": "", "HTTP_PROXY": ""})
        self.assertIn("127.0.0.1", said)
        self.assertIn("trying again", str(LOG))

    def test_names_that_are_none(self) -> None:
        for name in ("foo-", "Foo Bar", "a;b", "foo==1"):
            with self.subTest(name=name):
                self.assertIn("not a package name", self.call("apt", {"name": [name]})["msg"])

    def test_reasons_by_their_texts(self) -> None:
        """Situations that cannot be made here; texts of apt 2.x."""
        for code, text in (
            ("disk-full", "dpkg: error: failed to write status: No space left on device"),
            ("disk-full", "E: You don't have enough free space in /var/cache/apt/archives/."),
            ("not-signed", "W: GPG error: http://x InRelease: ... NO_PUBKEY A4B469963BF863CC"),
            ("not-signed", "E: The repository 'http://x stable Release' is not signed."),
            ("hash-mismatch", "E: Failed to fetch http://x  Hash Sum mismatch"),
            ("network", "W: Failed to fetch http://x/InRelease  Temporary failure resolving 'x'"),
            ("root-needed", "E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)"),
            ("dpkg-interrupted", "E: dpkg was interrupted, you must manually run 'dpkg --configure -a'"),
            ("package-lock", "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)"),
            ("apt-failed", "E: something new"),
        ):
            with self.subTest(text=text):
                error = failure(Finished(100, "", text, 1.0, False, 0))
                self.assertEqual(error.code, code)
                self.assertNotIn("{", error.message)


class DatabaseTest(ModuleCase):
    def test_the_same_as_dpkg_query(self) -> None:
        """Every package of this machine, against dpkg's own program."""
        form = "${Package}\\t${Architecture}\\t${Version}\\t${db:Status-Status}\\n"
        said = subprocess.run(["dpkg-query", "-W", "-f", form], stdout=subprocess.PIPE, check=True).stdout.decode()
        found = Dpkg(System())
        for line in said.splitlines():
            name, arch, version, state = line.split("\t")
            package = found.find(name + ":" + arch)
            self.assertIsNotNone(package, line)
            self.assertEqual((package.version, package.state), (version, state))
        self.assertIsNone(found.find("no-such-package"))

    def test_newer_entries_in_updates(self) -> None:
        """As dpkg leaves them when it is killed: a numbered file per change, newest last."""
        from gpuprov.agent.modules import dpkg

        os.mkdir(self.path("updates"))
        entry = "Package: foo\nStatus: install ok %s\nArchitecture: all\nVersion: %s\n"
        self.write(
            "status",
            "Package: dpkg\nEssential: yes\nStatus: install ok installed\nArchitecture: amd64\n"
            "Version: 1\n\n" + entry % ("installed", "1"),
        )
        self.write("updates/0001", entry % ("half-installed", "2"))
        self.write("updates/0002", entry % ("half-configured", "3"))
        self.write("updates/tmp.i", "garbage")
        old = dpkg.STATUS, dpkg.UPDATES
        dpkg.STATUS, dpkg.UPDATES = self.path("status"), self.path("updates")
        try:
            found = Dpkg(System())
            self.assertEqual((found.find("foo").version, found.find("foo").state), ("3", "half-configured"))
            self.assertEqual(found.broken(), ["foo"])
        finally:
            dpkg.STATUS, dpkg.UPDATES = old

    def test_fast_enough(self) -> None:
        """The point of reading the file: far below the start of one process per package."""
        started = time.process_time()
        found = Dpkg(System())
        for name in ("coreutils", "bash", "libc6", "no-such-package"):
            found.find(name)
        self.assertLess(time.process_time() - started, 0.05)
        self.assertTrue(hasattr(fcntl, "F_GETLK"))


if __name__ == "__main__":
    unittest.main()
