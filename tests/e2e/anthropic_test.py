"""The real anthropic client against `dsctl serve`."""

import anthropic
import pytest
from conftest import MODEL

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(server):
    return anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0)


# The newest client has no argument for it.
GREEDY = {"temperature": 0}


def ask(client, **more):
    arguments = {"model": MODEL, "max_tokens": 16, "messages": QUESTION, "extra_body": GREEDY}
    return client.messages.create(**(arguments | more))


def test_whole_message(client):
    message = ask(client, system="You are terse.")
    assert message.type == "message" and message.role == "assistant" and message.model == MODEL
    assert [block.type for block in message.content] == ["text"] and message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    usage = message.usage
    assert usage.input_tokens + usage.cache_read_input_tokens > 10
    assert 0 < usage.output_tokens <= 16


def test_streamed_message_agrees_with_the_whole_one(client):
    whole = ask(client)
    with client.messages.stream(
        model=MODEL, max_tokens=16, messages=QUESTION, extra_body=GREEDY
    ) as stream:
        names = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    raw = [name for name in names if name != "text"]
    assert raw[:2] == ["message_start", "content_block_start"]
    assert raw[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(raw[2:-3]) <= {"content_block_delta", "ping"}


def test_stop_sequence_and_limit(client):
    text = ask(client).content[0].text
    stop = text.split()[1]
    stopped = ask(client, stop_sequences=[stop])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == stop
    assert stopped.content[0].text == text.split(stop)[0]
    cut = ask(client, max_tokens=2)
    assert cut.stop_reason == "max_tokens" and cut.usage.output_tokens == 2


def test_continuing_a_begun_answer(client):
    begun = [*QUESTION, {"role": "assistant", "content": "The capital of France is"}]
    assert "Paris" in ask(client, messages=begun).content[0].text


def test_counting_tokens(client):
    counted = client.messages.count_tokens(model=MODEL, messages=QUESTION)
    usage = ask(client).usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_errors(client):
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(client, model="nobody")
    assert missing.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        ask(client, extra_body={"temperature": 9})
    with pytest.raises(anthropic.BadRequestError, match="image"):
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
        ask(client, messages=[{"role": "user", "content": [image]}])
