"""scripts/install into the tree of an image: installing twice, failing, and removing."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pomagent import __version__
from scripts.install import AGENT_TOML, COMMAND, FILES, LINK
from tests.gateway.waiting import scaled
from tests.support.agent import processes, wheels

INSTALL_TIMEOUT_S = 240
pytestmark = pytest.mark.timeout(2 * INSTALL_TIMEOUT_S)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.fill(tmp_path_factory.mktemp("wheels"))


def test_installation_is_repeated_and_removed(archives: Path, tmp_path: Path) -> None:
    _install(tmp_path, "--wheels", str(archives))
    _check_tree(tmp_path)
    (tmp_path / AGENT_TOML).write_text("# mine\n")
    (tmp_path / "etc/pomagent/bastion.jwt").write_text("")
    before = {path for path in _files(tmp_path) if "environments" not in path.parts[len(tmp_path.parts) + 1]}

    _install(tmp_path, "--wheels", str(archives))
    _check_tree(tmp_path)
    after = {path for path in _files(tmp_path) if "environments" not in path.parts[len(tmp_path.parts) + 1]}
    assert after == before
    assert (tmp_path / AGENT_TOML).read_text() == "# mine\n"
    assert len(list((tmp_path / LINK).resolve().parent.iterdir())) == 1

    _install(tmp_path, "--uninstall")
    _install(tmp_path, "--uninstall")  # a second removal changes nothing
    left = {str(path.relative_to(tmp_path)) for path in _files(tmp_path)}
    assert left == {AGENT_TOML, "etc/pomagent/bastion.jwt"}


def test_failed_installation_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "image").mkdir()
    done = _run(tmp_path / "image", "--wheels", str(tmp_path / "empty"))
    assert done.returncode == 1
    assert "install: failed with 1" in done.stderr
    assert list(_files(tmp_path / "image")) == []


@pytest.mark.parametrize("what", [(), ("--uninstall",)])
def test_debian_package_is_left_alone(what: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / LINK / "lib").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/info").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/info/pomagent.list").write_text("/opt/pomagent\n")
    done = _run(tmp_path, *what)
    assert (done.returncode, "apt-get remove pomagent" in done.stderr) == (1, True)
    assert (tmp_path / LINK / "lib").is_dir()


def test_foreign_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / LINK).mkdir(parents=True)
    done = _run(tmp_path)
    assert (done.returncode, "is not from here" in done.stderr) == (1, True)


def _check_tree(image: Path) -> None:
    assert [place for place in [*FILES.values(), AGENT_TOML] if not (image / place).is_file()] == []
    assert str((image / COMMAND).readlink()) == "/opt/pomagent/bin/pomagent"
    for path in [*_files(image), *(path for path in image.rglob("*") if path.is_dir())]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        is_python = path.parent.name == "bin" and path.name.startswith("python")
        wanted = 0o555 if path.is_dir() or is_python else 0o444
        assert path.is_symlink() or mode & 0o777 & wanted == wanted, f"{path}: {mode:o}"
        assert path.is_symlink() or not mode & 0o022, f"{path}: {mode:o}"
    environment = (image / LINK).resolve()
    launcher = (environment / "bin/pomagent").read_text()
    assert launcher.startswith(f"#!/{environment.relative_to(image)}/bin/python -I\n")
    script = [str(environment / "bin/python"), "-I", str(environment / "bin/pomagent"), "--version"]
    done = processes.run(script, capture_output=True, text=True, check=True, timeout=scaled(60))
    assert done.stdout == f"pomagent, version {__version__}\n"
    assert list(environment.glob("lib/*/site-packages/pomagent/py.typed"))
    compiled = next(environment.glob("lib/*/site-packages/pomagent/__pycache__/agent.*.pyc")).read_bytes()
    assert str(image).encode() not in compiled


def _files(image: Path) -> Iterator[Path]:
    return (path for path in image.rglob("*") if path.is_symlink() or path.is_file())


def _install(image: Path, *options: str) -> None:
    done = _run(image, *options)
    assert done.returncode == 0, done.stderr


def _run(image: Path, *options: str) -> Any:
    return processes.run(
        ["scripts/install", "--prefix", str(image), *options], cwd=wheels.ROOT, capture_output=True, text=True,
        umask=0o077, timeout=scaled(INSTALL_TIMEOUT_S),
    )  # fmt: skip
