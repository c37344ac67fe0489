"""Encodings made by hand, for tests of what reads them."""

import numpy as np

from flux_common.collate import Encoded


class Kept(dict):
    """Stands for a cache and for the `FluxEncodings` that know its keys, which here are tuples."""

    shift_factor = 0.1
    scaling_factor = 0.4

    def get(self, key):
        return self[key]

    def text(self, caption):
        return "text", caption

    def image(self, column, row):
        return column, row

    def put_text(self, caption, number, second, length):
        """Embeddings full of a number; the second of them by its name and length."""
        dtype = np.int32 if second == "clip_input_ids" else np.float32
        self[self.text(caption)] = {
            "prompt_embeds": np.full((5, 2), number, np.float32),
            second: np.full(length, number, dtype),
        }

    def put_image(self, column, row, rng, height=4, width=6):
        """The moments of an image of so many latents."""
        moments = rng.standard_normal((8, height, width)).astype(np.float32)
        self[self.image(column, row)] = {"moments": moments}

    def encoded(self):
        return Encoded(self, self)
