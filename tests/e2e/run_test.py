"""`dsctl run`, piped and at a terminal, and `ps` and `stop` beside a server."""

import json
import os
import re
import signal
import subprocess

import pexpect
import pytest
from conftest import MODEL, MODEL_FILE, PROGRAM

GREEDY = ["--temperature", "0", "-n", "16"]


def run(env, *arguments, stdin="", **keywords):
    return subprocess.run([PROGRAM, "run", *arguments], env=env, input=stdin, text=True,
                          capture_output=True, timeout=120, **keywords)


def test_one_answer_from_a_file_and_from_the_registry(env):
    by_file = run(env, MODEL_FILE, "What is the capital of France?", *GREEDY)
    assert by_file.returncode == 0, by_file.stderr
    assert by_file.stdout.strip() and by_file.stderr == ""
    by_name = run(env, MODEL, "What is the capital of France?", *GREEDY)
    assert by_name.stdout == by_file.stdout


def test_piped_input_comes_before_the_prompt(env):
    piped = run(env, MODEL, *GREEDY, stdin="What is the capital of France?\n")
    alone = run(env, MODEL, "What is the capital of France?", *GREEDY)
    assert piped.returncode == 0 and piped.stdout == alone.stdout
    both = run(env, MODEL, "Answer in one word.", *GREEDY, stdin="What is the capital of France?\n")
    assert both.returncode == 0 and both.stdout.strip()


def test_verbose_prints_ollamas_block(env):
    result = run(env, MODEL, "Hi.", "--verbose", *GREEDY)
    keys = [line.split(":")[0] for line in result.stderr.splitlines()]
    assert keys == ["total duration", "load duration", "prompt eval count", "prompt eval duration",
                    "prompt eval rate", "eval count", "eval duration", "eval rate"]


def test_json_is_one_object(env):
    answer = json.loads(run(env, MODEL, "Hi.", "--think=false", "--json", *GREEDY).stdout)
    assert answer["response"] and answer["eval_count"] > 0
    assert answer["total_duration"] >= answer["load_duration"] + answer["eval_duration"]


SCHEMA = {"type": "object", "properties": {"capital": {"type": "string", "maxLength": 20},
                                           "millions": {"type": "integer", "minimum": 1, "maximum": 99}},
          "required": ["capital", "millions"]}


def test_an_answer_follows_a_schema(env, tmp_path):
    question = "What is the capital of France and how many million people live in it?"
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    given = run(env, MODEL, question, "--format", json.dumps(SCHEMA), "--temperature", "0")
    answer = json.loads(given.stdout)
    assert len(answer["capital"]) <= 20 and 1 <= answer["millions"] <= 99
    assert run(env, MODEL, question, "--format", str(path), "--temperature", "0").stdout == given.stdout
    free = run(env, MODEL, question, "--format", "json", "-n", "60", "--temperature", "0").stdout
    assert re.match(r'\{\s*("|\})', free)  # any object, perhaps cut off by -n


@pytest.mark.parametrize("arguments, text", [
    (["nobody", "Hi."], "model 'nobody' not found"),
    ([MODEL, "Hi.", "--format", "xml"], "expected \"json\", a JSON schema, or a file"),
    ([MODEL, "Hi.", "--format", '{"type":"object","minProperties":1}'], '"minProperties"'),
    ([MODEL, "--think", "Hi."], "does not support thinking"),
    ([MODEL, "--think=much", "Hi."], "invalid value for --think"),
    ([MODEL, "Hi.", "--top-p", "7"], "top_p"),
])
def test_what_can_not_be_is_one_line(env, arguments, text):
    result = run(env, *arguments)
    assert result.returncode == 1
    assert text in result.stderr and result.stderr.count("\n") == 1


def test_ctrl_c_ends_one_answer_with_130(env):
    child = pexpect.spawn(PROGRAM, ["run", MODEL, "Tell a very long story.", "--temperature", "0"],
                          env=env, timeout=60, encoding="utf-8")
    child.expect(r"\w+ \w+")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


