"""debian/bundled.txt lists exactly the libraries that pyproject.toml requires."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BUNDLED = (ROOT / "debian/bundled.txt").read_text()
RENEW = "run: scripts/build-deb --renew"


def test_debian_package_contains_exactly_the_required_libraries() -> None:
    assert set(_pinned()) == _needed(), RENEW


def test_every_bundled_version_is_allowed_by_pyproject() -> None:
    for requirement in _direct():
        assert requirement.specifier.contains(_pinned()[_plain(requirement.name)]), RENEW


def test_every_bundled_archive_has_a_hash() -> None:
    pins = [text for text in BUNDLED.replace("\\\n", "").splitlines() if not text.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"\S+==\S+(\s+--hash=sha256:[0-9a-f]{64})+", pin)] == []


def _pinned() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", BUNDLED, re.MULTILINE))


def _direct() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"]]


def _needed() -> set[str]:
    """Return the dependencies of the installed distributions, recursively."""
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
