"""Images of every kind are read, brought to size and turned into conditions."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from launcher.training.errors import UserError
from launcher.training.images import (
    MissingImageError,
    blur,
    canny,
    check_image,
    gray,
    height_and_width,
    image_size,
    load_rgb,
    resize_and_crop,
    same_aspect,
    to_float,
)


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


# -------------------------------------------------------------------------------------------
# Reading
# -------------------------------------------------------------------------------------------


def test_an_rgb_image_is_read_as_it_is_from_path_bytes_and_pillow(tmp_path):
    pixels = noise(5, 7)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), encoded(image), image):
        loaded = load_rgb(source)
        assert loaded.dtype == np.uint8
        np.testing.assert_array_equal(loaded, pixels)
    image.load()  # the caller's image is still usable


@pytest.mark.parametrize("orientation, turned", [(1, 0), (3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation, turned, format):
    pixels = noise(4, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels), format, exif=exif)
    upright = np.rot90(pixels, turned)
    np.testing.assert_array_equal(load_rgb(data), upright)
    assert check_image(data) == image_size(data) == upright.shape[:2]


def test_exif_orientation_of_a_jpeg():
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :8] = 255  # the stored left edge ...
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(pixels), "JPEG", exif=exif)
    upright = load_rgb(data)
    assert check_image(data) == image_size(data) == upright.shape[:2] == (48, 32)
    assert (upright[:8] > 250).all() and (upright[8:] < 5).all()  # ... is the upright top


def test_greyscale_becomes_three_equal_channels():
    grey = noise(3, 4, 1)[..., 0]
    np.testing.assert_array_equal(load_rgb(Image.fromarray(grey)), np.stack([grey] * 3, axis=2))


def test_transparency_is_laid_over_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 255  # red ...
    rgba[0, :, 3] = 0, 128, 255  # ... more and more of it
    expected = [[255, 255, 255], [255, 127, 127], [255, 0, 0]]
    np.testing.assert_array_equal(load_rgb(encoded(Image.fromarray(rgba)))[0], expected)

    grey_alpha = np.array([[[0, 0], [0, 255]]], np.uint8)
    image = Image.fromarray(grey_alpha)
    assert image.mode == "LA"
    np.testing.assert_array_equal(load_rgb(image)[0], [[255] * 3, [0] * 3])

    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    data = encoded(palette, transparency=0)
    np.testing.assert_array_equal(load_rgb(data)[0], [[255, 255, 255], [0, 0, 255]])

    keyed = Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8))
    data = encoded(keyed, transparency=(9, 9, 9))
    np.testing.assert_array_equal(load_rgb(data)[0], [[255, 255, 255], [1, 2, 3]])


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(format):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    loaded = load_rgb(encoded(Image.fromarray(values), format))
    np.testing.assert_array_equal(loaded[0, :, 0], [0, 1, 128, 255])
    np.testing.assert_array_equal(loaded[..., 0], loaded[..., 2])


def test_thirty_two_bit_integers_are_taken_as_sixteen_or_refused():
    values = np.array([[0, 65535]], np.int32)
    np.testing.assert_array_equal(load_rgb(Image.fromarray(values))[0, :, 0], [0, 255])
    with pytest.raises(ValueError, match=r"reach from 0 to 70000, and 0 to 65535 is expected"):
        load_rgb(Image.fromarray(np.array([[0, 70000]], np.int32)))


def test_floats_go_from_0_to_1():
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(load_rgb(Image.fromarray(values))[0, :, 0], [0, 128, 255])
    for wrong in (255.0, -0.1, np.nan):
        with pytest.raises(ValueError, match="0 to 1 is expected"):
            load_rgb(Image.fromarray(np.array([[0.0, wrong]], np.float32)))


def test_cmyk_and_bilevel_are_converted():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow ink: red
    red = load_rgb(encoded(cmyk, "TIFF"))
    np.testing.assert_array_equal(red[0, 0], [255, 0, 0])
    bilevel = Image.new("1", (2, 2), 1)
    np.testing.assert_array_equal(load_rgb(encoded(bilevel)), np.full((2, 2, 3), 255))


@pytest.mark.parametrize("read", [load_rgb, check_image])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_images_are_found(read, format):
    data = encoded(Image.fromarray(noise(64, 64)), format)
    read(data)
    for part in (len(data) // 2, len(data) // 10):
        with pytest.raises(ValueError):
            read(data[:part])


def test_the_size_is_read_from_the_header_alone():
    data = encoded(Image.fromarray(noise(64, 48)))
    assert image_size(data[: len(data) // 10]) == (64, 48)


def test_damage_inside_a_png_is_found_without_decoding():
    data = bytearray(encoded(Image.fromarray(noise(64, 64))))
    data[len(data) // 2] ^= 1
    with pytest.raises(ValueError):
        check_image(bytes(data))


def test_a_jpeg_with_something_after_its_end_is_fine():
    data = encoded(Image.fromarray(noise(8, 8)), "JPEG")
    assert check_image(data + b"\0" * 20) == (8, 8)
    assert check_image(data + b"trailing words" * 20) == (8, 8)


def test_what_is_no_image_says_why(tmp_path):
    (tmp_path / "empty.png").touch()
    for read in (load_rgb, check_image, image_size):
        with pytest.raises(ValueError, match="empty"):
            read(tmp_path / "empty.png")
        with pytest.raises(ValueError, match="empty"):
            read(b"")
        with pytest.raises(ValueError, match="not an image"):
            read(b"some text")
        with pytest.raises(ValueError, match="folder"):
            read(tmp_path)
        with pytest.raises(MissingImageError, match="no such file"):
            read(tmp_path / "nothing.png")


# -------------------------------------------------------------------------------------------
# Geometry and scaling
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, resized, corner",
    # Worked out by hand from torchvision's rules; sizes as Pillow has them, width first.
    [
        ((100, 75), (85, 64), (10, 0)),  # int(85.33), round(10.5) is 10
        ((75, 103), (64, 87), (0, 12)),  # int(87.89), round(11.5) is 12
        ((64, 64), (64, 64), (0, 0)),
        ((640, 480), (85, 64), (10, 0)),
        ((30, 20), (96, 64), (16, 0)),  # enlarged
    ],
)
def test_a_square_is_cut_as_torchvision_does(size, resized, corner):
    image = Image.fromarray(noise(size[1], size[0]))
    reference = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = corner
    reference = np.array(reference)[top : top + 64, left : left + 64]
    np.testing.assert_array_equal(resize_and_crop(np.array(image), 64, 64), reference)


def test_a_box_that_is_not_square_is_covered_and_centred():
    image = Image.fromarray(noise(100, 100))
    reference = np.array(image.resize((96, 96), Image.Resampling.BILINEAR))[32:64]
    np.testing.assert_array_equal(resize_and_crop(np.array(image), 32, 96), reference)
    reference = np.array(image.resize((96, 96), Image.Resampling.BILINEAR))[:, 24:72]
    np.testing.assert_array_equal(resize_and_crop(np.array(image), 96, 48), reference)


@pytest.mark.parametrize("box", [(16, 16), (48, 16), (16, 48), (64, 80)])
def test_every_size_fills_every_box(box):
    for height in range(1, 70, 3):
        for width in range(1, 70, 3):
            assert resize_and_crop(noise(height, width), *box).shape == (*box, 3)


def test_pixels_go_from_minus_one_to_one_channels_first():
    image = noise(3, 5)
    values = to_float(image)
    assert values.dtype == np.float32 and values.shape == (3, 3, 5)
    assert values.flags.c_contiguous
    expected = (image.astype(np.float32) / 255 - 0.5) / 0.5  # ToTensor, Normalize
    np.testing.assert_array_equal(values, expected.transpose(2, 0, 1))
    assert to_float(np.full((1, 1, 3), 255, np.uint8)).max() == 1.0
    assert to_float(np.zeros((1, 1, 3), np.uint8)).min() == -1.0


def test_sizes_may_differ_and_shapes_may_not():
    assert same_aspect((512, 768), (1024, 1536))
    assert same_aspect((683, 1024), (43, 64))  # rounded to whole pixels
    assert same_aspect((1000, 1000), (1000, 1009))
    assert not same_aspect((1000, 1000), (1000, 1020))
    assert not same_aspect((512, 768), (768, 512))


def test_a_resolution_is_one_number_or_two():
    assert height_and_width(512) == (512, 512)
    assert height_and_width([512, 768]) == height_and_width((512, 768)) == (512, 768)
    for wrong in (0, -16, 100, [], [64, 64, 64], [64, 65], True, [64.0, 64]):
        with pytest.raises(UserError, match="multiple of 16"):
            height_and_width(wrong)


# -------------------------------------------------------------------------------------------
# Conditions
# -------------------------------------------------------------------------------------------


def test_canny_finds_the_edge_of_a_square():
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = 255
    edges = canny(image)
    assert edges.shape == image.shape and edges.dtype == np.uint8
    assert set(np.unique(edges)) == {0, 255}
    assert (edges[..., 0] == edges[..., 1]).all()
    rows, columns = np.nonzero(edges[..., 0])
    for places in (rows, columns):
        assert abs(places.min() - 16) <= 1 and abs(places.max() - 47) <= 1
    assert not edges[20:44, 20:44].any()


def test_gray_is_the_luminance():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 10, 10]]], np.uint8)
    expected = np.rint(np.array([0.299, 0.587, 0.114, 10 / 255]) * 255)  # ITU-R BT.601
    np.testing.assert_array_equal(gray(image), np.repeat(expected[None, :, None], 3, axis=2))


def test_blur_is_a_gaussian_with_a_sigma_of_a_64th():
    image = np.zeros((128, 256, 3), np.uint8)
    image[:, 128:] = 255
    blurred = blur(image).astype(float)
    # A blurred step is the normal distribution's integral: 84 % at one sigma (2 pixels).
    position = np.array([128 - 2.5, 128 - 0.5, 128 + 1.5]) + 0.5
    expected = 255 * np.array([0.1587, 0.5, 0.8413])
    measured = np.interp(position, np.arange(256) + 0.5, blurred[64, :, 0])
    np.testing.assert_allclose(measured, expected, atol=4)
    assert blurred[:, :100].max() == 0 and blurred[:, 160:].min() == 255


def test_without_opencv_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match=r"opencv-python-headless<4.12"):
        canny(noise(8, 8))
