"""What a data set holds and what is wrong with it, found without any model.

    table, unreadable = open_rows(dataset_name="examples/quickstart/data")
    part = Part("", ImageTextTable(table, ["image", "conditioning_image"]), unreadable=unreadable)
    print(describe(summary(look_at(part), sizes=[(512, 512)])))

Unlike `ImageTextTable.check`, which raises, this goes through all rows whatever it meets: what
cannot be used is counted and named, the rest is measured. Arrays take some 60 bytes a row.
"""

from __future__ import annotations

from launcher.training.data_report.rows import Part, open_rows
from launcher.training.data_report.summary import Length, summary
from launcher.training.data_report.text import describe
from launcher.training.data_report.walk import Findings, Found, Tell, look_at

__all__ = [
    "Findings",
    "Found",
    "Length",
    "Part",
    "Tell",
    "describe",
    "look_at",
    "open_rows",
    "summary",
]
