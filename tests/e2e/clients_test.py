"""The real ollama and openai clients against `dsctl serve`."""

import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time

import ollama
import openai
import pytest
from conftest import MODEL, MODEL_FILE, PROGRAM

GREEDY = {"temperature": 0, "num_predict": 16}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def ollama_client(server):
    return ollama.Client(host=server.url)


@pytest.fixture
def openai_client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="any", max_retries=0)


def eventually(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


def test_ollama_lists_and_shows(ollama_client):
    models = ollama_client.list().models
    assert [model.model for model in models] == [f"{MODEL}:latest"]
    assert models[0].details.quantization_level == "Q4_1"
    assert models[0].size > 50_000_000
    shown = ollama_client.show(MODEL)
    assert shown.details.family == "llama"
    assert "completion" in shown.capabilities
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.parameters and "num_ctx" in shown.parameters


def test_ollama_chat_whole_and_streamed_agree(ollama_client):
    whole = ollama_client.chat(MODEL, QUESTION, options=GREEDY)
    assert whole.message.role == "assistant" and whole.message.content
    assert whole.done and whole.done_reason in ("stop", "length")
    assert whole.eval_count > 0 and whole.eval_duration > 0 and whole.prompt_eval_count > 10
    pieces = list(ollama_client.chat(MODEL, QUESTION, options=GREEDY, stream=True))
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert pieces[-1].done and len(pieces) > 2


def test_ollama_generate_with_context_and_raw(ollama_client):
    first = ollama_client.generate(MODEL, "Say hello.", options=GREEDY)
    assert first.response and first.context
    second = ollama_client.generate(MODEL, "Again.", context=first.context, options=GREEDY)
    assert second.prompt_eval_count > first.prompt_eval_count
    raw = ollama_client.generate(MODEL, "The capital of France is", raw=True, options=GREEDY)
    assert "Paris" in raw.response and raw.context is None


def test_ollama_errors(ollama_client):
    with pytest.raises(ollama.ResponseError) as missing:
        ollama_client.chat("nobody", QUESTION)
    assert missing.value.status_code == 404 and "nobody" in missing.value.error
    with pytest.raises(ollama.ResponseError) as wrong:
        ollama_client.chat(MODEL, QUESTION, options={"top_k": "many"})
    assert wrong.value.status_code == 400 and "top_k" in wrong.value.error


def test_ollama_copies_creates_and_deletes(ollama_client):
    assert ollama_client.copy(MODEL, "copied").status == "success"
    made = ollama_client.create("pirate", from_=MODEL, system="You are a pirate.",
                                parameters={"temperature": 0})
    assert made.status == "success"
    assert ollama_client.show("pirate").modelfile.count("You are a pirate.") == 1
    names = {model.model for model in ollama_client.list().models}
    assert {"copied:latest", "pirate:latest"} <= names
    for name in ("copied", "pirate"):
        assert ollama_client.delete(name).status == "success"
    with pytest.raises(ollama.ResponseError):
        ollama_client.delete("pirate")


def test_ollama_creates_from_an_uploaded_file(ollama_client):
    digest = ollama_client.create_blob(MODEL_FILE)
    made = ollama_client.create("uploaded", files={"model.gguf": digest}, parameters={"seed": 3})
    assert made.status == "success"
    assert ollama_client.show("uploaded").details.quantization_level == "Q4_1"
    answers = {ollama_client.generate(name, "Hi.", options=GREEDY).response
               for name in ("uploaded", MODEL)}
    assert len(answers) == 1
    ollama_client.delete("uploaded")


def test_ollama_ps_and_unload(server, ollama_client):
    ollama_client.generate(MODEL, "x", options={"num_predict": 1})
    loaded = ollama_client.ps().models
    assert [model.model for model in loaded] == [f"{MODEL}:latest"]
    assert loaded[0].context_length == 2048 and loaded[0].size > 0
    assert ollama_client.generate(MODEL, "", keep_alive=0).done_reason == "unload"
    eventually(lambda: not ollama_client.ps().models)
    assert ollama_client.generate(MODEL, "").done_reason == "load"


def test_openai_models(openai_client):
    assert [model.id for model in openai_client.models.list()] == [f"{MODEL}:latest"]
    assert openai_client.models.retrieve(MODEL).owned_by == "library"
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("nobody")


def test_openai_chat_whole_and_streamed_agree(openai_client):
    arguments = dict(model=MODEL, messages=QUESTION, temperature=0, max_tokens=16)
    whole = openai_client.chat.completions.create(**arguments)
    text = whole.choices[0].message.content
    assert text and whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    stream = openai_client.chat.completions.create(
        **arguments, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_openai_seed_stop_logprobs_and_n(openai_client):
    arguments = dict(model=MODEL, messages=QUESTION, max_tokens=12, seed=7, temperature=1)
    one = openai_client.chat.completions.create(**arguments)
    two = openai_client.chat.completions.create(**arguments)
    assert one.choices[0].message.content == two.choices[0].message.content
    several = openai_client.chat.completions.create(**arguments, n=3)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert several.choices[0].message.content == one.choices[0].message.content
    assert len({choice.message.content for choice in several.choices}) > 1

    greedy = dict(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=8)
    text = openai_client.completions.create(**greedy).choices[0].text
    assert "Paris" in text
    stopped = openai_client.completions.create(**greedy, stop=["Par"]).choices[0]
    assert stopped.text == text[: text.index("Par")] and stopped.finish_reason == "stop"

    detailed = openai_client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3)
    tokens = detailed.choices[0].logprobs.content
    assert len(tokens) == 4
    for token in tokens:
        assert len(token.top_logprobs) == 3
        # Greedy: the chosen one is the likeliest.
        assert token.token == token.top_logprobs[0].token
        assert token.logprob == token.top_logprobs[0].logprob <= 0
    assert "".join(token.token for token in tokens) == detailed.choices[0].message.content


def test_openai_logit_bias_bans_a_token(env, openai_client):
    arguments = dict(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=1)
    assert openai_client.completions.create(**arguments).choices[0].text == " Paris"
    ids = subprocess.run([PROGRAM, "tokenize", MODEL, " Paris", "--no-bos"], env=env, text=True,
                         capture_output=True, check=True).stdout.split()
    assert len(ids) == 1
    biased = openai_client.completions.create(**arguments, logit_bias={ids[0]: -100})
    assert biased.choices[0].text != " Paris"


def test_openai_errors(openai_client):
    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.chat.completions.create(model="nobody", messages=QUESTION)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        openai_client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=5)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as tools:
        openai_client.chat.completions.create(
            model=MODEL, messages=QUESTION,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
    assert "does not support tools" in tools.value.message


def test_thirty_two_at_once_answer_as_one_alone(openai_client):
    def ask(i):
        answer = openai_client.chat.completions.create(
            model=MODEL, temperature=0, max_tokens=8,
            messages=[{"role": "user", "content": f"Count from {i % 4}."}])
        return answer.choices[0].message.content

    alone = [ask(i) for i in range(4)]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(32)))
    assert answers == [alone[i % 4] for i in range(32)]


