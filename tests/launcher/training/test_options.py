import dataclasses

import pytest

from launcher.training.options import option


@dataclasses.dataclass(frozen=True)
class Section:
    required: int = option(help="no default")
    bounded: float = option(0.5, help="a share", ge=0, le=1)
    listed: list = option(default_factory=list, help="made anew each time")


def test_an_option_is_a_dataclass_field_with_help_and_bounds():
    by_name = {f.name: f for f in dataclasses.fields(Section)}
    assert by_name["bounded"].metadata["help"] == "a share"
    assert by_name["bounded"].metadata["bounds"] == {"ge": 0, "le": 1}
    assert Section(1).listed is not Section(1).listed


def test_an_option_without_default_is_required():
    with pytest.raises(TypeError, match="required"):
        Section()
