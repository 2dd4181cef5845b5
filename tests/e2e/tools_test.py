"""Tools and thinking with the real openai, ollama and anthropic clients. The model is too small to call a tool
by itself: grammars make it, in the markers of several families."""

import json
import subprocess

import anthropic
import ollama
import openai
import pytest
from conftest import MODEL, MODEL_FILE, PROGRAM

TURNS = """{{ range .Messages }}<|im_start|>{{ .Role }}
{{ if eq .Role "tool" }}result of {{ .ToolName }}: {{ end }}{{ .Content }}CALLS<|im_end|>
{{ end }}<|im_start|>assistant
"""
HEAD = """{{ if .Tools }}<|im_start|>system
You can call these functions: {{ .Tools }}<|im_end|>
{{ end }}"""
CALLS = {
    "hermes": '{{ if .ToolCalls }}<tool_call>\n{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", '
              '"arguments": {{ .Function.Arguments }}}{{ end }}\n</tool_call>{{ end }}',
    "mistral": '{{ if .ToolCalls }}[TOOL_CALLS][{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", '
               '"arguments": {{ .Function.Arguments }}}{{ end }}]{{ end }}',
    "functionary": '{{ range .ToolCalls }}<function={{ .Function.Name }}>{{ .Function.Arguments }}'
                   '</function>{{ end }}{{/* tool_call */}}',
    "generic": '{{ if .ToolCalls }}CALL {{ range .ToolCalls }}{"name": "{{ .Function.Name }}", '
               '"arguments": {{ .Function.Arguments }}}{{ end }}{{ end }}',
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city", "days"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["a"],
        },
    },
}
TOOLS = [WEATHER, ADD]
QUESTION = [{"role": "user", "content": "What is the weather in Paris for three days?"}]


@pytest.fixture(scope="module")
def models(env, tmp_path_factory):
    """The same weights with a template of each family."""
    names = {}
    for family, calls in CALLS.items():
        modelfile = tmp_path_factory.mktemp("tools") / "Modelfile"
        template = HEAD + TURNS.replace("CALLS", calls)
        modelfile.write_text(f'FROM {MODEL_FILE}\nTEMPLATE """{template}"""\n'
                             "PARAMETER num_ctx 2048\nPARAMETER temperature 0\n")
        names[family] = f"tools-{family}"
        subprocess.run([PROGRAM, "create", names[family], "-f", str(modelfile)], env=env,
                       check=True)
    return names


@pytest.fixture
def openai_client(models, server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="any", max_retries=0)


@pytest.fixture
def ollama_client(models, server):
    return ollama.Client(host=server.url)


def check_arguments(name, arguments):
    if name == "get_weather":
        assert set(arguments) == {"city", "days"}
        assert arguments["city"] in ("Paris", "Rome", "Oslo") and 1 <= arguments["days"] <= 7
    else:
        assert name == "add" and set(arguments) == {"a"} and 0 <= arguments["a"] <= 99


@pytest.mark.parametrize("family", CALLS)
def test_openai_required_and_named(openai_client, models, family):
    answer = openai_client.chat.completions.create(
        model=models[family], messages=QUESTION, tools=TOOLS, tool_choice="required",
        parallel_tool_calls=False)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    check_arguments(call.function.name, json.loads(call.function.arguments))
    named = openai_client.chat.completions.create(
        model=models[family], messages=QUESTION, tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "add"}})
    (call,) = named.choices[0].message.tool_calls
    assert call.function.name == "add" and call.id != choice.message.tool_calls[0].id
    check_arguments("add", json.loads(call.function.arguments))


