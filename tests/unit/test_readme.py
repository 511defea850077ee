"""The README agrees with the code."""

import re
from pathlib import Path

from click.testing import CliRunner

from pomagent.cli import cli, commands
from pomagent.pool.presets import PRESETS
from scripts.docs import generated

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_generated_files_are_up_to_date() -> None:
    """Compare the README's tables, the manual pages and the completions."""
    stale = [str(path.relative_to(ROOT)) for path, text in generated().items() if path.read_text() != text]
    assert stale == [], "run: python -m scripts.docs"


def test_every_command_is_in_the_table_of_commands() -> None:
    assert {f"pomagent {name}" for name in commands()} == set(
        re.findall(r"^\| `(pomagent [\w-]+)", README, re.MULTILINE)
    )


def test_every_flag_in_the_readme_exists() -> None:
    for line in re.findall(r"^(?:ssh .*)?(pomagent \w+.*)$", README, re.MULTILINE):
        command, *rest = line.removeprefix("pomagent ").split()
        known = CliRunner().invoke(cli, [command, "--help"]).output
        for flag in [word for word in rest if word.startswith("--")]:
            assert flag.strip('"') in known, f"{line}: {flag}"


def test_table_of_protocols_agrees_with_the_presets() -> None:
    kept = {"tunnel": "the whole tunnel", "tls": "the TLS connection to the gateway"}
    for name, preset in PRESETS.items():
        (row,) = re.findall(rf"^\| (.*\b{name}\b.*) \| (.*) \| (\d+) s \|$", README, re.MULTILINE)
        assert row[1:] == (kept[preset.level], f"{preset.max_age_s:g}")
        ports = re.search(rf"{name} \(([\d, ]+)\)", row[0])
        assert tuple(map(int, ports[1].split(", "))) == preset.ports if ports else not preset.ports


def test_every_exit_code_is_in_the_table_of_exit_codes() -> None:
    listed = set(map(int, re.findall(r"^\| (\d+) \|", README, re.MULTILINE)))
    assert listed == {0, 1, 2, 69, 74, 75, 77, 78}
