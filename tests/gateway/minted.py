"""Every secret that this run of the tests has made, so that all output can be searched for all of them.

A token is searched for by its signature: header and claims open nothing without it. Whatever shows 23 characters of a
signature in a row is found, alone or inside of other text.
"""

import os
import re
from pathlib import Path

PIECE = 16
"""Characters that are looked up at once. None is found twice by chance."""
STRIDE = 8
"""Characters between two looks into a text."""
SHARED_FILE = "MINTED_SECRETS_FILE"
"""The variable that names the file in which processes that we start, such as the demo, record what they mint."""
CONTEXT = 200

_RUNS = re.compile(rf"[\w+/=-]{{{PIECE},}}")
_pieces: set[str] = set()
_mistakes: list[str] = []
_shared = {"read": 0}


def remember(secret: str) -> str:
    """Search for this secret from now on. Returns it."""
    _add(secret)
    if path := os.environ.get(SHARED_FILE):
        with Path(path).open("a") as file:
            file.write(f"{secret}\n")
    return secret


def is_in(text: str) -> bool:
    """Whether one of the secrets is in the text."""
    return any(_shows(run[0]) for run in _RUNS.finditer(text))


def redacted(text: str) -> str:
    """The text without the secrets."""
    return _RUNS.sub(lambda run: "<a secret>" if _shows(run[0]) else run[0], text)


def search(text: str, where: str) -> None:
    """Note a finding if one of the secrets is in the text. The test that runs fails for it. Any thread may call."""
    _read_shared()
    for run in _RUNS.finditer(text):
        if _shows(run[0]):
            before = redacted(text[max(0, run.start() - CONTEXT) : run.start()])
            finding = f"{redacted(where)}: …{before}<a secret>"
            if finding not in _mistakes:
                _mistakes.append(finding)
            return


def take_findings() -> list[str]:
    """Where secrets were found since this was asked last."""
    found = _mistakes[:]
    del _mistakes[: len(found)]
    return found


def share(path: Path) -> None:
    """Read what other processes mint from this file, which the environment names."""
    path.touch(mode=0o600)
    os.environ[SHARED_FILE] = str(path)
    _shared["read"] = 0


def _add(secret: str) -> None:
    searched = secret.rpartition(".")[2]
    if len(searched) < PIECE + STRIDE - 1:
        raise ValueError("too short to be searched for without finding something else")
    _pieces.update(searched[at : at + PIECE] for at in range(len(searched) - PIECE + 1))


def _shows(run: str) -> bool:
    last = len(run) - PIECE
    return any(run[at : at + PIECE] in _pieces for at in (*range(0, last, STRIDE), last))


def _read_shared() -> None:
    path = os.environ.get(SHARED_FILE)
    try:
        if not path or os.stat(path).st_size == _shared["read"]:  # noqa: PTH116 - thousands of times a second
            return
    except OSError:  # the run has ended
        return
    with Path(path).open() as file:
        file.seek(_shared["read"])
        for line in file:
            if line.endswith("\n"):
                _add(line.rstrip("\n"))
                _shared["read"] += len(line)
