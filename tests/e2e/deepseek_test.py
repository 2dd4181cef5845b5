"""The first user's way with DeepSeek-R1, on a model that is R1 in everything but size: nine shards,
its metadata, its own tokenizer (of the shared test data; skipped without it)."""

import importlib.util
import json
import os
import pathlib
import subprocess
import tarfile

import pytest
from conftest import PROGRAM
from hub_server import Hub

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("DSCTL_TEST_SHARED", SOURCE.parent / "shared"))
TOKENIZER = SHARED / "data/tokenizers/deepseek_v3.tar.xz"
QUESTION = "一个汉字具有左右结构,左边是木,右边是乞。这个字是什么?只需回答这个字即可。"
MODELFILE = """FROM {file}
PARAMETER num_gpu 16
PARAMETER num_ctx 8192
PARAMETER temperature 0.6
TEMPLATE "<|User|>{{{{ .System }}}} {{{{ .Prompt }}}}<|Assistant|>"
"""

pytestmark = pytest.mark.skipif(not TOKENIZER.exists(), reason=f"no {TOKENIZER}")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    pytest.importorskip("gguf")
    folder = tmp_path_factory.mktemp("r1")
    with tarfile.open(TOKENIZER) as archive:
        archive.extractall(folder / "tokenizer")
    path = SOURCE / "tests/golden/models/make_r1_toy.py"
    spec = importlib.util.spec_from_file_location("make_r1_toy", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(folder, folder / "tokenizer", layout="old", groups=False)
    shards = sorted(folder.glob("*.gguf"))
    assert [shard.name for shard in shards] == [
        f"DeepSeek-R1-Q4_K_M-{i:05}-of-00009.gguf" for i in range(1, 10)
    ]
    return shards


@pytest.fixture(scope="module")
def created(env, toy, tmp_path_factory):
    modelfile = tmp_path_factory.mktemp("modelfile") / "Modelfile"
    modelfile.write_text(MODELFILE.format(file=toy[0]))
    result = dsctl(env, "create", "DeepSeek-R1-Q4_K_M", "-f", str(modelfile))
    assert result.returncode == 0, result.stderr
    return "DeepSeek-R1-Q4_K_M"


def dsctl(env, *arguments):
    return subprocess.run([PROGRAM, *arguments], env=env, text=True, capture_output=True, timeout=300)


def test_nine_shards_become_a_model_that_answers(env, created):
    answer = dsctl(env, "run", created, QUESTION, "--verbose", "-n", "8")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
    assert "eval count:           8 token(s)" in answer.stderr
    shown = dsctl(env, "show", created).stdout
    for line in ("deepseek2", "163840", "Q4_K_M"):
        assert line in shown


def test_any_shard_stands_for_all_and_the_answer_is_the_same(env, created, toy, tmp_path):
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(MODELFILE.format(file=toy[6]))
    assert dsctl(env, "create", "by-shard-7", "-f", str(modelfile)).returncode == 0
    greedy = ["--temperature", "0", "-n", "8"]
    by_name = dsctl(env, "run", created, QUESTION, *greedy)
    assert by_name.returncode == 0 and by_name.stdout.strip()
    assert dsctl(env, "run", "by-shard-7", QUESTION, *greedy).stdout == by_name.stdout
    by_file = dsctl(env, "run", str(toy[3]), QUESTION, *greedy)
    assert by_file.returncode == 0, by_file.stderr


def test_without_one_shard_the_error_names_it(env, toy, tmp_path):
    for shard in toy[:4] + toy[5:]:
        (tmp_path / shard.name).symlink_to(shard)
    result = dsctl(env, "run", str(tmp_path / toy[0].name), "hi")
    assert result.returncode == 1
    assert toy[4].name in result.stderr


def test_the_server_answers_as_ollama_does(serve, created):
    status, _, body = serve().request("POST", "/api/chat", {
        "model": created, "messages": [{"role": "user", "content": "hi"}], "stream": False,
        "options": {"num_predict": 6, "temperature": 0},
    })
    assert status == 200, body
    assert body["message"]["content"] and body["eval_count"] == 6, json.dumps(body)


def test_the_whole_morning(env, toy, tmp_path):
    """Hub, registry, answer; then the files, merged, a model of the merged file, the same answer."""
    greedy = ["--temperature", "0", "-n", "8"]
    with Hub() as hub:
        hub.add("unsloth/DeepSeek-R1-GGUF",
                {"DeepSeek-R1-Q4_K_M/" + shard.name: shard.read_bytes() for shard in toy})
        env = {**env, "HF_ENDPOINT": hub.url, "DSCTL_MODELS": str(tmp_path / "models")}
        total = sum(shard.stat().st_size for shard in toy)
        planned = dsctl(env, "pull", "unsloth/DeepSeek-R1-GGUF:Q4_K_M", "--dry-run")
        assert planned.returncode == 0, planned.stderr
        assert "the model fits memory" in planned.stdout
        before = hub.cdn_bytes  # the headers: most of such small shards
        pulled = dsctl(env, "pull", "unsloth/DeepSeek-R1-GGUF:Q4_K_M")
        assert pulled.returncode == 0, pulled.stderr
        assert total <= hub.cdn_bytes - before <= 1.02 * total
        files = dsctl(env, "pull", "unsloth/DeepSeek-R1-GGUF:Q4_K_M", "--local-dir",
                      str(tmp_path / "files"))
        assert files.returncode == 0, files.stderr
    name = "hf.co/unsloth/DeepSeek-R1-GGUF:Q4_K_M"
    models = json.loads(dsctl(env, "list", "--json").stdout)["models"]
    assert [model["name"] for model in models] == [name]
    assert models[0]["details"]["family"] == "deepseek2"
    assert "Q4_K_M" in dsctl(env, "show", name).stdout
    answer = dsctl(env, "run", name, QUESTION, *greedy)
    assert answer.returncode == 0 and answer.stdout.strip(), answer.stderr
    first = next((tmp_path / "files").rglob("*-00001-of-00009.gguf"))
    merged = tmp_path / "merged.gguf"
    result = dsctl(env, "merge", str(first), str(merged), "--verify")
    assert result.returncode == 0, result.stderr
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(f"FROM {merged}\n")
    assert dsctl(env, "create", "merged", "-f", str(modelfile)).returncode == 0
    assert dsctl(env, "run", "merged", QUESTION, *greedy).stdout == answer.stdout
    plan = dsctl(env, "plan", "merged", "--gpus", "8xH800", "--json")
    assert plan.returncode == 0, plan.stderr
