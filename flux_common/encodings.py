"""Which encodings a FLUX run needs, and the key of each.

A key is a hash of all that the encoding depends on: the caption or the image as it is stored, how
that image is brought to size, the encoder's weights and configuration, what it is kept in and
computes in, and the dtype that the encoding is kept in. Nothing else goes into it, so that runs
which differ in anything else share their encodings.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.training import digests, weights
from launcher.training.precision import asked, signature

if TYPE_CHECKING:
    import numpy as np

    from launcher.training.dataset import ImageTextTable

#: Changed whenever the same input comes to be encoded otherwise.
VERSION = 1

#: How `launcher.training.images.resize_and_crop` and `to_float` bring an image to size.
RESIZED = "cover bilinear, centre crop, -1 to 1"


@dataclass(frozen=True)
class Images:
    """The images of one column.

    Attributes:
        digests: uint8 `[N, 32]`, of the images as they are stored.
        transform: what is done to them, in words, besides the size.
        sizes: integers `[N, 2]`, height and width in pixels at which each row is trained on.
        read: row to the image, float32 `[3, height, width]` in [-1, 1].
    """

    digests: np.ndarray
    transform: str
    sizes: np.ndarray
    read: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return len(self.digests)


def stored_images(
    table: ImageTextTable,
    column: str,
    sizes: np.ndarray,
    read: Callable[[int], np.ndarray],
    memory: Path | None,
    transform: str = RESIZED,
) -> Images:
    """The images of a table's column, known by what is stored there.

    Args:
        sizes, read, transform: see `Images`.
        memory: folder to remember the digests of files in.
    """
    import numpy as np

    found = np.empty((len(table), 32), np.uint8)
    with digests.remembered(memory, f"{os.path.abspath(table.table.label)} {column}") as digest:
        for row in range(len(table)):
            found[row] = np.frombuffer(table.digest(row, column, digest), np.uint8)
    return Images(found, transform, sizes, read)


def made_images(count: int, read: Callable[[int], np.ndarray]) -> Images:
    """Images that nobody can say of how they are made, known by their pixels: each is made once
    more than otherwise, whenever a run starts.

    Args:
        count: how many.
        read: see `Images`.
    """
    import numpy as np

    found = np.empty((count, 32), np.uint8)
    sizes = np.empty((count, 2), np.int64)
    for row in range(count):
        pixels = read(row)
        sizes[row] = pixels.shape[1:]
        found[row] = np.frombuffer(hashlib.sha256(pixels.tobytes()).digest(), np.uint8)
    return Images(found, "by its pixels", sizes, read)


class FluxEncodings:
    """The encodings of a data set, by caption and by column and row.

    Args:
        models: tokenizers, T5, VAE, and CLIP unless it runs in the training step; without values.
        captions: every caption, perhaps several times; gone through anew each time.
        images: by the name of their column.
        max_sequence_length: T5 tokens per caption.
        network: what takes the text embeddings, which are kept in the dtype of its inputs.
        memory: folder to remember the digests of weights in.
        prompts: captions of no sample, whose embeddings are needed, too.

    Attributes:
        text_dtype, image_dtype: numpy dtypes that encodings are kept in.
        shift_factor, scaling_factor: of the VAE's latents.
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        captions: Callable[[], Iterable[str]],
        images: Mapping[str, Images],
        *,
        max_sequence_length: int,
        network: Any,
        memory: Path | None,
        prompts: Sequence[str] = (),
    ) -> None:
        self.captions = captions
        self.prompts = prompts
        self.images = images
        self.max_sequence_length = max_sequence_length
        self.text_dtype = input_dtype(network)
        self.image_dtype = input_dtype(models["vae"])
        config = models["vae"].config
        self.shift_factor = float(config.shift_factor)
        self.scaling_factor = float(config.scaling_factor)
        self._text = _context(
            text_encoder_2=part_digest(models["text_encoder_2"], memory),
            text_encoder=part_digest(models.get("text_encoder"), memory),
            tokenizers=[tokenizer_digest(models[name]) for name in ("tokenizer", "tokenizer_2")],
            max_sequence_length=max_sequence_length,
            dtype=str(self.text_dtype),
        )
        self._vae = part_digest(models["vae"], memory)
        self._image_contexts: dict[tuple[str, int, int], bytes] = {}

    def text(self, caption: str) -> bytes:
        """The key of a caption's embeddings."""
        return hashlib.sha256(self._text + caption.encode()).digest()

    def image(self, column: str, row: int) -> bytes:
        """The key of an image's moments."""
        images = self.images[column]
        context = self._image_context(images.transform, *map(int, images.sizes[row]))
        return hashlib.sha256(context + images.digests[row].tobytes()).digest()

    def distinct_captions(self) -> list[str]:
        """In the order in which they first occur."""
        return list(dict.fromkeys([*self.captions(), *self.prompts]))

    def keys(self) -> np.ndarray:
        """uint8 `[N, 32]`, each once."""
        return self._keys(self.distinct_captions())

    def text_keys(self) -> np.ndarray:
        """Those of captions and prompts."""
        from launcher.training.cache.index import as_keys

        return as_keys([self.text(caption) for caption in self.distinct_captions()])

    def data_keys(self) -> np.ndarray:
        """Those of the data set: all but what is only in `prompts`."""
        return self._keys(list(dict.fromkeys(self.captions())))

    def _keys(self, captions: Sequence[str]) -> np.ndarray:
        import numpy as np

        from launcher.training.cache.index import as_keys

        texts = as_keys([self.text(caption) for caption in captions])
        groups = [keys for keys, _, _ in self.image_groups()]
        return np.concatenate([texts, *groups])

    def image_groups(self) -> Iterator[tuple[np.ndarray, list[str], np.ndarray]]:
        """The images of each size, each image once.

        Yields:
            Keys, uint8 `[N, 32]`; the names of the columns; and where each image is, int64
            `[N, 2]`: position of its column, row.
        """
        import numpy as np

        from launcher.training.cache.index import as_keys

        columns = list(self.images)
        places = np.concatenate(
            [
                np.stack([np.full(len(images), number), np.arange(len(images))], axis=1)
                for number, images in enumerate(self.images.values())
            ]
        )
        sizes = np.concatenate([images.sizes for images in self.images.values()])
        # Row by row, so that what is read together is kept together.
        order = np.lexsort((places[:, 0], places[:, 1]))
        places, sizes = places[order], sizes[order]
        for size in np.unique(sizes, axis=0):
            here = places[(sizes == size).all(axis=1)]
            keys = as_keys([self.image(columns[column], int(row)) for column, row in here])
            _, first = np.unique(keys.view("V32").ravel(), return_index=True)
            first.sort()
            yield keys[first], columns, here[first]

    def _image_context(self, transform: str, height: int, width: int) -> bytes:
        wanted = (transform, height, width)
        if wanted not in self._image_contexts:
            self._image_contexts[wanted] = _context(
                vae=self._vae,
                transform=transform,
                size=[height, width],
                dtype=str(self.image_dtype),
            )
        return self._image_contexts[wanted]


