"""An environment's torch, imported for real, and the real loader: a test torch of a few lines, with real libraries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unittest

from gpuprov.agent import surroundings, torch_probe
from gpuprov.agent.system import System
from tests.support.module_calls import ModuleCase, isolated

TARGET = "python%d.%d" % sys.version_info[:2]
#: torch as a CUDA build is: a library beside it needs libcudnn.so.9, and says by RUNPATH where its own is.
TORCH = """\
import ctypes, os
__version__ = "2.13.0+cu130"
class version:
    cuda = "13.0"
ctypes.CDLL(os.path.join(os.path.dirname(__file__), "lib", "libtorch_cuda.so"))
"""


def library(path, *words):
    """Make a real shared library of nothing at *path*."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    argv = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", "-o", path, "-Wl,-soname," + os.path.basename(path)]
    subprocess.run([*argv, *words], check=True)


class TorchCase(ModuleCase):
    def setUp(self):
        super().setUp()
        if not shutil.which("gcc"):
            self.skipTest("no gcc here to make libraries with")
        self.env = self.path("env")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.env], check=True)
        self.site = os.path.join(self.env, "lib", TARGET, "site-packages")
        self.cudnn = os.path.join(self.site, "nvidia", "cudnn", "lib")
        library(os.path.join(self.cudnn, "libcudnn.so.9"))
        library(os.path.join(self.cudnn, "libcudnn_ops.so.9"))
        rpath = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../../nvidia/cudnn/lib"
        needs = ["-Wl,--no-as-needed", "-L" + self.cudnn, "-l:libcudnn.so.9", rpath]
        library(os.path.join(self.site, "torch", "lib", "libtorch_cuda.so"), *needs)
        self.write(os.path.join(self.site, "torch", "__init__.py"), TORCH)
        self.record("torch", "2.13.0+cu130")

    def record(self, name, version):
        info = os.path.join(self.site, "%s-%s.dist-info" % (name, version))
        os.mkdir(info)
        self.write(os.path.join(info, "INSTALLER"), "uv\n")

    def look(self, **args):
        module = self.make("gpuprov_torch", dict(args, virtualenv=self.env))
        self.said = module.call.warnings
        from gpuprov.agent.modules.base import ModuleError
        from gpuprov.agent.perform import failed, perform

        try:
            return perform(module, lambda: None)
        except ModuleError as error:
            return failed(error)


class Imports(TorchCase):
    def test_what_is_as_wanted(self):
        done = self.look(versions={"torch": "2.13.0"}, variant="cu130")
        self.assertEqual(done["outcome"], "ok", done)
        result = done["result"]
        self.assertEqual((result["versions"], result["variant"]), ({"torch": "2.13.0+cu130"}, "cu130"))
        self.assertEqual((result["findings"], self.said), ([], []))

    def test_other_versions_are_named_with_both_values(self):
        done = self.look(versions={"torch": "2.14.1"}, variant="cpu")
        self.assertEqual(done["fault"]["code"], "torch-not-as-wanted", done)
        self.assertIn("torch is 2.13.0+cu130, and 2.14.1 is wanted", done["msg"])
        self.assertIn("torch is the build cu130, and cpu is wanted", done["msg"])

    def test_what_the_installer_recorded_counts_where_nothing_is_said(self):
        self.write(os.path.join(self.site, "torch", "__init__.py"), TORCH.replace("2.13.0", "2.12.0"))
        self.assertIn("torch is 2.12.0+cu130, and 2.13.0+cu130 is wanted", self.fails_to("torch-not-as-wanted"))

    def test_what_does_not_import(self):
        self.write(os.path.join(self.site, "torchvision.py"), "raise RuntimeError('operator torchvision::nms')\n")
        said = self.fails_to("torch-not-as-wanted", imports=["torch", "torchvision"])
        self.assertIn("import torchvision fails: RuntimeError: operator torchvision::nms", said)

    def test_an_import_that_kills_its_process(self):
        self.write(os.path.join(self.site, "torch", "__init__.py"), "import os; os.kill(os.getpid(), 11)\n")
        self.assertIn("did not come to its end (killed by SIGSEGV)", self.fails_to("torch-import-died"))

    def test_no_environment(self):
        shutil.rmtree(self.env)
        self.assertIn("does not exist", self.fails_to("torch-missing"))
        self.assertIn("place moon is none of", self.place_moon())

    def place_moon(self):
        self.setUp()
        return self.fails_to("argument-value", places=["moon"])

    def fails_to(self, code, **args):
        done = self.look(**args)
        self.assertEqual(done.get("fault", {}).get("code"), code, done)
        return done["msg"]


