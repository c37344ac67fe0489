import pytest

from flux_common.config import LossSection
from flux_controlnet_plugin.config import ControlNetDataSection


def problems(section):
    return list(section.problems())


def data(**options):
    given = {"dataset_name": "x", "conditioning_image_column": "edges", **options}
    return problems(ControlNetDataSection(**given))


def test_a_plain_configuration_has_no_problems():
    assert data() == []
    assert problems(LossSection()) == []


@pytest.mark.parametrize(
    ("resolution", "substance"),
    [
        (65, "multiples of 16, such as 64"),
        (8, "such as 16"),
        (0, "such as 16"),
        ([64, 100], "such as [64, 96]"),
        ([64], "one number or [height, width]"),
        ([64, 64, 3], "one number or [height, width]"),
        ([], "one number or [height, width]"),
    ],
)
def test_resolutions_that_do_not_fit(resolution, substance):
    (problem,) = data(resolution=resolution)
    assert str(resolution) in problem and substance in problem


def test_resolution_as_height_and_width():
    assert ControlNetDataSection().sizes == ((512, 512),)
    assert ControlNetDataSection(resolution=64).sizes == ((64, 64),)
    assert ControlNetDataSection(resolution=[64, 96]).sizes == ((64, 96),)


def test_buckets_in_place_of_a_resolution():
    buckets = [[64, 96], [96, 64]]
    assert ControlNetDataSection(buckets=buckets).sizes == ((64, 96), (96, 64))
    assert data(buckets=buckets) == []
    (problem,) = data(buckets=buckets, resolution=512)
    assert "data.resolution is 512" in problem and "set one of them to null" in problem


def test_buckets_that_do_not_fit():
    first, second = data(buckets=[[64, 100], [64, 64], [64, 64]])
    assert "data.buckets has [64, 100]" in first and "nearest is [64, 96]" in first
    assert "[64, 64] twice" in second
    assert "data.buckets is empty" in data(buckets=[])[0]


def test_one_data_set_and_one_control():
    assert "neither is set" in data(dataset_name=None)[0]
    assert "both are set" in data(jsonl_for_train="y")[0]
    assert "leave out one of them" in data(conditioning="canny")[0]
    # A variant may bring control images of its own; the data set tells if there are none.
    assert data(conditioning_image_column=None) == []


def test_shapes_of_a_density_that_is_not_drawn_from():
    (problem,) = problems(LossSection(weighting_scheme="mode", logit_mean=1.0))
    assert "only the scheme logit_normal uses" in problem
    assert problems(LossSection(weighting_scheme="mode", mode_scale=1.0)) == []