def test_a_client_that_leaves_frees_its_place(server):
    body = json.dumps({"model": MODEL, "prompt": "Tell a very long story.",
                       "options": {"ignore_eos": True}})
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/api/generate", body)
    connection.getresponse().readline()
    eventually(lambda: server.running() == 1)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    eventually(lambda: server.running() == 0)


def test_a_killed_engine_fails_its_request_and_the_next_one_works(serve):
    server = serve()
    client = ollama.Client(host=server.url)
    stream = client.generate(MODEL, "Tell a very long story.", stream=True,
                             options={"ignore_eos": True})
    next(stream)
    (pid,) = server.engine_pids()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ollama.ResponseError) as failure:
        for _ in stream:
            pass
    assert "engine process died" in failure.value.error and "signal 9" in failure.value.error
    assert client.generate(MODEL, "Hi.", options=GREEDY).response
    assert server.engine_pids() != [pid]


def test_sigterm_in_the_middle_of_an_answer_ends_the_server_with_0(serve):
    server = serve()
    client = ollama.Client(host=server.url)
    stream = client.generate(MODEL, "Count to ten.", stream=True, options={"num_predict": 30})
    next(stream)
    pids = server.engine_pids()
    server.process.send_signal(signal.SIGTERM)
    assert list(stream)[-1].done, "an answer in progress is finished"
    assert server.process.wait(timeout=20) == 0
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_a_second_signal_ends_the_server_at_once(serve):
    server = serve()
    client = ollama.Client(host=server.url)
    stream = client.generate(MODEL, "Count.", stream=True, options={"ignore_eos": True})
    next(stream)
    begin = time.monotonic()
    server.process.send_signal(signal.SIGINT)
    eventually(lambda: "stopping" in server.log_path.read_text())
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=20) == 0
    assert time.monotonic() - begin < 5


