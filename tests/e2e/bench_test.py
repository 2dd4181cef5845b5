"""`dsctl bench`: every form parses and its figures agree; no figure is held against a limit."""

import csv
import io
import json
import subprocess

import pytest
from conftest import MODEL, MODEL_FILE, PROGRAM

SMALL = ["-p", "16", "-n", "4", "-b", "1,2", "-d", "0,32", "-r", "2", "-t", "2"]


def bench(env, *arguments):
    return subprocess.run([PROGRAM, "bench", *arguments], env=env, text=True, capture_output=True,
                          timeout=300)


def rows_of(env, form, *arguments):
    result = bench(env, *arguments, "-o", form)
    assert result.returncode == 0, result.stderr
    if form == "json":
        return json.loads(result.stdout)
    if form == "jsonl":
        return [json.loads(line) for line in result.stdout.splitlines()]
    # Numbers of CSV are JSON's, an empty field is null.
    return [{name: value if name in ("test", "test_time") else json.loads(value or "null")
             if value == "" or value[0] in "-0123456789tf" else value
             for name, value in row.items()}
            for row in csv.DictReader(io.StringIO(result.stdout))]


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_figures_of_a_model_agree(env, form):
    rows = rows_of(env, form, MODEL_FILE, *SMALL)
    assert [row["test"] for row in rows] == [
        "pp16", "tg4", "pp16 x2", "tg4 x2",
        "pp16 @ d32", "tg4 @ d32", "pp16 x2 @ d32", "tg4 x2 @ d32"]
    for row in rows:
        n_tokens = (row["n_prompt"] + row["n_gen"]) * row["n_seqs"]
        assert row["avg_ns"] > 0 and row["avg_ts"] > 0 and row["stddev_ts"] >= 0
        if form != "csv":
            assert len(row["samples_ns"]) == row["repetitions"] == 2
            assert [n_tokens / ns * 1e9 for ns in row["samples_ns"]] == pytest.approx(
                row["samples_ts"], rel=1e-3)
        assert row["n_threads"] == 2 and row["read_bandwidth_gb_s"] > 0 and row["load_ms"] > 0
        assert row["peak_memory_bytes"] > row["model_size"] / 4
        if row["n_gen"] == 0:
            assert row["token_ms"] is None and row["gb_s"] is None
            assert row["first_token_ms"] == pytest.approx(row["avg_ns"] / 1e6, rel=1e-3)
            assert row["gflops"] > 0
        else:
            seconds = row["avg_ns"] / 1e9 / row["n_gen"]
            assert row["token_ms"] == pytest.approx(seconds * 1e3, rel=1e-3)
            assert row["gb_s"] == pytest.approx(row["step_bytes"] / seconds / 1e9, rel=1e-3)
            assert row["bandwidth_percent"] == pytest.approx(
                100 * row["gb_s"] / row["read_bandwidth_gb_s"], rel=1e-3)
    # More context, more bytes of the cache.
    assert rows[5]["step_bytes"] > rows[1]["step_bytes"]


def test_the_table_is_one(env):
    result = bench(env, MODEL, "-p", "16", "-n", "0", "-r", "1", "-t", "2")
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1
    assert lines[2].split("|")[1].strip() == "pp16"


def test_a_dummy_of_the_models_header_runs(env):
    rows = rows_of(env, "json", MODEL_FILE, "--load-format", "dummy", "--layers", "2",
                   "-p", "8", "-n", "2", "-r", "1", "-t", "2")
    assert all(row["dummy"] and row["avg_ts"] > 0 for row in rows)
    assert rows[0]["model_size"] < 90e6


@pytest.mark.parametrize("arguments, code, text", [
    ([], 2, "a model, or --server"),
    ([MODEL_FILE, "-p", "x"], 1, "--n-prompt: \"x\""),
    ([MODEL_FILE, "-p", "0", "-n", "0"], 1, "nothing to measure"),
    ([MODEL_FILE, "-p", "100000"], 1, "made for"),
    ([MODEL_FILE, "--layers", "2"], 1, "--load-format dummy"),
    (["deepseek-r1", "--load-format", "dummy"], 1, "bytes of memory"),
    ([MODEL_FILE, "--lora", "/nowhere.gguf"], 1, "no such file"),
    (["--server", "https://host"], 1, "https is not supported"),
    (["--server", "http://127.0.0.1:9"], 1, "no server answers"),
])
def test_what_can_not_be_is_said(env, arguments, code, text):
    result = bench(env, *arguments)
    assert result.returncode == code and text in result.stderr, result.stderr


@pytest.mark.parametrize("api", ["openai", "ollama"])
def test_a_server_under_load(env, server, api):
    rows = rows_of(env, "json", "--server", server.url, "--api", api, "--concurrency", "1,4",
                   "--num-prompts", "8", "--input-len", "48", "--output-len", "6")
    assert [row["concurrency"] for row in rows] == [1, 4]
    for row in rows:
        assert row["requests"] == 8 and row["failed"] == 0 and row["first_error"] is None
        assert row["mean_output_tokens"] == pytest.approx(6)
        assert row["mean_input_tokens"] == pytest.approx(48, abs=8)
        assert row["requests_per_s"] == pytest.approx(8 / row["duration_s"])
        assert row["output_tokens_per_s"] == pytest.approx(48 / row["duration_s"])
        for name in ("ttft", "tpot", "itl", "e2e"):
            assert 0 < row[f"{name}_ms_p50"] <= row[f"{name}_ms_p90"] <= row[f"{name}_ms_p99"]
            assert row[f"{name}_ms_p99"] <= row[f"{name}_ms_max"]
        assert row["e2e_ms_mean"] > row["ttft_ms_mean"]


def test_a_server_under_random_arrivals(env, server):
    result = bench(env, "--server", server.url, "--request-rate", "20", "--num-prompts", "6",
                   "--input-len", "32", "--output-len", "3")
    assert result.returncode == 0, result.stderr
    table = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 3 and table[2].split("|")[2].strip() == "6"