def plan(
    config: Any,
    models: Mapping[str, Any],
    networks: Mapping[str, Any],
    captions: Callable[[bool], Iterable[str]],
    images: Callable[[Path], Mapping[str, Images]],
    prompts: Sequence[str] = (),
) -> FluxEncodings:
    """The encodings of a FLUX run.

    Args:
        config: with the sections `data` and `loss`.
        models, networks: the parts of both stages, cast, without values.
        captions: whether the empty one is needed, to every caption, perhaps several times.
        images: folder to remember digests in, to the images by column.
        prompts: captions of no sample, such as those that validations make images of.
    """
    data, with_empty_prompt = config.data, config.loss.proportion_empty_prompts > 0
    return FluxEncodings(
        models,
        lambda: captions(with_empty_prompt),
        images(data.digests_dir),
        max_sequence_length=data.max_sequence_length,
        network=networks["transformer"],
        memory=data.digests_dir,
        prompts=prompts,
    )


def all_captions(dataset: Any, with_empty_prompt: bool) -> Iterator[str]:
    """Every caption of a data set's samples, and the empty one, if it is needed."""
    for index in range(len(dataset)):
        yield from dataset.captions(index)
    if with_empty_prompt:
        yield ""


def part_digest(model: Any | None, memory: Path | None) -> str | None:
    """What a model is: its class, weights and configuration, and how it is cast.

    Args:
        model: read from files, or to be; one that was made otherwise must have its values.
        memory: folder for the digests of files.
    """
    if model is None:
        return None
    origin = weights.origin_of(model)
    if origin is None:
        value = hashlib.sha256()
        for name, parameter in model.parameters_and_names():
            value.update(name.encode())
            value.update(weights.as_float32(parameter).tobytes())
        files, config = [value.hexdigest()], {}
    else:
        files = [digest.hex() for digest in digests.of_files(memory, origin.files)]
        config = {k: v for k, v in origin.config.items() if k not in _BESIDE_THE_POINT}
    return _context(
        kind=type(model).__name__,
        weights=files,
        config=config,
        precision=signature(model),
    ).hex()


#: Entries of config.json that say who wrote it, or in what dtype the file is.
_BESIDE_THE_POINT = (
    "_name_or_path", "_diffusers_version", "transformers_version", "torch_dtype", "dtype",
)  # fmt: skip


def tokenizer_digest(tokenizer: Any) -> str:
    """Of its vocabulary and rules."""
    rules = tokenizer.backend_tokenizer.to_str()
    text = json.dumps([rules, tokenizer.model_max_length, tokenizer.pad_token])
    return hashlib.sha256(text.encode()).hexdigest()


def input_dtype(model: Any) -> np.dtype:
    """numpy's name for the dtype that a model takes its inputs in, and that they are kept in: what
    it was asked to compute in, as far as it was; else that of its own parameters, to which adapters
    are added at the end."""
    note = asked(model)
    if note is not None:
        import ml_dtypes
        import numpy as np

        name = note.computation
        return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    return weights.numpy_dtype(next(iter(model.get_parameters())))


def _context(**parts: Any) -> bytes:
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).digest()
