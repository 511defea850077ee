"""debian/bundled.txt is what pyproject.toml asks for, no more and no less."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BUNDLED = (ROOT / "debian/bundled.txt").read_text()
RENEW = "run: scripts/build-deb --renew"


def test_the_debian_package_carries_what_the_agent_needs() -> None:
    assert set(_pinned()) == _needed(), RENEW


def test_every_bundled_library_is_of_a_version_that_the_agent_allows() -> None:
    for requirement in _direct():
        assert requirement.specifier.contains(_pinned()[_plain(requirement.name)]), RENEW


def test_every_bundled_archive_is_known_by_its_hash() -> None:
    pins = [text for text in BUNDLED.replace("\\\n", "").splitlines() if not text.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"\S+==\S+(\s+--hash=sha256:[0-9a-f]{64})+", pin)] == []


def _pinned() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", BUNDLED, re.MULTILINE))


def _direct() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"]]


def _needed() -> set[str]:
    """By what is installed here: each dependency, its own dependencies, and so on."""
    found: set[str] = set()
    left = _direct()
    while left:
        name = _plain(left.pop().name)
        if name not in found:
            found.add(name)
            left += [each for each in map(Requirement, requires(name) or []) if _is_needed(each)]
    return found


def _is_needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
