"""Build the Debian package: our wheel and all it needs, for the Python of one release of Debian."""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEBIAN = ROOT / "debian"
BUNDLED = DEBIAN / "bundled.txt"
REVISION = 1
"""Raise it when the same version of pomagent is packaged again, such as with a newer library."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 37)))
"""The tags of wheels that run on bookworm's C library, and so on every later one."""
# Nothing of this is ever imported or read. Type stubs and C sources are more than half of gevent.
SUPERFLUOUS = ("*.c", "*.h", "*.cpp", "*.hpp", "*.pyx", "*.pxd", "*.pxi", "*.pyi", "tests", "__pycache__",
               "direct_url.json", "RECORD", "REQUESTED", "INSTALLER", "WHEEL")  # fmt: skip
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


@dataclass(frozen=True)
class Suite:
    """A release of Debian."""

    python: str
    suffix: str
    """Sorts the packages of one version by release, so that an upgrade of the host upgrades the package."""


SUITES = {"bookworm": Suite("3.11", "deb12"), "trixie": Suite("3.13", "deb13")}


@dataclass(frozen=True)
class Target:
    """What the package is built for."""

    suite: Suite
    architecture: str
    ours: str
    """The version of pomagent in it, as ``pomagent --version`` says it."""

    @property
    def version(self) -> str:
        """Of the package: 0.2.0rc1 → 0.2.0~rc1-1+deb12."""
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


def build(target: Target, output: Path) -> Path:
    """Build the package into the directory and return its path. Blocks: downloads what pip has not cached."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pomagent-deb-") as scratch:
        tree = Path(scratch, "tree")
        _install_library(target, tree / "opt/pomagent/lib", Path(scratch))
        _install_files(target, tree)
        _write_control(target, tree)
        _settle(tree)
        package = output / target.file
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(package))
    return package


def _install_library(target: Target, library: Path, scratch: Path) -> None:
    wheel = _wheel(scratch, target.ours)
    pip("install", "--no-compile", f"--target={library}", *target.pip_options, f"--constraint={BUNDLED}", str(wheel))
    unpinned = _distributions(library) - _pinned()
    if unpinned:
        raise SystemExit(f"build-deb: not in {BUNDLED.name}: {', '.join(sorted(unpinned))}; see --renew")
    shutil.rmtree(library / "bin")  # the libraries' own commands
    shutil.rmtree(library / "share", ignore_errors=True)
    for pattern in SUPERFLUOUS:
        for path in sorted(library.rglob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _wheel(scratch: Path, version: str) -> Path:
    """Of a copy of the source tree that calls itself so. Blocks."""
    source = scratch / "source"
    shutil.copytree(ROOT / "pomagent", source / "pomagent", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    module = source / "pomagent/__init__.py"
    module.write_text(VERSION.sub(f'__version__ = "{version}"', module.read_text()))
    pip("wheel", "--no-deps", f"--wheel-dir={scratch}", str(source))
    (wheel,) = scratch.glob("pomagent-*.whl")
    return wheel


def _install_files(target: Target, tree: Path) -> None:
    launcher = (DEBIAN / "launcher.in").read_text().replace("@PYTHON@", target.python)
    _write(tree / "opt/pomagent/bin/pomagent", launcher, 0o755)
    link = tree / "usr/bin/pomagent"
    link.parent.mkdir(parents=True)
    link.symlink_to("/opt/pomagent/bin/pomagent")
    documents = tree / "usr/share/doc/pomagent"
    for source, place in {
        "systemd/pomagent.service": "usr/lib/systemd/system/pomagent.service",
        "systemd/pomagent.sysusers.conf": "usr/lib/sysusers.d/pomagent.conf",
        "completions/pomagent.bash": "usr/share/bash-completion/completions/pomagent",
        "completions/pomagent.zsh": "usr/share/zsh/vendor-completions/_pomagent",
        "completions/pomagent.fish": "usr/share/fish/vendor_completions.d/pomagent.fish",
        "debian/agent.toml": "etc/pomagent/agent.toml",
        "debian/lintian-overrides": "usr/share/lintian/overrides/pomagent",
        "debian/copyright": "usr/share/doc/pomagent/copyright",
        "agent.toml": "usr/share/doc/pomagent/examples/agent.toml",
        "systemd/pomagent.socket": "usr/share/doc/pomagent/examples/pomagent.socket",
    }.items():
        _write(tree / place, (ROOT / source).read_text())
    for page in (ROOT / "man").glob("*.[0-9]"):
        _write_compressed(tree / f"usr/share/man/man{page.suffix[1:]}" / f"{page.name}.gz", page.read_text())
    _write_compressed(documents / "changelog.gz", (ROOT / "CHANGELOG.md").read_text())
    _write_compressed(documents / "changelog.Debian.gz", _debian_changelog(target))


def _write_control(target: Target, tree: Path) -> None:
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    facts = {"VERSION": target.version, "ARCHITECTURE": target.architecture, "PYTHON": target.python, "SIZE": str(size)}
    for name, mode in {"control": 0o644, **dict.fromkeys(SCRIPTS, 0o755)}.items():
        text = (DEBIAN / f"{name}.in").read_text()
        _write(tree / "DEBIAN" / name, re.sub(r"@([A-Z]+)@", lambda match: facts[match[1]], text), mode)
    _write(tree / "DEBIAN/conffiles", "/etc/pomagent/agent.toml\n")
    _write(tree / "DEBIAN/md5sums", _checksums(tree))


def _checksums(tree: Path) -> str:
    files = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    listed = [path.relative_to(tree) for path in files if path.parent.name != "DEBIAN"]
    return run("md5sum", *map(str, listed), cwd=tree)


def _debian_changelog(target: Target) -> str:
    signature = re.search(r"^Maintainer: (.*)$", (DEBIAN / "control.in").read_text(), re.MULTILINE)
    assert signature
    date = formatdate(epoch(), usegmt=False)
    changes = "  * See changelog.gz for what is new in this version."
    return f"pomagent ({target.version}) unstable; urgency=medium\n\n{changes}\n\n -- {signature[1]}  {date}\n"


def _settle(tree: Path) -> None:
    """Modes and times that depend neither on the builder's umask nor on the day."""
    for path in [tree, *tree.rglob("*")]:
        if path.is_symlink():
            continue
        is_program = path.is_dir() or path.parent == tree / "opt/pomagent/bin" or path.name in SCRIPTS
        path.chmod(0o755 if is_program else 0o644)
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, (epoch(), epoch()), follow_symlinks=False)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _write_compressed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


