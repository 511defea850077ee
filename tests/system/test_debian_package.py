"""The content of the Debian package, checked by Debian's own tools. tests/booted installs the package."""

import hashlib
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from scripts.build_deb import FILES, SCRIPTS
from scripts.deb_library import SUITES, Target
from tests.booted.package import BUILD_TIMEOUT_S, ROOT
from tests.booted.package import build as build_at
from tests.booted.trees import lock
from tests.gateway.waiting import scaled
from tests.support.agent import processes

pytestmark = pytest.mark.timeout(3 * BUILD_TIMEOUT_S)
PROGRAMS = ("dpkg-deb", "lintian")
LAUNCHER = "./opt/pomagent/bin/pomagent"


@pytest.fixture(params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def package(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built once for all test processes."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place = shared / f"package-{suite}"
    with lock(shared / f"package-{suite}.lock"):
        return next(place.glob("*.deb"), None) or build_at(suite, place)


def test_package_has_every_file_owned_by_root(package: Path, tmp_path: Path) -> None:
    members = {member.name: member for member in _members(package, tmp_path)}
    pages = [f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz" for page in (ROOT / "man").iterdir()]
    assert pages
    assert {f"./{place}" for place in [*FILES.values(), *pages]} - set(members) == set()
    assert {(member.uname, member.gname) for member in members.values()} == {("root", "root")}


def test_only_directories_and_the_launcher_are_executable(package: Path, tmp_path: Path) -> None:
    members = [member for member in _members(package, tmp_path) if not member.issym()]
    assert {member.mode for member in members if member.isdir()} == {0o755}
    assert {member.name for member in members if member.isfile() and member.mode != 0o644} == {LAUNCHER}
    assert {member.mode for member in members if member.name == LAUNCHER} == {0o755}


def test_compiled_libraries_match_the_python_dependency(package: Path, suite: str, tmp_path: Path) -> None:
    python = SUITES[suite].python
    assert f"python{python}" in _field(package, "Depends").split(", ")
    names = [member.name for member in _members(package, tmp_path) if ".so" in member.name]
    tag = f".cpython-{python.replace('.', '')}-"
    assert any(tag in name for name in names)
    assert [name for name in names if tag not in name and ".abi3." not in name and "cpython" in name] == []


def test_only_the_configuration_is_a_conffile(package: Path, tmp_path: Path) -> None:
    assert (_control(package, tmp_path) / "conffiles").read_text() == "/etc/pomagent/agent.toml\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_maintainer_script_is_complete_and_stops_at_an_error(package: Path, script: str, tmp_path: Path) -> None:
    path = _control(package, tmp_path) / script
    text = path.read_text()
    assert text.startswith("#!/bin/sh\nset -e\n")
    assert re.findall(r"@[A-Z]+@", text) == []
    assert _run("sh", "-n", str(path)).stderr == ""


@pytest.mark.parametrize("suite", ["bookworm"])  # another release would show nothing new
def test_lintian_finds_nothing(suite: str, package: Path) -> None:
    done = _run("lintian", "--fail-on=none", str(package))
    assert done.stdout == ""


@pytest.mark.parametrize("suite", ["bookworm"])  # another release would show nothing new
def test_build_is_reproducible_bit_for_bit(suite: str, package: Path, tmp_path: Path) -> None:
    again = build_at(suite, tmp_path / "again", umask=0o077)
    assert again.name == package.name
    assert _digest(again) == _digest(package)  # digests, because pytest would compare whole packages for minutes


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (Target(SUITES["bookworm"], "amd64", "0.2.0rc1"), Target(SUITES["bookworm"], "amd64", "0.2.0")),
        (Target(SUITES["bookworm"], "amd64", "0.2.0"), Target(SUITES["trixie"], "amd64", "0.2.0")),
        (Target(SUITES["trixie"], "amd64", "0.2.0"), Target(SUITES["bookworm"], "amd64", "0.2.1.dev1")),
    ],
)
def test_versions_sort_in_the_order_of_release(earlier: Target, later: Target) -> None:
    compared = ["dpkg", "--compare-versions", earlier.version, "lt", later.version]
    assert processes.run(compared, timeout=10).returncode == 0


def _digest(package: Path) -> str:
    return hashlib.sha256(package.read_bytes()).hexdigest()


def _members(package: Path, scratch: Path) -> list[tarfile.TarInfo]:
    archive = scratch / "data.tar"
    with archive.open("wb") as out:
        processes.run(["dpkg-deb", "--fsys-tarfile", str(package)], check=True, stdout=out, timeout=scaled(60))
    with tarfile.open(archive) as opened:
        return opened.getmembers()


def _control(package: Path, scratch: Path) -> Path:
    place = scratch / "control"
    _run("dpkg-deb", "--control", str(package), str(place))
    return place


def _field(package: Path, name: str) -> str:
    return str(_run("dpkg-deb", "--field", str(package), name).stdout).strip()


def _run(*command: str) -> Any:
    return processes.run(list(command), capture_output=True, text=True, check=True, timeout=scaled(120))
