"""Builds the Debian package: our wheel and every library that it needs, for the Python of one Debian release."""

import argparse
import gzip
import os
import re
import subprocess
import tempfile
import time
from email.utils import formatdate
from pathlib import Path

from scripts.deb_library import MACHINES, ROOT, SUITES, Target, install, renew, source_version

DEBIAN = ROOT / "debian"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
FILES = {
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
}
NOBODY = "whoever built it <unnamed@builder.invalid>"
"""Address of an unnamed maintainer. RFC 2606 reserves .invalid for addresses that do not exist."""


def build(target: Target, output: Path) -> Path:
    """Build the package into the directory and return its path. Blocks: downloads what pip has not cached."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pomagent-deb-") as scratch:
        tree = Path(scratch, "tree")
        install(target, tree / "opt/pomagent/lib", Path(scratch))
        _install_files(target, tree)
        _write_control(target, tree)
        _settle(tree)
        package = output / target.file
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(package))
    return package


def _install_files(target: Target, tree: Path) -> None:
    launcher = (DEBIAN / "launcher.in").read_text().replace("@PYTHON@", target.python)
    _write(tree / "opt/pomagent/bin/pomagent", launcher, 0o755)
    link = tree / "usr/bin/pomagent"
    link.parent.mkdir(parents=True)
    link.symlink_to("/opt/pomagent/bin/pomagent")
    documents = tree / "usr/share/doc/pomagent"
    for source, place in FILES.items():
        _write(tree / place, (ROOT / source).read_text())
    pages = sorted((ROOT / "man").glob("*.[0-9]"))
    if not pages:
        raise SystemExit("build-deb: no manual pages in man/; run: python -m scripts.docs")
    for page in pages:
        _write_compressed(tree / f"usr/share/man/man{page.suffix[1:]}" / f"{page.name}.gz", page.read_text())
    _write_compressed(documents / "changelog.gz", (ROOT / "CHANGELOG.md").read_text())
    _write_compressed(documents / "changelog.Debian.gz", _debian_changelog(target))


def _write_control(target: Target, tree: Path) -> None:
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    facts = {"VERSION": target.version, "ARCHITECTURE": target.architecture, "PYTHON": target.python, "SIZE": str(size)}
    facts["MAINTAINER"] = maintainer()
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
    date = formatdate(epoch(), usegmt=False)
    changes = "  * See changelog.gz for what is new in this version."
    return f"pomagent ({target.version}) unstable; urgency=medium\n\n{changes}\n\n -- {maintainer()}  {date}\n"


def _settle(tree: Path) -> None:
    """Set modes and times that do not depend on the builder's umask and clock."""
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


# --- the machine ----------------------------------------------------------------------------------------------------


def epoch() -> int:
    """Return SOURCE_DATE_EPOCH, the time of every file in the package."""
    return int(os.environ["SOURCE_DATE_EPOCH"])


def maintainer() -> str:
    """Return the maintainer's name and address from DEBFULLNAME and DEBEMAIL, as Debian's own tools do."""
    email = os.environ.get("DEBEMAIL", "")
    return f"{os.environ.get('DEBFULLNAME') or email} <{email}>" if email else NOBODY


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a command and return its output. Its errors are printed and end the build."""
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
