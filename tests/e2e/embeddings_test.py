"""Embeddings through the real ollama and openai clients."""

import math

import ollama
import openai
import pytest
from conftest import MODEL

TEXTS = ["The cat sits on the mat.", "A dog barks.", "Paris is the capital of France."]


@pytest.fixture
def ollama_client(server):
    return ollama.Client(host=server.url)


@pytest.fixture
def openai_client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="any", max_retries=0)


def cosine(a, b):
    product = sum(x * y for x, y in zip(a, b))
    return product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_ollama_embeds_one_or_many_alike(ollama_client):
    many = ollama_client.embed(MODEL, TEXTS)
    assert len(many.embeddings) == 3 and many.prompt_eval_count > 3 and many.total_duration > 0
    for text, vector in zip(TEXTS, many.embeddings):
        assert abs(sum(x * x for x in vector) - 1) < 1e-5
        assert ollama_client.embed(MODEL, text).embeddings[0] == vector
    assert cosine(many.embeddings[0], many.embeddings[1]) < 0.9999


def test_ollama_truncates_and_refuses(ollama_client):
    text = "word " * 3000
    assert ollama_client.embed(MODEL, text).prompt_eval_count == 2048
    with pytest.raises(ollama.ResponseError) as refused:
        ollama_client.embed(MODEL, text, truncate=False)
    assert refused.value.status_code == 400 and "context length" in refused.value.error


def test_older_endpoint_does_not_normalise(ollama_client):
    vector = ollama_client.embeddings(MODEL, TEXTS[0]).embedding
    assert abs(sum(x * x for x in vector) - 1) > 1e-3
    assert cosine(vector, ollama_client.embed(MODEL, TEXTS[0]).embeddings[0]) > 0.999999


def test_openai_floats_base64_and_tokens(openai_client, server):
    # The client asks for base64 unless it is told otherwise.
    packed = openai_client.embeddings.create(model=MODEL, input=TEXTS)
    plain = openai_client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1, 2]
    for a, b in zip(packed.data, plain.data):
        assert a.embedding == pytest.approx(b.embedding, abs=1e-7)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 3
    _, _, tokenized = server.request(
        "POST", "/api/tokenize", {"model": MODEL, "text": TEXTS[0], "add_special": True}
    )
    by_tokens = openai_client.embeddings.create(model=MODEL, input=tokenized["tokens"])
    assert by_tokens.data[0].embedding == packed.data[0].embedding
    short = openai_client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=8)
    assert len(short.data[0].embedding) == 8
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        openai_client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=100_000)


def test_a_chat_model_does_not_rerank(server):
    status, _, body = server.request(
        "POST", "/v1/rerank", {"model": MODEL, "query": "q", "documents": TEXTS}
    )
    assert status == 400 and "cls.output.weight" in body["error"]["message"]
