from __future__ import annotations

import pytest

from tests.support.lab import lab_of


@pytest.fixture(scope="session")
def lab():
    """Two plain hosts that tests may use but not harm."""
    with lab_of(2) as lab:
        yield lab
