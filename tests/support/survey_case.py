"""What the tests of the survey expect of what was found."""

from __future__ import annotations

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


NVIDIA = "NVIDIA <cudatools@nvidia.com>"
UBUNTU = "Ubuntu Core Developers <ubuntu-devel-discuss@lists.ubuntu.com>"


class SurveyCase(unittest.TestCase):
    maxDiff = None

    def expect(self, found, path, value):
        for key in path.split("."):
            self.assertIn(key, found, "%s: %s" % (path, found.get("untold") if "untold" in found else ""))
            found = found[key]
        self.assertEqual(found, value, path)