@pytest.fixture
def repl(env):
    child = pexpect.spawn(PROGRAM, ["run", MODEL, "--temperature", "0", "-n", "40"],
                          env={**env, "TERM": "xterm"}, timeout=60, encoding="utf-8",
                          dimensions=(40, 120))
    child.expect(">>> ")
    yield child
    child.close(force=True)


def ask(child, line, expected):
    child.sendline(line)
    child.expect_exact(expected)
    child.expect(">>> ")


def test_slash_commands(env, repl):
    ask(repl, "/?", "Available Commands")
    ask(repl, "/set parameter seed 7", "Set parameter 'seed' to '7'")
    ask(repl, "/set parameter seed x", "invalid int value [x]")
    ask(repl, "/set parameter colour red", "unknown parameter 'colour'")
    ask(repl, "/set system You are brief.", "Set system message.")
    ask(repl, "/show system", "You are brief.")
    ask(repl, "/show parameters", "seed")
    ask(repl, "/show info", "architecture")
    ask(repl, "/list", MODEL)
    ask(repl, "/nonsense", "Unknown command '/nonsense'. Type /? for help")
    ask(repl, "/save session", "Created new model 'session'")
    ask(repl, "/load session", "Loading model 'session'")
    ask(repl, "/show system", "You are brief.")
    repl.sendline("/bye")
    repl.expect(pexpect.EOF)
    repl.close()
    assert repl.exitstatus == 0
    subprocess.run([PROGRAM, "rm", "session"], env=env, check=True)


def test_ctrl_c_stops_an_answer_and_not_the_program(repl):
    repl.sendline("Tell a very long story.")
    repl.expect(r"\n.*\w+ ")
    repl.sendintr()
    repl.expect(">>> ")
    repl.sendintr()
    repl.expect_exact("Use Ctrl + d or /bye to exit.")
    repl.expect(">>> ")
    ask(repl, "/set quiet", "Set 'quiet' mode.")
    repl.sendeof()
    repl.expect(pexpect.EOF)
    repl.close()
    assert repl.exitstatus == 0


def test_many_lines_between_quotes_and_by_paste(repl):
    repl.sendline('"""What is')
    repl.expect_exact("... ")
    repl.sendline('the capital of France?"""')
    repl.expect(r"\w+")
    repl.expect(">>> ")


def test_a_paste_is_one_message_whatever_lines_it_has(repl):
    # A terminal that pastes marks the text, so that its line ends do not send it.
    repl.send('\x1b[200~/set system """one\rtwo"""\x1b[201~')
    repl.expect_exact("two")
    ask(repl, "", "Set system message.")
    ask(repl, "/show system", "one\r\ntwo")


def test_run_uses_a_server_that_has_the_model(env, serve):
    server = serve()
    with_server = {**env, "DSCTL_HOST": f"127.0.0.1:{server.port}"}
    by_server = run(with_server, MODEL, "What is the capital of France?", *GREEDY)
    assert by_server.returncode == 0, by_server.stderr
    assert server.engine_pids(), "the server did not load the model"
    own = run(with_server, MODEL, "What is the capital of France?", "--local", *GREEDY)
    assert by_server.stdout == own.stdout
    table = subprocess.run([PROGRAM, "ps"], env=with_server, text=True, capture_output=True,
                           check=True).stdout.splitlines()
    assert table[0].split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert table[1].startswith(f"{MODEL}:latest") and "from now" in table[1]
    subprocess.run([PROGRAM, "stop", MODEL], env=with_server, check=True)
    unknown = subprocess.run([PROGRAM, "stop", "nobody"], env=with_server, text=True,
                             capture_output=True)
    assert unknown.returncode == 1
    assert "couldn't find model \"nobody\" to stop" in unknown.stderr


def test_ps_without_a_server_says_how_to_start_one(env):
    result = subprocess.run([PROGRAM, "ps"], env=env, text=True, capture_output=True)
    assert result.returncode == 1 and "dsctl serve" in result.stderr