class Libraries(TorchCase):
    def other(self, *names):
        folder = self.path("other")
        for name in names:
            library(os.path.join(folder, name))
        return folder

    @isolated("/etc")
    def test_a_login_shells_library_path_is_named(self):
        other = self.other("libcudnn.so.9", "libcudnn_ops.so.9", "libcublas.so.13")
        self.write("/etc/profile.d/zz-other.sh", "export LD_LIBRARY_PATH=/nowhere:%s\n" % other)
        done = self.look(places=["clean", "login", "ssh", "service"])
        self.assertEqual(done["outcome"], "ok", done)
        why = "LD_LIBRARY_PATH has " + other
        self.assertEqual(
            self.said,
            [
                "%s/libcudnn.so.9 is loaded instead of the wheel's own (login): %s" % (other, why),
                "%s/libcudnn_ops.so.9 comes before the wheel's own (login): %s" % (other, why),
            ],
        )
        places = done["result"]["places"]
        self.assertEqual(places["login"], {"LD_LIBRARY_PATH": "/nowhere:" + other})
        if not os.path.isdir("/run/systemd/system"):
            self.assertEqual(places["service"], {"skipped": "systemd is not running"})
        done = self.look(places=["login"], foreign="fail")
        self.assertEqual(done["fault"]["code"], "torch-foreign-libraries", done)

    @isolated("/etc")
    def test_what_pam_and_bashrc_set_reaches_commands_over_ssh(self):
        other = self.other("libcudnn.so.9")
        self.write("/etc/environment", '# all\nLD_LIBRARY_PATH="%s"\n' % other)
        self.look(places=["ssh"])
        self.assertEqual(len(self.said), 1, self.said)
        self.assertIn("(ssh): LD_LIBRARY_PATH has " + other, self.said[0])

    @isolated("/etc")
    def test_packages_from_elsewhere_are_named(self):
        evil = self.path("evil")
        os.mkdir(evil)
        self.write(os.path.join(evil, "torch.py"), "__version__ = '1.0'\n")
        self.write("/etc/profile.d/zz-path.sh", "export PYTHONPATH=%s CONDA_PREFIX=/opt/conda\n" % evil)
        self.look(places=["clean", "login"])
        self.assertEqual(
            self.said,
            ["torch is imported from %s/torch.py, not from %s (login): PYTHONPATH=%s" % (evil, self.env, evil)],
        )

    def test_a_preloaded_one(self):
        other = self.other("libcudnn.so.9")
        path = os.path.join(other, "libcudnn.so.9")
        env = {"LD_PRELOAD": path}
        argv = torch_probe.words(os.path.join(self.env, "bin", "python"), ["torch"], True)
        found = torch_probe.answer(System().run(argv, env=env).out)
        self.assertEqual(torch_probe.foreign(found, self.env), [path])
        self.assertEqual(torch_probe.reason(path, env), "LD_PRELOAD=" + path)

    def test_ld_so_conf_is_read_with_what_it_includes(self):
        conf, more = self.path("ld.so.conf"), self.path("more.conf")
        self.write("more.conf", "# CUDA\n/usr/local/cuda/lib64 # here\n")
        self.write("ld.so.conf", "include %s/mor*.conf\n/opt/lib\n" % self.folder)
        self.assertEqual(torch_probe.configured(conf), [(more, "/usr/local/cuda/lib64"), (conf, "/opt/lib")])
        said = torch_probe.reason("/usr/local/cuda/lib64/libcudart.so.13", {}, conf)
        self.assertEqual(said, more + " has /usr/local/cuda/lib64")
        self.assertIn("searched by the loader itself", torch_probe.reason("/usr/lib/libcudart.so.13", {}, conf))


class Surroundings(unittest.TestCase):
    def test_a_shell_that_chatters(self):
        found = surroundings.ask("login", System())
        self.assertIn("PATH", found)
        self.assertNotIn("PYTHONPATH", found)


if __name__ == "__main__":
    unittest.main()
