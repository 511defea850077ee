"""``pomagent import`` on the command line."""

from pathlib import Path

from click.testing import CliRunner

from pomagent.cli import cli
from pomagent.config.desktop import MAX_EXPORT_BYTES
from tests.support.agent.agent_process import pomagent

DATA = Path(__file__).parents[1] / "data" / "desktop"


def test_toml_goes_to_standard_output_and_notes_to_standard_error() -> None:
    done = pomagent("import", str(DATA / "hostile.json"), LC_ALL="C")
    assert (0, (DATA / "hostile.toml").read_text()) == (done.returncode, done.stdout)
    assert done.stderr == (DATA / "hostile.warnings").read_text() + "7 routes, 6 left out\n"


def test_dash_reads_standard_input() -> None:
    content = (DATA / "exported.json").read_bytes()
    assert CliRunner().invoke(cli, ["import", "-"], input=content).stdout == (DATA / "exported.toml").read_text()


def test_imported_file_passes_the_check(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text((DATA / "exported.toml").read_text())
    assert CliRunner().invoke(cli, ["check", "--config", str(path)]).output.endswith("valid: 5 routes\n")


def test_file_that_is_no_export_is_reported_and_exits_with_78(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    for content, problem in (
        (b"[", f"{path}:1:2: is not a Pomerium Desktop export: not JSON: expecting value\n"),
        (b" " * (MAX_EXPORT_BYTES + 1), f"{path}: is larger than {MAX_EXPORT_BYTES} bytes\n"),
    ):
        path.write_bytes(content)
        done = pomagent("import", str(path))
        assert (78, "", problem) == (done.returncode, done.stdout, done.stderr)


def test_missing_file_exits_with_78() -> None:
    done = pomagent("import", "/no-such.json")
    assert (done.returncode, done.stderr) == (78, "/no-such.json: cannot be read: No such file or directory\n")
