"""Generates the manual pages from the commands' help, the tables of settings and sections of the README."""

import re
from collections.abc import Iterator

import click

from pomagent import __version__
from pomagent.cli import cli, commands
from pomagent.config.reference import REQUIRED, Key, tables
from scripts import roff

DATE = "2026"
"""Date of the pages. A year is enough, and changes them only once a year."""

ENVIRONMENT = {
    "`POMAGENT_CONFIG`": "The `agent.toml` to use where no `--config` is given.",
    "`POMAGENT_TABLE__KEY`": "Overrides a key outside `[[routes]]`, such as `POMAGENT_AGENT__LOG_LEVEL=debug`; see "
    "`agent.toml`(5).",
    "`BROWSER`": "The browser of `pomagent login` without `--browser-cmd`.",
    "`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`": 'The proxy and its exceptions, for `forward_proxy = "env"`.',
    "`NO_COLOR`": "If not empty, nothing is coloured.",
    "`XDG_RUNTIME_DIR`, `XDG_STATE_HOME`": "Directories of control socket and tokens for users other than root.",
    "`NOTIFY_SOCKET`, `LISTEN_FDS`, `WATCHDOG_USEC`, `CREDENTIALS_DIRECTORY`, `STATE_DIRECTORY`": "Set by systemd: see "
    "`systemd.exec`(5) and `sd_notify`(3).",
}
FILES = {
    "`/etc/pomagent/agent.toml`": "The configuration; `./agent.toml` comes first where there is one.",
    "`/run/pomagent/control.sock`": "The service's control socket, for root and its user and group.",
    "`/var/lib/pomagent`": "The last accepted configuration and tokens of `pomagent login`, for service and root.",
    "`~/.local/state/pomagent`": "The same for other users.",
}
EXAMPLES = """\
# is the file valid, and may the service read every file that it names?
runuser -u pomagent -- pomagent check
# what would a reload change?
pomagent check --diff
# do the tunnels work, and how long does each step take?
pomagent probe
# one route without a file
pomagent tcp redis.corp.example.com:6379 --service-account-file bastion.jwt
"""
PATTERNS = {"commands": r"(All but .*?)\n\n", "signals": r"\*\*Signals\.\*\* (.*?)\n\n",
            "exit codes": r"(\| exit code \|.*?)\n\n", "settings": r"## Settings\n\n(.*?)\n\n<!-- settings",
            "introduction": r"# pomagent\n\n(.*?)\n\n", "example": r"```toml\n(.*?)```"}  # fmt: skip


def pages(readme: str) -> dict[str, str]:
    """Return every page by its file name."""
    return {"pomagent.1": pomagent(readme), "agent.toml.5": agent_toml(readme)}


def pomagent(readme: str) -> str:
    title = "fixed local ports for the TCP routes of a Pomerium gateway"
    return "".join((
        roff.page("pomagent", 1, title, DATE, __version__),
        roff.section("SYNOPSIS", ".B pomagent\n.I command\n.RI [ option ...]\n.RI [ argument ...]\n"),
        roff.section("DESCRIPTION", roff.prose(_quote(readme, "introduction")), roff.prose(_quote(readme, "commands"))),
        roff.section("OPTIONS", *_options(cli, "pomagent")),
        roff.section("COMMANDS", *(_command(name, command) for name, command in commands().items())),
        roff.section("EXIT STATUS", roff.prose(_quote(readme, "exit codes"))),
        roff.section("SIGNALS", roff.prose(_quote(readme, "signals"))),
        roff.section("ENVIRONMENT", _terms(ENVIRONMENT)),
        roff.section("FILES", _terms(FILES)),
        roff.section("EXAMPLES", roff.example(EXAMPLES)),
        roff.section("SEE ALSO", ".BR agent.toml (5),\n.BR systemctl (1),\n.BR journalctl (1)\n"),
    ))  # fmt: skip


def agent_toml(readme: str) -> str:
    return "".join((
        roff.page("agent.toml", 5, "the configuration of pomagent", DATE, __version__),
        roff.section("DESCRIPTION", roff.prose(_without_tables(_quote(readme, "settings")))),
        roff.section("TABLES", *(_table(header, keys) for header, keys in tables())),
        roff.section("EXAMPLES", roff.example(_quote(readme, "example"))),
        roff.section("FILES", _terms(FILES)),
        roff.section("SEE ALSO", ".BR pomagent (1)\n"),
    ))  # fmt: skip


def _quote(readme: str, what: str) -> str:
    """Return a section of the README, so that both texts agree."""
    found = re.search(PATTERNS[what], readme, re.DOTALL)
    if not found:
        raise SystemExit(f"docs: README.md has lost its {what}; the manual page quotes it: see scripts/man_pages.py")
    return found[1]


def _without_tables(text: str) -> str:
    """Replace links to files of the repository, which a manual page does not have beside it."""
    installed = "`/usr/share/doc/pomagent/examples/agent.toml`"
    return text.replace(
        "[`agent.toml`](agent.toml) in this repository", f"{installed} (in the repository: `agent.toml`)"
    )


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join(["pomagent", name, *command.collect_usage_pieces(context)])
    return roff.subsection(usage, roff.prose(command.help or ""), *_options(command, name))


def _options(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            yield roff.term(f"`{record[0]}`", record[1] or "")


def _table(header: str, keys: list[Key]) -> str:
    return roff.subsection(header, *map(_key, keys))


def _key(key: Key) -> str:
    default = key.default if key.default == REQUIRED else f"default `{key.default}`" if key.default else ""
    facts = ", ".join(part for part in (default, f"applied {key.applied}") if part)
    return roff.term(f"`{key.name}`", f"{key.meaning} ({facts})")


def _terms(named: dict[str, str]) -> str:
    return "".join(roff.term(name, text) for name, text in named.items())
