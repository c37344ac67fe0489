"""What is not markup is escaped, wherever it stands."""

import json

from launcher.report.html import Markup, data_block, join, table, tag, text
from tests.launcher.report.reader import Reader

NASTY = """</script><script>alert("x")</script>&amp;'"""


def test_text_and_attributes_are_escaped():
    seen = Reader(tag("p", NASTY, ["<b>", 3, None], title=NASTY))
    assert seen.tags == ["p"]
    assert seen.text == NASTY + "<b>3"
    assert seen.attributes == [("title", NASTY)]


def test_markup_is_not_escaped_again_but_what_it_was_joined_to_is():
    assert tag("p", tag("b", "<")) == "<p><b>&lt;</b></p>"
    assert join(Markup("<b>") + "<i>") == "&lt;b&gt;&lt;i&gt;"


def test_attributes():
    made = tag("path", class_="c0", aria_hidden="true", hidden=True, title=None, alt=False)
    assert made == '<path class="c0" aria-hidden="true" hidden></path>'
    assert tag("img", alt="") == '<img alt="">'


def test_no_text_ends_a_data_block():
    block = data_block({"label": NASTY, "x": [1.5]})
    assert block.count("<") == 2
    content = block.removeprefix('<script type="application/json">').removesuffix("</script>")
    assert json.loads(content) == {"label": NASTY, "x": [1.5]}


def test_what_utf_8_cannot_hold():
    assert text("a\ud800b\0").encode() == "a?b�".encode()


def test_tables_name_their_rows():
    made = table("figures", ["", "first"], [["loss", "<1>"]])
    assert '<th scope="row">loss</th><td>&lt;1&gt;</td>' in made
    assert 'aria-label="figures" tabindex="0"' in made
    assert "<thead>" not in table("figures", ["", ""], [["loss", "1"]])
