"""The README's Markdown becomes roff for manual pages."""

import pytest

from scripts import roff


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("two\nlines", "two lines"),
        ("see `--config`", r"see \fB\-\-config\fR"),
        ("**`[agent]`** or a [page](https://example.com)", r"\fB`[agent]`\fR or a page"),
        (r"a\b", r"a\eb"),
        ("±10 % → 3–5…", r"\[+-]10 % \[->] 3\[en]5..."),
        ("`a→b-c`", r"\fBa\[->]b\-c\fR"),
        ("naïve", r"na\[u00EF]ve"),
    ],
)
def test_inline_markdown_becomes_roff(markdown: str, expected: str) -> None:
    assert roff.inline(markdown) == expected


def test_no_line_of_text_is_a_roff_request() -> None:
    assert roff.prose(".names only") == ".PP\n\\&.names only\n"
    assert roff.example(".x\n'y") == ".PP\n.RS 4\n.EX\n\\&.x\n\\&'y\n.EE\n.RE\n"


def test_table_becomes_a_list_of_terms() -> None:
    table = "| code | means |\n| --- | --- |\n| 0 | done |\n| 2 | a \\| b |"
    assert roff.prose(table) == ".TP\n0\ndone\n.TP\n2\na | b\n"


def test_list_keeps_its_items() -> None:
    assert roff.prose("- one\n  more\n- two") == ".IP \\(bu 2\none more\n.IP \\(bu 2\ntwo\n"
