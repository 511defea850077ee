"""Gives one process another time of day with Debian's libfaketime. Monotonic timers are not shifted."""

import shutil
from pathlib import Path

import pytest


def shifted(shift: str) -> dict[str, str]:
    """Return the environment of a process with a clock that is off by ``shift``, such as ``+2h`` or ``-400d``."""
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return {"LD_PRELOAD": str(library), "FAKETIME": shift, "DONT_FAKE_MONOTONIC": "1"}
