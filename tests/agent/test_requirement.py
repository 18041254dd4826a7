"""Requirements, compared with what pip's own library says."""

from __future__ import annotations

import itertools
import unittest

from gpuprov.agent import requirement

VERSIONS = (
    "1.0", "1", "1.0.0", "1.0a1", "1.0b2", "1.0rc1", "1.0.dev3", "1.0a1.dev2", "1.0.post1", "1.0-1", "1.0.post1.dev2",
    "1.1", "1.10", "1.2.3", "2!0.5", "2.13.0+cpu", "2.13.0", "2.13.0+cu130", "2.13.0+cpu.1", "0.9", "v1.0", "1.0.REV2",
)  # fmt: skip
# "<1.0.post1" and ">1.0a1" are left out: pip before and after 26 disagree about them
CONDITIONS = (
    "==1.0", "==1.*", "!=1.0", "!=1.0.*", ">=1.0", "<=1.0", "<1.0", ">1.0", "~=1.0", "~=1.0.0", "==2.13.0",
    "==2.13.0+cpu", ">=1.0a1,<2", ">1.0.post1", "<1.0rc1", "~=2!0.1", "==2!0.*",
    "~=1.0.post1",
)  # fmt: skip
MARKERS = (
    "python_version < '3.9'", 'python_version >= "3.8" and sys_platform != "cygwin"', "sys_platform == 'linux'",
    "(python_version < '3.10' or platform_machine == 'x86_64') and extra == 'core'", "'linux' in sys_platform",
    "platform_machine not in 'arm64 aarch64'", "os_name == 'nt' or os_name == 'posix' and python_version == '3.11'",
    "extra == 'Opt_Einsum'", "python_full_version >= '3.11.1'", "platform_python_implementation != 'PyPy'",
    "python_version ~= '3.7'", "implementation_name == \"cpython\"",
)  # fmt: skip


class AgainstPip(unittest.TestCase):
    def setUp(self) -> None:
        try:
            from pip._vendor.packaging import markers, specifiers, version
        except ImportError as error:
            self.skipTest(f"this Python has no pip to compare with: {error}")
        self.version, self.specifiers, self.markers = version, specifiers, markers

    def test_orders_versions(self) -> None:
        for a, b in itertools.product(VERSIONS, VERSIONS):
            theirs = self.version.Version(a) < self.version.Version(b)
            self.assertEqual(requirement.version_key(a) < requirement.version_key(b), theirs, (a, b))

    def test_decides_conditions(self) -> None:
        for condition, version in itertools.product(CONDITIONS, VERSIONS):
            theirs = self.specifiers.SpecifierSet(condition).contains(version, prereleases=True)
            self.assertEqual(requirement.parse("x" + condition).allows(version), theirs, (version, condition))

    def test_evaluates_markers(self) -> None:
        for python, machine, extra in itertools.product(("3.8.18", "3.11.2"), ("x86_64", "aarch64"), ("", "core")):
            variables = dict(requirement.environment(python, machine), extra=extra)
            for marker in MARKERS:
                theirs = self.markers.Marker(marker).evaluate(variables)
                self.assertEqual(requirement.holds(marker, variables, [extra]), theirs, (marker, variables))


class Parsing(unittest.TestCase):
    def test_takes_everything_apart(self) -> None:
        found = requirement.parse("Torch_Vision[B, a] (>=1.0,<2) ; python_version > '3'")
        self.assertEqual(found.name, "torch-vision")
        self.assertEqual(found.extras, ["a", "b"])
        self.assertEqual(found.specifiers, [(">=", "1.0"), ("<", "2")])
        self.assertEqual(found.marker, "python_version > '3'")

    def test_takes_a_url(self) -> None:
        found = requirement.parse("x @ file:///tmp/x;1.whl ; os_name == 'posix'")
        self.assertEqual((found.name, found.url, found.marker), ("x", "file:///tmp/x;1.whl", "os_name == 'posix'"))

    def test_knows_what_is_pinned(self) -> None:
        for text, pinned in (("a==1", True), ("a===1", True), ("a==1.*", False), ("a", False), ("a>=1", False)):
            self.assertEqual(requirement.parse(text).pinned, pinned, text)

    def test_refuses_what_is_none(self) -> None:
        for text in ("", "==1", "a=1", "a>", "a==one", "a b", "a==1 b", "-e ."):
            with self.assertRaises(ValueError, msg=text):
                requirement.parse(text)

    def test_refuses_broken_markers(self) -> None:
        for text in (
            "python_version <",
            "(os_name == 'x'",
            "colour == 'red'",
            "os_name 'x'",
            "os_name == 'x' y == 'z'",
        ):
            with self.assertRaises(ValueError, msg=text):
                requirement.holds(text, requirement.environment("3.11", "x86_64"))


if __name__ == "__main__":
    unittest.main()