def test_the_engine_dies_with_its_server(serve):
    server = serve()
    ollama.Client(host=server.url).generate(MODEL, "")
    (pid,) = server.engine_pids()
    server.process.kill()
    server.process.wait()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_full_queue_is_503_with_retry_after(serve):
    server = serve("--num-parallel", "1", "--max-queue", "1")
    server.request("POST", "/api/generate", {"model": MODEL})
    body = json.dumps({"model": MODEL, "prompt": "Tell a story.", "options": {"ignore_eos": True}})
    connections = []
    statuses = []
    for _ in range(4):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/api/generate", body)
        connections.append(connection)
        eventually(lambda: sum(load(server)) >= min(len(connections), 2))
    for connection in connections[2:]:
        response = connection.getresponse()
        statuses.append((response.status, response.headers["Retry-After"]))
    assert statuses == [(503, "1"), (503, "1")]
    for connection in connections:
        connection.close()
    eventually(lambda: sum(load(server)) == 0)


def load(server):
    _, _, body = server.request("GET", "/api/ps")
    requests = body["models"][0]["requests"]
    return requests["running"], requests["waiting"]


PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 24},
                                           "age": {"type": "integer", "minimum": 0, "maximum": 120},
                                           "tags": {"type": "array", "items": {"enum": ["a", "b"]},
                                                    "maxItems": 3}},
          "required": ["name", "age", "tags"]}


def check_person(text):
    person = json.loads(text)
    assert list(person) == ["name", "age", "tags"] and 0 <= person["age"] <= 120
    assert set(person["tags"]) <= {"a", "b"} and len(person["name"]) <= 24


def test_ollama_format(ollama_client):
    messages = [{"role": "user", "content": "Invent a person."}]
    for seed in range(3):
        options = {"temperature": 1.5, "seed": seed, "num_predict": 200}
        answer = ollama_client.chat(MODEL, messages=messages, format=PERSON, options=options)
        assert answer.done_reason == "stop"
        check_person(answer.message.content)
        parts = list(ollama_client.chat(MODEL, messages=messages, format=PERSON, options=options,
                                        stream=True))
        assert "".join(part.message.content for part in parts) == answer.message.content
    with pytest.raises(ollama.ResponseError) as error:
        ollama_client.chat(MODEL, messages=messages, format={"type": "object", "not": {}})
    assert error.value.status_code == 400 and '"not"' in error.value.error


def test_openai_structured_outputs(openai_client):
    def ask(**more):
        answer = openai_client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Invent a person."}],
            temperature=1.5, max_tokens=200, **more)
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].message.content

    for seed in range(3):
        check_person(ask(seed=seed, response_format={
            "type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}))
    check_person(ask(extra_body={"guided_json": PERSON}))
    assert ask(extra_body={"guided_choice": ["yes", "no"]}) in ("yes", "no")
    assert re.fullmatch(r"[A-Z][a-z]{2,9} \d{2}", ask(extra_body={"guided_regex": r"[A-Z][a-z]{2,9} \d{2}"}))
    assert ask(extra_body={"structured_outputs": {"grammar": 'root ::= "x" | "yy" | "z"{3}'}}) in ("x", "yy", "zzz")
    with pytest.raises(openai.BadRequestError, match="left recursion"):
        ask(extra_body={"guided_grammar": 'root ::= root "x"'})
