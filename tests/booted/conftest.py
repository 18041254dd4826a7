from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.booted.host import Host, Transcript
from tests.support.lab import lab_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def booted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A booted host of the test's own; GPUPROV_TRANSCRIPTS names a folder that keeps the transcripts."""
    folder = Path(os.environ.get("GPUPROV_TRANSCRIPTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    transcript = Transcript(folder / f"{request.node.name}.md")
    with lab_of(1, booted="bookworm") as lab:
        yield Host(lab, "gpu01", transcript)
    print(f"transcript: {transcript.path}")
