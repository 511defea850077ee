"""Installs the agent on this host or into the tree of an image, and removes it. Uses only the standard library."""

import argparse
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = "opt/pomagent"
ENVIRONMENTS = "opt/pomagent-environments"
"""Directory with one environment for each installation. LINK is switched to an environment once it is complete."""
FILES = {
    "systemd/pomagent.service": "etc/systemd/system/pomagent.service",
    "systemd/pomagent.sysusers.conf": "etc/sysusers.d/pomagent.conf",
    "man/pomagent.1": "usr/local/share/man/man1/pomagent.1",
    "man/agent.toml.5": "usr/local/share/man/man5/agent.toml.5",
    "completions/pomagent.bash": "usr/local/share/bash-completion/completions/pomagent",
    "completions/pomagent.zsh": "usr/local/share/zsh/site-functions/_pomagent",
    "completions/pomagent.fish": "usr/local/share/fish/vendor_completions.d/pomagent.fish",
    "agent.toml": "usr/local/share/doc/pomagent/examples/agent.toml",
    "systemd/pomagent.socket": "usr/local/share/doc/pomagent/examples/pomagent.socket",
}
COMMAND = "usr/local/bin/pomagent"
AGENT_TOML = "etc/pomagent/agent.toml"
UNIT = "pomagent.service"
WRONG_USAGE = 2
LAUNCHER = """\
#!/{environment}/bin/python -I
from pomagent.__main__ import main

main()
"""


def install(prefix: Path, wheels: Path | None) -> None:
    """Install everything and leave a running agent alone. Blocks."""
    environment = _new_environment(prefix)
    try:
        _fill(prefix, environment, wheels)
    except BaseException:
        shutil.rmtree(prefix / environment)
        raise
    for source, place in FILES.items():
        _write(prefix / place, (ROOT / source).read_bytes())
    if not (prefix / AGENT_TOML).exists():
        _write(prefix / AGENT_TOML, (ROOT / "debian/agent.toml").read_bytes())
    _point(prefix / COMMAND, f"/{LINK}/bin/pomagent")
    _point(prefix / LINK, os.path.relpath(environment, Path(LINK).parent))
    _forget_others(prefix, environment)


def uninstall(prefix: Path) -> None:
    """Remove the agent. /etc/pomagent, the state directory and the user stay, so that no other user gets the tokens."""
    for place in [*FILES.values(), COMMAND, LINK]:
        (prefix / place).unlink(missing_ok=True)
    shutil.rmtree(prefix / ENVIRONMENTS, ignore_errors=True)
    for directory in ("usr/local/share/doc/pomagent/examples", "usr/local/share/doc/pomagent"):
        with suppress(OSError):
            (prefix / directory).rmdir()


# --- the virtual environment ----------------------------------------------------------------------------------------


def _new_environment(prefix: Path) -> Path:
    """Create an environment and return its path below the prefix."""
    place = prefix / ENVIRONMENTS
    _make_directory(place)
    number = max((int(path.name) for path in place.iterdir() if path.name.isdigit()), default=0) + 1
    _make_directory(place / str(number))
    return Path(ENVIRONMENTS, str(number))


def _fill(prefix: Path, environment: Path, wheels: Path | None) -> None:
    place = prefix / environment
    pip_wheel = next(iter(sorted(wheels.glob("pip-*.whl"))), None) if wheels else None
    try:
        run(sys.executable, "-m", "venv", *(["--without-pip"] if pip_wheel else []), str(place))
    except subprocess.CalledProcessError as error:
        raise SystemExit("install: see above; without python3-venv, put a wheel of pip into --wheels") from error
    offline = ["--no-index", f"--find-links={wheels}", f"pomagent=={_version()}"] if wheels else [str(ROOT)]
    options = ["--quiet", "--disable-pip-version-check", "--no-compile", "--root-user-action=ignore"]
    extra = {"PYTHONPATH": str(pip_wheel)} if pip_wheel else {}
    run(str(place / "bin/python"), "-m", "pip", "install", *options, *offline, **extra)
    for path in (place / "bin").iterdir():
        if not path.name.startswith("python"):
            path.unlink()  # the commands of pip and of libraries contain the prefix
    _write(place / "bin/pomagent", LAUNCHER.format(environment=environment).encode(), 0o755)
    # Compiled with its later path, so that no traceback shows the prefix.
    run(str(place / "bin/python"), "-m", "compileall", "-q", "-s", str(prefix), "-p", "/", str(place / "lib"))
    _open_to_all(place)


def _version() -> str:
    text = (ROOT / "pomagent/__init__.py").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("__version__ = "))
    return line.split('"')[1]