@pytest.mark.parametrize("family", CALLS)
def test_openai_streams_the_same_call(openai_client, models, family):
    arguments = {"model": models[family], "messages": QUESTION, "tools": TOOLS,
                 "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    whole = openai_client.chat.completions.create(**arguments)
    with openai_client.chat.completions.stream(**arguments) as stream:
        n_deltas = sum(event.type == "tool_calls.function.arguments.delta" for event in stream)
        final = stream.get_final_completion()
    assert n_deltas > 2
    assert final.choices[0].finish_reason == "tool_calls"
    (streamed,) = final.choices[0].message.tool_calls
    (expected,) = whole.choices[0].message.tool_calls
    assert streamed.function.name == "get_weather"
    assert streamed.function.arguments == expected.function.arguments


def test_openai_conversation_with_a_result(openai_client, models):
    first = openai_client.chat.completions.create(
        model=models["hermes"], messages=QUESTION, tools=TOOLS, tool_choice="required",
        parallel_tool_calls=False)
    call = first.choices[0].message.tool_calls[0]
    messages = QUESTION + [first.choices[0].message,
                           {"role": "tool", "tool_call_id": call.id, "content": "sunny, 22C"}]
    answer = openai_client.chat.completions.create(
        model=models["hermes"], messages=messages, tools=TOOLS, max_tokens=20)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls
    assert answer.usage.prompt_tokens > first.usage.prompt_tokens


def test_openai_refusals(openai_client, models):
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        openai_client.chat.completions.create(model=MODEL, messages=QUESTION, tools=TOOLS)
    with pytest.raises(openai.BadRequestError, match="response_format"):
        openai_client.chat.completions.create(
            model=models["hermes"], messages=QUESTION, tools=TOOLS, tool_choice="required",
            response_format={"type": "json_object"})
    strange = json.loads(json.dumps(ADD))
    strange["function"]["parameters"]["properties"]["a"] = {"not": {"type": "string"}}
    with pytest.raises(openai.BadRequestError, match="not"):
        openai_client.chat.completions.create(
            model=models["hermes"], messages=QUESTION, tools=[strange], tool_choice="required")


def get_weather(city: str, days: int) -> str:
    """The weather of a city.

    Args:
      city: its name
      days: how many
    """
    return f"{city}: sunny for {days} days"


@pytest.mark.parametrize("stream", [False, True])
def test_ollama_reads_and_shows_tools(ollama_client, server, models, stream):
    assert "tools" in ollama_client.show(models["hermes"]).capabilities
    assert "tools" not in ollama_client.show(MODEL).capabilities
    answer = ollama_client.chat(models["hermes"], QUESTION, tools=[get_weather], stream=stream,
                                options={"num_predict": 8})
    last = list(answer)[-1] if stream else answer
    assert last.done and last.done_reason in ("stop", "length")
    # The client has no tool_choice; the server takes it all the same.
    body = {"model": models["hermes"], "messages": QUESTION, "tools": TOOLS, "stream": False,
            "tool_choice": "required", "parallel_tool_calls": False}
    status, _, forced = server.request("POST", "/api/chat", body)
    assert status == 200
    function = forced["message"]["tool_calls"][0]["function"]
    check_arguments(function["name"], function["arguments"])
    message = ollama.ChatResponse(**forced).message
    reply = [message, {"role": "tool", "tool_name": function["name"], "content": "sunny"}]
    again = ollama_client.chat(models["hermes"], QUESTION + reply, tools=TOOLS,
                               options={"num_predict": 8})
    assert again.prompt_eval_count > forced["prompt_eval_count"]


def test_ollama_refuses_tools_where_there_are_none(ollama_client, models):
    with pytest.raises(ollama.ResponseError, match="does not support tools"):
        ollama_client.chat(MODEL, QUESTION, tools=[get_weather])


@pytest.mark.parametrize("family", CALLS)
def test_anthropic_calls_and_results(models, server, family):
    client = anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0)
    tools = [{"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]}
             for tool in TOOLS]
    arguments = {"model": models[family], "max_tokens": 200, "tools": tools,
                 "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
    whole = client.messages.create(messages=QUESTION, **arguments)
    assert whole.stop_reason == "tool_use"
    (call,) = whole.content
    check_arguments(call.name, call.input)
    with client.messages.stream(messages=QUESTION, **arguments) as stream:
        streamed = stream.get_final_message()
    assert streamed.stop_reason == "tool_use"
    assert [(block.name, block.input) for block in streamed.content] == [(call.name, call.input)]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 21 degrees"}
    turns = [*QUESTION, {"role": "assistant", "content": [block.model_dump() for block in whole.content]},
             {"role": "user", "content": [result]}]
    answer = client.messages.create(model=models[family], max_tokens=16, messages=turns)
    assert answer.content[0].type == "text" and answer.content[0].text