# What goes into it.


def _distributions(library: Path) -> set[str]:
    """``name==version`` of all that pip installed, ours excepted."""
    found = (path.name.removesuffix(".dist-info").rsplit("-", 1) for path in library.glob("*.dist-info"))
    return {f"{name.replace('_', '-').lower()}=={version}" for name, version in found if name != "pomagent"}


def _pinned() -> set[str]:
    lines = BUNDLED.read_text().splitlines()
    return {line.lower() for line in lines if line and not line.startswith("#")}


def renew() -> None:
    """Write the newest versions that pyproject.toml allows, and that every suite has, into the list."""
    with tempfile.TemporaryDirectory(prefix="pomagent-deb-") as scratch:
        wheel = _wheel(Path(scratch), source_version())
        for suite in SUITES.values():
            target = Target(suite, "amd64", source_version())
            pip("install", f"--target={scratch}/{suite.python}", *target.pip_options, str(wheel))
        first, *others = (_distributions(Path(scratch, suite.python)) for suite in SUITES.values())
    if any(other != first for other in others):
        raise SystemExit(f"build-deb: the releases differ: {sorted(set.union(first, *others) - first)}")
    comment = "".join(line for line in BUNDLED.read_text().splitlines(keepends=True) if line.startswith("#"))
    BUNDLED.write_text(comment + "".join(f"{line}\n" for line in sorted(first)))


# The rest of the machine.


def source_version() -> str:
    """Of this source tree."""
    found = VERSION.search((ROOT / "pomagent/__init__.py").read_text())
    assert found
    return found[1]


def epoch() -> int:
    """SOURCE_DATE_EPOCH: the time of everything in the package."""
    return int(os.environ["SOURCE_DATE_EPOCH"])


def pip(*arguments: str) -> None:
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a command and return its output; its errors are shown, and end the build."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd).stdout


def _last_commit() -> str:
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], capture_output=True, check=False, text=True, cwd=ROOT)
    return done.stdout.strip() or str(int(time.time()))


def _this_suite() -> str:
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)$", release, re.MULTILINE)
    return found[1] if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default=_this_suite(), help="default: this machine's")
    parser.add_argument("--architecture", choices=MACHINES, default=run("dpkg", "--print-architecture").strip())
    parser.add_argument("--version", default=source_version(), help="call this source tree so; default: %(default)s")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--renew", action="store_true", help="take newer libraries into the list; builds nothing")
    options = parser.parse_args()
    os.environ.setdefault("SOURCE_DATE_EPOCH", _last_commit())
    if options.renew:
        renew()
        return
    if options.suite not in SUITES:
        parser.error(f"this machine is none of {', '.join(SUITES)}: say --suite")
    print(build(Target(SUITES[options.suite], options.architecture, options.version), options.output))


if __name__ == "__main__":
    main()
