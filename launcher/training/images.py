"""Images: read whatever a data set holds, bring it to the training size, make conditions.

    image = resize_and_crop(load_rgb("photo.jpg"), 512, 768)   # uint8 [512, 768, 3]
    pixels = to_float(image)                                   # float32 [3, 512, 768], -1 to 1
    edges = to_float(canny(image))                             # a control image for it

The geometry and the scaling are those of the diffusers training scripts, which use
torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize`; the numbers are equal, bit for
bit.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from launcher.training.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    Array: TypeAlias = NDArray[Any]
    ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image

#: Thresholds of the Canny edge detector, those of the diffusers ControlNet documentation.
CANNY_THRESHOLDS = (100, 200)
#: Standard deviation of `blur`, as a part of the image's shorter side: 8 pixels at 512.
BLUR_SIGMA = 1 / 64
#: Images of one row may differ by this much in aspect ratio (relative), or by what rounding
#: the smaller one to whole pixels explains.
ASPECT_TOLERANCE = 0.01

_EXIF_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_SIDEWAYS = (5, 6, 7, 8)  # the EXIF orientations that swap height and width
_JPEG_END = b"\xff\xd9"
# What Pillow raises for data that is not an image or only part of one.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


class MissingImageError(ValueError):
    """There is no image where one was expected."""


# -------------------------------------------------------------------------------------------
# Reading
# -------------------------------------------------------------------------------------------


def load_rgb(source: ImageSource) -> Array:
    """Decode an image to uint8 `[height, width, 3]`, upright, in RGB.

    The EXIF orientation is applied. Transparency (alpha channel, or a transparent colour) is
    laid over white. Greyscale becomes three equal channels. 16-bit values are scaled to 8 bits
    (65535 becomes 255), floats are taken as 0 to 1. CMYK and others are converted by Pillow;
    colour profiles are not applied. Of an animation, the first frame is taken.

    Args:
        source: path, content of a file, or a Pillow image.

    Raises:
        MissingImageError: there is no such file.
        ValueError: it cannot be decoded. Both say why, but not which.
    """
    from PIL import ImageOps

    with _open(source) as image, _reasons():
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


def check_image(source: ImageSource) -> tuple[int, int]:
    """Height and width of the upright image, after making sure that it can be decoded.

    Much cheaper than decoding for the usual formats: for PNG, the checksum of every chunk is
    verified (0.25 ms at 512 x 512); for JPEG, that the data reach the end marker (0.06 ms);
    WebP is complete if it opens. Everything else, and what fails these tests, is decoded.

    Raises:
        ValueError: as `load_rgb`.
    """
    with _open(source) as image, _reasons():
        size = _upright_size(image)
        if _passes_cheap_test(image):
            return size
    decoded = load_rgb(source)
    return decoded.shape[0], decoded.shape[1]


def image_size(source: ImageSource) -> tuple[int, int]:
    """Height and width of the upright image, from its header alone.

    Raises:
        ValueError: as `load_rgb`, as far as the header shows it.
    """
    with _open(source) as image, _reasons():
        return _upright_size(image)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    from PIL import Image

    width, height = image.size
    if image.format == "TIFF":  # its size may or may not be turned already: as stored, by its tags
        tags = image.tag_v2
        width, height = tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT]
    # Not image.getexif(): for PNG that decodes the pixels first.
    if Image.Image.getexif(image).get(_EXIF_ORIENTATION) in _SIDEWAYS:
        width, height = height, width
    return height, width


def _passes_cheap_test(image: Image.Image) -> bool:
    """Whether the image is certain to decode; False means that only decoding can tell."""
    stream = getattr(image, "fp", None)
    if image.format == "PNG" and stream is not None:
        try:
            image.verify()
        except _DECODING_ERRORS:
            return False
        return True
    if image.format == "JPEG" and stream is not None:
        stream.seek(-min(64, stream.seek(0, os.SEEK_END)), os.SEEK_END)
        return bool(stream.read().rstrip(b"\0\r\n ").endswith(_JPEG_END))
    return image.format == "WEBP"


def _open(source: ImageSource) -> Image.Image:
    from PIL import Image

    if isinstance(source, Image.Image):
        return source.copy()  # the caller closes what it gets
    with _reasons():
        if isinstance(source, bytes):
            if not source:
                raise ValueError("it is empty (0 bytes)")
            return Image.open(io.BytesIO(source))
        if os.path.isdir(source):
            raise ValueError("it is a folder, not a file")
        if not os.path.exists(source):
            raise MissingImageError("there is no such file")
        if os.path.getsize(source) == 0:
            raise ValueError("it is empty (0 bytes)")
        return Image.open(source)


class _reasons:
    """Turns what Pillow raises into a ValueError with a reason that can be shown."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: Any, _: object) -> None:
        from PIL import Image, UnidentifiedImageError

        if error is None or isinstance(error, MissingImageError):
            return
        if isinstance(error, UnidentifiedImageError):
            raise ValueError("it is not an image, or damaged beyond recognition") from error
        if isinstance(error, PermissionError):
            raise ValueError("it cannot be read: permission denied") from error
        if isinstance(error, (*_DECODING_ERRORS, Image.DecompressionBombError)):
            raise ValueError(str(error) or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Array:
    from PIL import Image

    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"its integer pixels reach from {values.min()} to {values.max()}, and 0 to 65535 "
                "is expected; save it with 8 or 16 bits a channel"
            )
        return _grey_to_rgb(values / 65535.0)
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0.0 and values.max() <= 1.0):  # written so that NaN fails
            raise ValueError(
                f"its floating-point pixels reach from {values.min():g} to {values.max():g}, and "
                "0 to 1 is expected; save it with 8 or 16 bits a channel"
            )
        return _grey_to_rgb(values.astype(np.float64))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return np.array(image.convert("RGB"))


