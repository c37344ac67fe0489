"""Text in Markdown that means itself."""

import pytest

from launcher.training.markdown import block, code, escaped, row


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a photo of sks dog", "a photo of sks dog"),
        ("*bold* _it_ `code` [a](b)", r"\*bold\* \_it\_ \`code\` \[a\](b)"),
        ("<script>&amp;", "&lt;script&gt;&amp;amp;"),
        ("two\nlines\n\n# heading", "two lines # heading"),
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("2.10.0", "2.10.0"),
        ("-1", "-1"),
        ("a | b $x$", r"a \| b \$x\$"),
        ("\\", "\\\\"),
    ],
)
def test_escaped(text, expected):
    assert escaped(text) == expected


def test_code_has_a_longer_fence_than_what_is_in_it():
    assert code("plain\ntext") == "`plain text`"
    assert code("a `` b") == "```a `` b```"
    assert code("`a`") == "`` `a` ``"


def test_a_block_has_a_longer_fence_than_what_is_in_it():
    assert block('x = "```"', "python") == '````python\nx = "```"\n````'


def test_a_bar_does_not_end_a_cell():
    assert row("`a|b`", r"c \| d") == r"| `a\|b` | c \| d |"
