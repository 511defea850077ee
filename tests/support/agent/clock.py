"""Another time of day for one process, by Debian's libfaketime; timers go on as they are."""

import shutil
from pathlib import Path

import pytest


def shifted(shift: str) -> dict[str, str]:
    """The environment of a process whose clock is off by ``shift``: ``+2h``, ``-400d``."""
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return {"LD_PRELOAD": str(library), "FAKETIME": shift, "DONT_FAKE_MONOTONIC": "1"}
