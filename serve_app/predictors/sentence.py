"""Sentence embeddings: tokeniser, transformer, pooling."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tokenizers
import torch

from serve_app.domain.tensor import BYTES, Array, TensorSpec
from serve_app.errors import InvalidInput, PredictorError
from serve_app.predictors.encoder import Encoder, Rows, read_encoder
from serve_app.predictors.grouping import (
    GROUPS,
    UNPADDED,
    WHOLE,
    Way,
    fastest,
    passes,
    synthetic_rows,
)
from serve_app.predictors.predictor import LoadContext, Predictor
from serve_app.predictors.torch_tensor import use_threads

TOKENS = "tokens"
"""Name of the optional output that counts each text's tokens."""

AUTO = "auto"

LONGEST_TOKEN = 128
"""Characters per token beyond which a text is cut before it is tokenised."""


class SentenceEmbedding(Predictor):
    """Embeds texts with a transformer from a local folder; nothing is downloaded.

    The one input is BYTES [-1] (UTF-8). The one floating-point output is the embedding; a second
    output named `tokens` (an integer, [-1]) gets the number of tokens of each text, the special
    ones included.

    A batch padded to its longest text would spend most of its time on padding. So texts are
    computed without padding where the transformer allows it, else in groups of similar length;
    which is the fastest is measured when the predictor loads. Tokenising is part of `predict`, so
    it happens in the thread that computes and never on an event loop.

    Args:
        pooling: ``mean`` over all tokens, or ``cls`` for the first one.
        normalize: scale each embedding to length 1.
        max_tokens: longer texts are cut; so are those of more than 128 times as many characters.
        group_rows: ``auto`` measures what is fastest; a number of texts computes so many together,
            after sorting by length, padded to the longest of them; null computes a batch in its
            order of arrival, padded to its longest text.
    """

    def __init__(
        self,
        pooling: str = "mean",
        normalize: bool = True,
        max_tokens: int = 256,
        group_rows: int | str | None = "auto",
    ) -> None:
        if pooling not in ("mean", "cls"):
            raise PredictorError(f"pooling: {pooling!r} is not one of mean, cls")
        if max_tokens < 3:
            raise PredictorError("max_tokens: must be at least 3")
        if isinstance(group_rows, str) and group_rows != AUTO:
            raise PredictorError(f"group_rows: {group_rows!r} is not a number, auto or null")
        if isinstance(group_rows, int) and group_rows < 1:
            raise PredictorError("group_rows: must be at least 1, auto or null")
        self._pooling, self._normalize = pooling, normalize
        self._max_tokens = max_tokens
        self._way: Way = WHOLE if group_rows is None else group_rows
        self._packed = False
        self._encoder: Encoder | None = None

    def load(self, context: LoadContext) -> None:
        """Reads tokeniser and weights."""
        self._check_signature(context)
        use_threads(context.threads)
        # Tokenising is 1 % of the work, and one pool of threads per process is enough.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        folder = context.artifact
        if folder is None or not folder.is_dir():
            raise PredictorError("this predictor needs an artifact that is a folder")
        self._tokenizer = self._read_tokenizer(folder)
        device = torch.device(context.device)
        encoder = read_encoder(folder, device, self._pooling, self._normalize)
        limit = encoder.longest
        if limit is not None and self._max_tokens > limit:
            raise PredictorError(f"max_tokens: the model takes at most {limit}")
        self._encoder = encoder
        self._packed = encoder.try_packed(self._max_tokens)
        if self._way == AUTO:
            self._way = self._fastest_way(encoder)

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Embeds a batch of texts."""
        encoder = self._encoder
        if encoder is None:
            raise PredictorError("not loaded")
        # The tokeniser encodes a whole text before it truncates: 0.4 s and 200 MB per MB. Language
        # has 3 to 6 characters per token; BERT takes a word of more than 100 for one unknown token.
        # So what is cut here is never read, unless the text is mostly blanks or endless words.
        longest = self._max_tokens * LONGEST_TOKEN
        texts = [text[:longest] for text in _decoded(inputs[self._input], self._input)]
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        outputs = {self._embedding.name: _embedded(encoder, rows, self._way)}
        if self._counts is not None:
            outputs[TOKENS] = np.array(list(map(len, rows)), self._counts.dtype)
        return outputs

    def take_padding(self) -> tuple[int, int]:
        """See `Predictor`."""
        return (0, 0) if self._encoder is None else self._encoder.take_counts()

    @property
    def metadata(self) -> Mapping[str, str]:
        """How texts are grouped, and whether the weights are packed for the CPU's library."""
        return {"group_rows": str(self._way), "packed_weights": str(self._packed).lower()}

    def close(self) -> None:
        """Frees the weights."""
        self._encoder = None

    def _check_signature(self, context: LoadContext) -> None:
        if len(context.inputs) != 1 or context.inputs[0].datatype != BYTES:
            raise PredictorError("an embedding model declares one input of datatype BYTES")
        self._input = context.inputs[0].name
        counts = [spec for spec in context.outputs if spec.name == TOKENS]
        others = [spec for spec in context.outputs if spec.name != TOKENS]
        if len(others) != 1 or others[0].datatype != "FP32":
            raise PredictorError("an embedding model declares one output of datatype FP32")
        if counts and counts[0].dtype.kind not in "iu":
            raise PredictorError(f"output {TOKENS!r} counts: declare it INT32")
        self._embedding: TensorSpec = others[0]
        self._counts: TensorSpec | None = counts[0] if counts else None

    def _read_tokenizer(self, folder: Path) -> tokenizers.Tokenizer:
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as exc:  # the library raises bare Exception
            raise PredictorError(f"tokenizer.json is missing or not readable: {exc}") from exc
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._max_tokens)
        return tokenizer

    def _fastest_way(self, encoder: Encoder) -> Way:
        ways = ((UNPADDED,) if encoder.try_unpadded(self._max_tokens) else ()) + GROUPS
        rows = synthetic_rows(encoder.vocabulary, self._max_tokens)
        return fastest(ways, lambda way: _embedded(encoder, rows, way), encoder.clock)


def _embedded(encoder: Encoder, rows: Rows, way: Way) -> Array:
    """One vector per row, in order."""
    compute = encoder.unpadded if way == UNPADDED else encoder.padded
    embedded: Array | None = None
    for numbers in passes(rows, way):
        vectors = compute([rows[number] for number in numbers])
        if embedded is None:
            embedded = np.empty((len(rows), vectors.shape[1]), np.float32)
        embedded[numbers] = vectors
    if embedded is None:
        raise PredictorError("a batch without rows")
    return embedded


def _decoded(array: Array, name: str) -> list[str]:
    texts = []
    for row, value in enumerate(array.tolist()):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError as exc:
            field = f"{name}[{row}]"
            raise InvalidInput(f"{field} is not valid UTF-8", field) from exc
    return texts