def _open_to_all(place: Path) -> None:
    """Make the environment readable for the service's user, whatever the umask of the installing user."""
    for path in [place, *place.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def _forget_others(prefix: Path, environment: Path) -> None:
    """Remove the environments that no process uses. An old agent with sessions may still import from its own."""
    used = "".join(map(_mapped, Path("/proc").glob("[0-9]*")))
    for path in (prefix / ENVIRONMENTS).iterdir():
        if path.name != environment.name and f"{path}/" not in used:
            shutil.rmtree(path)


def _mapped(process: Path) -> str:
    """Return the files that a process has mapped, which include gevent's if it is an agent."""
    with suppress(OSError):
        return (process / "maps").read_text(errors="replace")
    return ""


# --- the host -------------------------------------------------------------------------------------------------------


def register() -> None:
    """Create the user, and reload systemd where it runs."""
    run("systemd-sysusers", "pomagent.conf")
    if _systemd_runs():
        run("systemctl", "daemon-reload")


def hand_over() -> None:
    """Replace a running agent by the installed version. Exits as `pomagent upgrade` does if that fails."""
    if not _is_active():
        return
    done = subprocess.run([f"/{LINK}/bin/pomagent", "upgrade", "--config", f"/{AGENT_TOML}"], check=False)
    if done.returncode == WRONG_USAGE:  # a version without that command
        run("systemctl", "restart", UNIT)
    elif done.returncode:
        print("install: installed, but the agent that runs is still the old one: see above", file=sys.stderr)
        raise SystemExit(done.returncode)


def unregister() -> None:
    """Stop the agent, after its drain."""
    if _systemd_runs():
        subprocess.run(["systemctl", "disable", "--now", UNIT], check=False)


def _systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()


def _is_active() -> bool:
    command = ["systemctl", "--quiet", "is-active", UNIT]
    return _systemd_runs() and subprocess.run(command, check=False).returncode == 0


def run(*command: str, **environment: str) -> None:
    """Print a command and run it. Blocks. Raises CalledProcessError."""
    print("+", *command, file=sys.stderr)
    subprocess.run(command, check=True, env=os.environ | environment)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file by a rename, because systemd may read it at any moment."""
    _make_directory(path.parent)
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(content)
    draft.chmod(mode)
    draft.replace(path)


def _point(path: Path, target: str) -> None:
    _make_directory(path.parent)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(path)


def _make_directory(path: Path) -> None:
    if not path.exists():
        _make_directory(path.parent)
        path.mkdir()
        path.chmod(0o755)


def _refusal(prefix: Path, host: bool) -> str:
    """Return why the host is not suitable, empty if it is."""
    if host and os.geteuid() != 0:
        return "must run as root, but with --prefix"
    if host and Path(sys.executable).resolve().parts[1] in ("home", "root"):
        return f"the service may not read {sys.executable} (ProtectHome=); name another one with PYTHON=…"
    if not (prefix / LINK).is_dir() or (prefix / LINK).is_symlink():
        return ""
    if (prefix / "var/lib/dpkg/info/pomagent.list").exists():
        return "the Debian package is installed; remove it first: apt-get remove pomagent"
    return f"/{LINK} is not from here; remove it first"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/install", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--upgrade", action="store_true", help="install, and replace a running agent without a pause")
    what.add_argument("--uninstall", action="store_true", help="stop and remove; /etc/pomagent stays")
    parser.add_argument("--wheels", type=lambda text: Path(text).resolve(), help="use no package index")
    parser.add_argument("--prefix", type=lambda text: Path(text).resolve(), default=Path("/"), help="of an image")
    options = parser.parse_args()
    is_host = options.prefix == Path("/")
    refusal = _refusal(options.prefix, is_host)
    if refusal:
        raise SystemExit(f"install: {refusal}")
    try:
        if options.uninstall:
            _uninstall(options.prefix, is_host)
        else:
            _install(options, is_host)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"install: failed with {error.returncode}: {' '.join(error.cmd)}") from error


def _install(options: argparse.Namespace, is_host: bool) -> None:
    install(options.prefix, options.wheels)
    if is_host:
        register()
        if options.upgrade:
            hand_over()
        elif _is_active():
            print("install: the agent goes on as the old version; scripts/install --upgrade replaces it")


def _uninstall(prefix: Path, is_host: bool) -> None:
    if is_host:
        unregister()
    uninstall(prefix)
    if is_host and _systemd_runs():
        run("systemctl", "daemon-reload")


if __name__ == "__main__":
    main()
