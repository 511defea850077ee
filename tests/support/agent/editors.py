"""Ways in which people and programs replace the content of a file, each a function of the file and its new text."""

import fcntl
import os
import pty
import select
import shutil
import struct
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway.waiting import scaled
from tests.support.agent import processes

Way = Callable[[Path, str], None]

TIMEOUT_S = 20
VIM = ("vim.tiny", "-u", "NONE", "-N")
VIM_BACKUPS = "set backup writebackup backupcopy="
EMACS_OPENS = "(progn (setq backup-enable-predicate #'always) (find-file (pop command-line-args-left))"
EMACS_SAVES = '(erase-buffer) (insert-file-contents "/dev/stdin") (save-buffer))'
NANO_SELECTS_ALL = b"\x1b\\" + b"\x1ba" + b"\x1b/"
NANO_CUTS, NANO_SAVES, NANO_ENDS = b"\x0b", b"\x13", b"\x18"


def run(program: str, *arguments: str | Path, stdin: str = "") -> None:
    """Run an editor or a tool to its end. Skips the test if the program is not installed."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    done = processes.run(
        [program, *map(str, arguments)], input=stdin, text=True, capture_output=True, check=False,
        timeout=scaled(TIMEOUT_S),
    )  # fmt: skip
    assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"


def draft(file: Path, text: str) -> Path:
    """Write the text to a new file in the same directory and return its path."""
    new = file.with_name("draft")
    new.write_text(text)
    return new


# Editors.


def vim(file: Path, text: str) -> None:
    """Save with vim, which backs up by copy or rename, creates a test file named 4913, and keeps a swap file."""
    _vim("-es", "set nobackup writebackup backupcopy=auto", file, text)


def vim_that_copies(file: Path, text: str) -> None:
    _vim("-es", f"{VIM_BACKUPS}yes", file, text)


def vim_that_renames(file: Path, text: str) -> None:
    _vim("-Es", f"{VIM_BACKUPS}no", file, text)


def _vim(mode: str, setting: str, file: Path, text: str) -> None:
    new = file.parent.parent / "vims.draft"
    new.write_text(text)
    run(*VIM, mode, "-c", setting, "-c", "%d _", "-c", f"0r {new}", "-c", "x", file)


def emacs(file: Path, text: str) -> None:
    """Save with Emacs, which locks with a link ``.#file``, renames the old file to ``file~`` and writes a new one."""
    _emacs("", file, text)


def emacs_that_copies(file: Path, text: str) -> None:
    _emacs("(setq backup-by-copying t)", file, text)


def emacs_that_is_careful(file: Path, text: str) -> None:
    """Save with Emacs, which writes a new file and renames it."""
    _emacs("(setq-local file-precious-flag t)", file, text)


def _emacs(settings: str, file: Path, text: str) -> None:
    run("emacs", "--batch", "-Q", "--eval", f"{EMACS_OPENS} {settings} {EMACS_SAVES}", file, stdin=text)


def ed(file: Path, text: str) -> None:
    run("ed", "-s", file, stdin=f"1,$d\n0r {draft(file, text)}\nw\nq\n")


def nano(file: Path, text: str) -> None:
    """Type the text into nano on a terminal."""
    if not shutil.which("nano"):
        pytest.skip("nano is not installed")
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    typed = text.rstrip("\n").replace("\n", "\r").encode()  # nano adds the last end of line
    with processes.Process(
        ["nano", "--ignorercfiles", str(file)], stdin=its, stdout=its, stderr=its, start_new_session=True,
        env=os.environ | {"TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(its)
        try:
            _screen(ours)  # nano discards input until it has painted a screen
            os.write(ours, NANO_SELECTS_ALL + NANO_CUTS + typed + NANO_SAVES + NANO_ENDS)
            while _screen(ours):
                pass
        finally:
            process.terminate()
            os.close(ours)


def _screen(terminal: int) -> bytes:
    """Return what the terminal shows next, nothing at the end. Blocks."""
    assert select.select([terminal], [], [], scaled(TIMEOUT_S))[0], "nano neither paints nor ends"
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the other end is closed
        return b""


# Tools.


def sed_in_place(file: Path, text: str) -> None:
    new = draft(file, text)
    run("sed", "--in-place", "--quiet", f"1r {new}", file)


def install(file: Path, text: str) -> None:
    run("install", "--mode=640", draft(file, text), file)


def install_with_a_backup(file: Path, text: str) -> None:
    run("install", "--backup=numbered", draft(file, text), file)


def cp(file: Path, text: str) -> None:
    run("cp", draft(file, text), file)


def mv(file: Path, text: str) -> None:
    run("mv", draft(file, text), file)


def mv_from_elsewhere(file: Path, text: str) -> None:
    new = file.parent.parent / "download"
    new.write_text(text)
    run("mv", new, file)


def hard_link(file: Path, text: str) -> None:
    """Replace the file with ``ln``, which renames a temporary link over it."""
    new = draft(file, text)
    run("ln", "--force", new, file)
    new.unlink()  # a write to one name is no event of the other


def tee(file: Path, text: str) -> None:
    run("tee", file, stdin=text)


def dd_without_truncation(file: Path, text: str) -> None:
    """Overwrite the file in place, then truncate what was longer."""
    run("dd", f"of={file}", "conv=notrunc,fsync", stdin=text)
    run("truncate", f"--size={len(text.encode())}", file)


def git_checkout(file: Path, text: str) -> None:
    """Check the file out with git, which deletes and recreates it."""
    git = ("git", "-C", file.parent, "-c", "user.name=x", "-c", "user.email=x", "-c", "init.defaultBranch=main")
    elsewhere = ("--git-dir", file.parent.parent / "repository", "--work-tree", file.parent)
    run(*git, *elsewhere, "init", "--quiet")
    run(*git, *elsewhere, "add", file)
    tree = (*git, *elsewhere, "hash-object", "-w", "--stdin")
    blob = processes.run([*map(str, tree)], input=text, text=True, capture_output=True, check=True).stdout.strip()
    run(*git, *elsewhere, "update-index", "--cacheinfo", f"100644,{blob},{file.name}")
    run(*git, *elsewhere, "checkout-index", "--force", file.name)


# Programs without an editor or a tool.


def rename_over(file: Path, text: str) -> None:
    draft(file, text).replace(file)


def write_in_place(file: Path, text: str) -> None:
    file.write_text(text)


def delete_and_create(file: Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


def write_letter_by_letter(file: Path, text: str) -> None:
    with file.open("w") as stream:
        for letter in text:
            stream.write(letter)
            stream.flush()


def move_away_and_create(file: Path, text: str) -> None:
    file.rename(f"{file}.old")
    file.write_text(text)


def swap_the_directory(file: Path, text: str) -> None:
    """Replace the directory with a copy that has the new file."""
    directory = file.parent
    new, old = directory.with_name("new"), directory.with_name("old")
    shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(directory, new, symlinks=True)
    (new / file.name).write_text(text)
    directory.rename(old)
    new.rename(directory)


EDITORS: tuple[Way, ...] = (
    vim, vim_that_copies, vim_that_renames, emacs, emacs_that_copies, emacs_that_is_careful, ed, nano,
)  # fmt: skip
TOOLS: tuple[Way, ...] = (
    sed_in_place, install, install_with_a_backup, cp, mv, mv_from_elsewhere, hard_link, tee,
    dd_without_truncation, git_checkout,
)  # fmt: skip
PROGRAMS: tuple[Way, ...] = (
    rename_over, write_in_place, delete_and_create, write_letter_by_letter, move_away_and_create, swap_the_directory,
)  # fmt: skip
