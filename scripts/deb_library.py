"""Collects our wheel and the libraries that the Debian package contains."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BUNDLED = ROOT / "debian/bundled.txt"
REVISION = 1
"""Debian revision. Raise it when the same version of pomagent is packaged again, such as with a newer library."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 37)))
"""Tags of wheels that run on bookworm's C library and every later one."""
# These files are never imported or read. Type stubs and C sources are more than half of gevent.
SUPERFLUOUS = ("*.c", "*.h", "*.cpp", "*.hpp", "*.pyx", "*.pxd", "*.pxi", "*.pyi", "tests", "__pycache__",
               "direct_url.json", "RECORD", "REQUESTED", "INSTALLER", "WHEEL")  # fmt: skip
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Suite:
    """A release of Debian."""

    python: str
    suffix: str
    """Part of the version that sorts packages by release, so that an upgrade of the host upgrades the package."""


SUITES = {"bookworm": Suite("3.11", "deb12"), "trixie": Suite("3.13", "deb13")}


@dataclass(frozen=True)
class Target:
    """The release, architecture and version of a package."""

    suite: Suite
    architecture: str
    ours: str
    """Version of pomagent in the package, as ``pomagent --version`` prints it."""

    @property
    def version(self) -> str:
        """Version of the package, such as 0.2.0~rc1-1+deb12 for 0.2.0rc1."""
        sorted_by_dpkg = re.sub(r"[.]?(a|b|rc|dev)(?=[0-9])", r"~\1", self.ours)
        return f"{sorted_by_dpkg}-{REVISION}+{self.suite.suffix}"

    @property
    def python(self) -> str:
        return f"python{self.suite.python}"

    @property
    def file(self) -> str:
        return f"pomagent_{self.version}_{self.architecture}.deb"

    @property
    def pip_options(self) -> list[str]:
        machine = MACHINES[self.architecture]
        platforms = [f"--platform={tag}_{machine}" for tag in GLIBC]
        return ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.suite.python}", *platforms]


def install(target: Target, library: Path, scratch: Path) -> None:
    """Install wheel and libraries into a directory, each archive by its hash. Blocks, and may download."""
    wheel = _wheel(scratch, target.ours)
    wanted = scratch / "requirements.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wanted.write_text(f"{BUNDLED.read_text()}{wheel} --hash=sha256:{digest}\n")
    try:
        pip("install", "--no-compile", "--require-hashes", f"--target={library}", *target.pip_options, f"-r{wanted}")
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"build-deb: see above; {BUNDLED.name} is renewed by scripts/build-deb --renew") from error
    shutil.rmtree(library / "bin")  # the libraries' own commands
    shutil.rmtree(library / "share", ignore_errors=True)
    for pattern in SUPERFLUOUS:
        for path in sorted(library.rglob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _wheel(scratch: Path, version: str) -> Path:
    """Build the wheel from a copy of the source tree with this version. Blocks."""
    source = scratch / "source"
    shutil.copytree(ROOT / "pomagent", source / "pomagent", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    module = source / "pomagent/__init__.py"
    module.write_text(VERSION.sub(f'__version__ = "{version}"', module.read_text()))
    pip("wheel", "--no-deps", f"--wheel-dir={scratch}", str(source))
    (wheel,) = scratch.glob("pomagent-*.whl")
    return wheel


def source_version() -> str:
    """Return the version of this source tree."""
    found = VERSION.search((ROOT / "pomagent/__init__.py").read_text())
    assert found
    return found[1]


# --- the list -------------------------------------------------------------------------------------------------------


def renew() -> None:
    """Write the newest versions that pyproject.toml allows and that all releases have to the list. Blocks."""
    hashes: dict[str, set[str]] = {}
    resolved = []
    with tempfile.TemporaryDirectory(prefix="pomagent-deb-") as scratch:
        wheel = _wheel(Path(scratch), source_version())
        for suite in SUITES.values():
            for architecture in MACHINES:
                archives = dict(_resolve(wheel, Target(suite, architecture, source_version()), Path(scratch)))
                resolved.append(frozenset(archives))
                for name, digest in archives.items():
                    hashes.setdefault(name, set()).add(digest)
    if len(set(resolved)) > 1:
        differ = frozenset.union(*resolved) - frozenset.intersection(*resolved)
        raise SystemExit(f"build-deb: not the same everywhere: {', '.join(sorted(differ))}")
    comment = "".join(line for line in BUNDLED.read_text().splitlines(keepends=True) if line.startswith("#"))
    BUNDLED.write_text(comment + "".join(_pin(name, hashes[name]) for name in sorted(hashes)))


def _resolve(wheel: Path, target: Target, scratch: Path) -> Iterator[tuple[str, str]]:
    """Return ``name==version`` and the hash of each archive that pip would install. Blocks."""
    report = scratch / "report.json"
    pip("install", "--dry-run", "--ignore-installed", f"--report={report}", f"--target={scratch / 'none'}",
        *target.pip_options, str(wheel))  # fmt: skip
    for item in json.loads(report.read_text())["install"]:
        facts: dict[str, Any] = item["metadata"]
        name = re.sub(r"[-_.]+", "-", facts["name"]).lower()
        if name != "pomagent":
            yield f"{name}=={facts['version']}", item["download_info"]["archive_info"]["hashes"]["sha256"]


def _pin(name: str, hashes: set[str]) -> str:
    return f"{name}" + "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(hashes)) + "\n"


def pip(*arguments: str) -> None:
    """Run a command and print its errors. Blocks. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
