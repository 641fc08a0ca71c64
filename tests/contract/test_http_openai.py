"""openai-python, unmodified, against the real listener."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.contract.live_http import LiveServer, live_server


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server() as made:
        yield made


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def test_embeddings_in_the_form_that_the_client_asks_for_by_itself(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="minilm", input=["abc", "é"])
    assert [each.index for each in answer.data] == [0, 1]
    assert answer.data[0].embedding == [1.0, 1.0, 1.0, 1.0]
    assert answer.data[1].embedding == pytest.approx([2 / 3] * 4)
    assert answer.usage.prompt_tokens == 5
    assert answer.model == "minilm"


def test_embeddings_as_floats_of_one_text(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="minilm", input="abcdef", encoding_format="float")
    assert answer.data[0].embedding == [2.0, 2.0, 2.0, 2.0]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["minilm"]
    assert client.models.retrieve("minilm").object == "model"


def test_errors_become_the_client_s_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="no", input="a")
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="minilm", input=[[1, 2, 3]])
    assert refused.value.param == "input"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.embeddings.create(model="minilm", input="a", dimensions=7)
    assert wrong.value.param == "dimensions"


def test_what_passes_is_tried_again_and_what_does_not_is_not(server: LiveServer) -> None:
    before = len(server.telemetry.finished)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=2) as client:
        server.gateway.delay_s = 0.3
        try:
            with pytest.raises(openai.APIStatusError) as late:
                client.embeddings.create(
                    model="minilm", input="a", extra_headers={"x-request-timeout-ms": "20"}
                )
        finally:
            server.gateway.delay_s = 0.0
    assert late.value.status_code == 504
    assert len(server.telemetry.finished) - before == 1
