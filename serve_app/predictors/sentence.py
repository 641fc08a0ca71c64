"""Sentence embeddings: tokeniser, transformer, pooling."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import tokenizers
import torch
from torch.nn.functional import normalize as unit_length

from serve_app.domain.tensor import BYTES, Array, TensorSpec
from serve_app.errors import InvalidInput, PredictorError
from serve_app.predictors.predictor import LoadContext, Predictor
from serve_app.predictors.torch_tensor import use_threads

TOKENS = "tokens"
"""Name of the optional output that counts each text's tokens."""

LONGEST_TOKEN = 128
"""Characters per token beyond which a text is cut before it is tokenised."""


class SentenceEmbedding(Predictor):
    """Embeds texts with a transformer from a local folder; nothing is downloaded.

    The one input is BYTES [-1] (UTF-8). The one floating-point output is the embedding; a second
    output named `tokens` (an integer, [-1]) gets the number of tokens of each text, the special
    ones included.

    Texts of similar length are computed together: a batch padded to its longest text would spend
    most of its time on padding.

    Args:
        pooling: ``mean`` over all tokens, or ``cls`` for the first one.
        normalize: scale each embedding to length 1.
        max_tokens: longer texts are cut; so are those of more than 128 times as many characters.
        group_rows: texts computed together, after sorting by length; null computes a batch in
            its order of arrival, padded to its longest text.
    """

    def __init__(
        self,
        pooling: str = "mean",
        normalize: bool = True,
        max_tokens: int = 256,
        group_rows: int | None = 8,
    ) -> None:
        if pooling not in ("mean", "cls"):
            raise PredictorError(f"pooling: {pooling!r} is not one of mean, cls")
        if max_tokens < 3:
            raise PredictorError("max_tokens: must be at least 3")
        if group_rows is not None and group_rows < 1:
            raise PredictorError("group_rows: must be at least 1, or null")
        self._pooling, self._normalize = pooling, normalize
        self._max_tokens, self._group_rows = max_tokens, group_rows
        self._model: Any = None

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
        self._device = torch.device(context.device)
        self._model = _read_model(folder).to(self._device).eval().requires_grad_(False)
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if limit is not None and self._max_tokens > limit:
            raise PredictorError(f"max_tokens: the model takes at most {limit}")
        self._pad = int(self._model.config.pad_token_id or 0)

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Embeds a batch of texts."""
        if self._model is None:
            raise PredictorError("not loaded")
        # The tokeniser encodes a whole text before it truncates: 0.4 s and 200 MB per MB. Language
        # has 3 to 6 characters per token; BERT takes a word of more than 100 for one unknown token.
        # So what is cut here is never read, unless the text is mostly blanks or endless words.
        longest = self._max_tokens * LONGEST_TOKEN
        texts = [text[:longest] for text in _decoded(inputs[self._input], self._input)]
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        embedded: Array | None = None
        for group in self._groups(rows):
            vectors = self._embed([rows[row] for row in group])
            if embedded is None:
                embedded = np.empty((len(rows), vectors.shape[1]), np.float32)
            embedded[group] = vectors
        if embedded is None:
            raise PredictorError("a batch without rows")
        outputs = {self._embedding.name: embedded}
        if self._counts is not None:
            outputs[TOKENS] = np.array(list(map(len, rows)), self._counts.dtype)
        return outputs

    def close(self) -> None:
        """Frees the weights."""
        self._model = None

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

    def _groups(self, rows: list[list[int]]) -> Iterator[list[int]]:
        """Row numbers that are computed together."""
        if self._group_rows is None:
            yield list(range(len(rows)))
            return
        by_length = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        for start in range(0, len(rows), self._group_rows):
            yield by_length[start : start + self._group_rows]

    def _embed(self, rows: list[list[int]]) -> Array:
        """Computes rows together, padded to the longest of them."""
        width = max(map(len, rows))
        ids = np.full((len(rows), width), self._pad, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for position, row in enumerate(rows):
            ids[position, : len(row)] = row
            mask[position, : len(row)] = 1
        with torch.inference_mode():
            weights = torch.from_numpy(mask).to(self._device)
            hidden = self._model(
                input_ids=torch.from_numpy(ids).to(self._device), attention_mask=weights
            ).last_hidden_state
            vectors = hidden[:, 0] if self._pooling == "cls" else _mean(hidden, weights)
            if self._normalize:
                vectors = unit_length(vectors, dim=1)
            array: Array = vectors.float().cpu().numpy()
            return array


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens that are no padding."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _decoded(array: Array, name: str) -> list[str]:
    texts = []
    for row, value in enumerate(array.tolist()):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError as exc:
            field = f"{name}[{row}]"
            raise InvalidInput(f"{field} is not valid UTF-8", field) from exc
    return texts


def _read_model(folder: Path) -> Any:
    """Loads the transformer: from this folder, safetensors only, no code from the folder."""
    import transformers  # costs 2 s, so not at import of this module

    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model, report = transformers.AutoModel.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, safetensors.SafetensorError) as exc:
        raise PredictorError(f"the transformer could not be read: {exc}") from exc
    # A pooler that was not trained is not used here; anything else missing would be random.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise PredictorError(f"the weights lack {', '.join(missing[:5])}")
    return model