def _grey_to_rgb(values: Array) -> Array:
    grey = np.rint(values * 255.0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


# -------------------------------------------------------------------------------------------
# Geometry and scaling
# -------------------------------------------------------------------------------------------


def resize_and_crop(image: Array, height: int, width: int) -> Array:
    """Scale an image until it just covers `[height, width]`, then cut out the centre.

    For a square this is torchvision's `Resize(side, BILINEAR)` and `CenterCrop(side)` on a
    Pillow image, with its rounding: the longer side becomes int(side * long / short), and the
    crop begins at round(excess / 2), where a half goes to the even number.

    Args:
        image: uint8 `[H, W, 3]`.

    Returns:
        uint8 `[height, width, 3]`.
    """
    from PIL import Image

    old_height, old_width = image.shape[:2]
    if height * old_width >= width * old_height:  # the image is wider than the box
        new_height, new_width = height, int(height * old_width / old_height)
    else:
        new_height, new_width = int(width * old_height / old_width), width
    top = round((new_height - height) / 2.0)
    left = round((new_width - width) / 2.0)
    picture = Image.fromarray(image)
    if (new_height, new_width) != (old_height, old_width):
        picture = picture.resize((new_width, new_height), Image.Resampling.BILINEAR)
    return np.array(picture.crop((left, top, left + width, top + height)))


def to_float(image: Array) -> Array:
    """uint8 `[H, W, 3]` to float32 `[3, H, W]` in [-1, 1] (`ToTensor`, `Normalize(0.5, 0.5)`)."""
    values = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
    return (values / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def write_png(path: Path, image: Image.Image, note: PngInfo | None = None) -> None:
    """Put an image in place, whole or not at all; one that is there is replaced.

    Args:
        note: texts that go into the file.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        image.save(partial, format="PNG", pnginfo=note)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two images, given by height and width, show the same after `resize_and_crop`.

    They may differ in size. Their aspect ratios may differ by 1 %, which moves the content at
    the crop's edge by at most 1/200 of its side, or by one pixel of the smaller image, which
    whole numbers of pixels can make necessary.
    """
    ratio = (one[0] * other[1]) / (one[1] * other[0])
    tolerance = max(ASPECT_TOLERANCE, 1 / min(*one, *other))
    return max(ratio, 1 / ratio) <= 1 + tolerance


def height_and_width(resolution: int | Sequence[int], multiple: int = 16) -> tuple[int, int]:
    """The two sides meant by a `resolution` option: one number for a square, or two.

    Raises:
        UserError: not one or two positive multiples of `multiple`. (FLUX: the VAE reduces by
            8, and the latents are packed in patches of 2.)
    """
    sides = (resolution,) if isinstance(resolution, int) else tuple(resolution)
    if (
        len(sides) not in (1, 2)
        or any(isinstance(side, bool) or not isinstance(side, int) for side in sides)
        or any(side <= 0 or side % multiple for side in sides)
    ):
        raise UserError(
            f"resolution is {resolution!r}, and must be one number or [height, width], each a "
            f"positive multiple of {multiple}."
        )
    return sides[0], sides[-1]


# -------------------------------------------------------------------------------------------
# Conditions made from the image itself
# -------------------------------------------------------------------------------------------
#
# To be applied after `resize_and_crop`: edges found at the training resolution are sharp, edges
# that are scaled afterwards are not.


def canny(image: Array) -> Array:
    """Edges, white on black: `cv2.Canny(image, 100, 200)`. uint8 `[H, W, 3]` both ways."""
    edges = _opencv().Canny(image, *CANNY_THRESHOLDS)
    return np.repeat(edges[..., None], 3, axis=2)


def gray(image: Array) -> Array:
    """Luminance in three equal channels (0.299 R + 0.587 G + 0.114 B). uint8 `[H, W, 3]`."""
    cv2 = _opencv()
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def blur(image: Array) -> Array:
    """Gaussian blur with a sigma of 1/64 of the shorter side. uint8 `[H, W, 3]` both ways."""
    sigma = min(image.shape[:2]) * BLUR_SIGMA
    return np.asarray(_opencv().GaussianBlur(image, (0, 0), sigma))


#: Conditions by the name that the `conditioning` option gives them.
CONDITIONS: dict[str, Callable[[Array], Array]] = {
    "canny": canny,
    "gray": gray,
    "blur": blur,
}


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"conditions made on the fly need OpenCV, which cannot be imported ({error}). "
            "Install it with `pip install --no-deps --force-reinstall "
            "'opencv-python-headless<4.12'`; newer ones need numpy 2, which MindONE does not take."
        ) from error
    return cv2
