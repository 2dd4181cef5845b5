"""`dsctl pull` from servers like Hugging Face's, ModelScope's, git-LFS's and Ollama's, and the real
clients of those from the same servers."""

import concurrent.futures
import hashlib
import http.client
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import ollama
import pytest
from conftest import MODEL_FILE, PROGRAM, Server
from hub_server import GIT_BACKEND, Hub, sha256
from tiny_gguf import tiny_gguf

MB = 1_000_000


@pytest.fixture
def hub(tmp_path):
    with Hub(git_root=tmp_path / "git") as one:
        yield one


@pytest.fixture
def env(hub, tmp_path):
    """A home of its own, with the servers of this test as hubs."""
    home = tmp_path / "home"
    home.mkdir()
    variables = {name: value for name, value in os.environ.items()
                 if not name.startswith(("DSCTL_", "OLLAMA_", "XDG_", "HF_", "MODELSCOPE_"))}
    variables.update(HOME=str(home), DSCTL_MODELS=str(tmp_path / "models"),
                     DSCTL_HOST="127.0.0.1:9", HF_ENDPOINT=hub.url, MODELSCOPE_ENDPOINT=hub.url,
                     GIT_CONFIG_NOSYSTEM="1", GIT_TERMINAL_PROMPT="0")
    return variables


def dsctl(env, *arguments, code=0, **keywords):
    result = subprocess.run([PROGRAM, *map(str, arguments)], env=env, text=True,
                            capture_output=True, timeout=120, **keywords)
    assert result.returncode == code, (arguments, result.stdout, result.stderr)
    return result


def refused(env, *arguments):
    """The one line that says why."""
    result = dsctl(env, "pull", *arguments, code=1)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    return errors[0]


def names(env):
    models = json.loads(dsctl(env, "list", "--json").stdout)["models"]
    return {model["name"]: model for model in models}


def manifest_of(env, name):
    host, owner, rest = name.split("/")
    model, tag = rest.split(":")
    path = pathlib.Path(env["DSCTL_MODELS"]) / "manifests" / host / owner / model / tag
    return json.loads(path.read_text())


def tree(directory):
    """Content of every file below, without the folders that clients keep for themselves."""
    return {str(path.relative_to(directory)): path.read_bytes()
            for path in sorted(pathlib.Path(directory).rglob("*"))
            if path.is_file()
            and not {".git", ".cache"} & set(path.relative_to(directory).parts)}


SHARDED = {
    "README.md": b"# a model\n",
    "Q8_0/tiny-Q8_0-00001-of-00003.gguf": tiny_gguf(200_000, 1, shard=(0, 3)),
    "Q8_0/tiny-Q8_0-00002-of-00003.gguf": tiny_gguf(150_000, 2, shard=(1, 3)),
    "Q8_0/tiny-Q8_0-00003-of-00003.gguf": tiny_gguf(50_000, 3, shard=(2, 3)),
    "tiny-Q4_K_M.gguf": tiny_gguf(100_000, 4),
    "mmproj-tiny-F16.gguf": tiny_gguf(20_000, 5, architecture="clip", kind="mmproj"),
}


def test_from_the_hub_to_an_answer(hub, env):
    model = pathlib.Path(MODEL_FILE).read_bytes()
    hub.add("me/SmolLM2-GGUF", {"README.md": b"x", "SmolLM2-135M-Instruct.Q4_1.gguf": model})
    result = dsctl(env, "pull", "me/SmolLM2-GGUF:Q4_1")
    assert "pulled 'hf.co/me/SmolLM2-GGUF:Q4_1'" in result.stdout
    assert "the model fits memory" in result.stderr and "to fetch" in result.stderr
    listed = names(env)["hf.co/me/SmolLM2-GGUF:Q4_1"]
    assert listed["details"]["family"] == "llama"
    assert listed["details"]["quantization_level"] == "Q4_1"
    assert listed["size"] > len(model)
    assert "134.52M" in dsctl(env, "show", "hf.co/me/SmolLM2-GGUF:Q4_1").stdout
    answers = {dsctl(env, "run", name, "What is the capital of France?", "--temperature", "0", "-n",
                     "16").stdout for name in ("hf.co/me/SmolLM2-GGUF:Q4_1", MODEL_FILE)}
    assert len(answers) == 1 and answers != {"\n"}
    assert hub.cdn_bytes == len(model)
    again = dsctl(env, "pull", "me/SmolLM2-GGUF:Q4_1")
    assert "is up to date" in again.stdout and hub.cdn_bytes == len(model)


def test_a_split_model_is_one_manifest_with_its_projector(hub, env):
    hub.add("me/tiny", SHARDED)
    dsctl(env, "pull", "me/tiny:q8_0", "--source", "hf")
    layers = manifest_of(env, "hf.co/me/tiny:Q8_0")["layers"]
    wanted = [(path, data) for path, data in SHARDED.items() if "-of-" in path]
    assert [layer["name"] for layer in layers[:3]] == [path.split("/")[1] for path, _ in wanted]
    assert [layer["digest"] for layer in layers[:3]] == ["sha256:" + sha256(d) for _, d in wanted]
    assert layers[3]["mediaType"].endswith(".projector") and len(layers) == 4
    assert names(env)["hf.co/me/tiny:Q8_0"]["details"]["family"] == "llama"
    # Another quant shares the projector.
    before = hub.cdn_bytes
    dsctl(env, "pull", "me/tiny:Q4_K_M", "--name", "tiny")
    assert hub.cdn_bytes - before == len(SHARDED["tiny-Q4_K_M.gguf"])
    assert "tiny:latest" in names(env)


def test_several_quants_and_none_named(hub, env):
    hub.add("me/tiny", SHARDED)
    result = dsctl(env, "pull", "me/tiny", code=1)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["QUANT", "SIZE", "FILES", "FIT"]
    assert [line.split()[0] for line in lines[1:]] == ["Q4_K_M", "Q8_0"]
    assert "choose one, as in hf.co/me/tiny:Q4_K_M" in result.stderr
    choice = json.loads(dsctl(env, "pull", "me/tiny", "--json", code=1).stdout)
    assert [one["label"] for one in choice["variants"]] == ["Q4_K_M", "Q8_0"]
    assert "has no \"Q2_K\", but Q4_K_M, Q8_0" in refused(env, "me/tiny:Q2_K")
    # Written as Ollama writes it, it means what it means there.
    dsctl(env, "pull", "hf.co/me/tiny", "--quiet")
    layers = manifest_of(env, "hf.co/me/tiny:latest")["layers"]
    assert layers[0]["digest"] == "sha256:" + sha256(SHARDED["tiny-Q4_K_M.gguf"])
    # Include patterns choose too.
    dsctl(env, "pull", "me/tiny", "--include", "Q8_0/*", "--name", "eight")
    assert "eight:latest" in names(env)


def test_dry_run_says_all_and_fetches_nothing(hub, env):
    hub.add("me/tiny", SHARDED)
    text = dsctl(env, "pull", "me/tiny:Q8_0", "--dry-run").stdout
    for part in ("hf.co/me/tiny:Q8_0", "tiny-Q8_0-00002-of-00003.gguf", "4 files", "to fetch",
                 "free at", "the model can't be planned: llama.block_count: missing"):
        assert part in text
    plan = json.loads(dsctl(env, "pull", "me/tiny:Q8_0", "--dry-run", "--json").stdout)
    assert plan["missing"] == plan["total"] == sum(file["size"] for file in plan["files"])
    assert not pathlib.Path(env["DSCTL_MODELS"]).exists()


def test_plans_are_made_from_headers(hub, env):
    """Of a file of 98 MB, less than its vocabulary and half a megabyte is fetched, each time."""
    model = pathlib.Path(MODEL_FILE).read_bytes()
    hub.add("me/SmolLM2-GGUF", {"SmolLM2-135M-Instruct.Q4_1.gguf": model,
                                "SmolLM2-135M-Instruct.Q8_0.gguf": b"GGUF" * (len(model) // 3)})
    of_file = json.loads(dsctl(env, "plan", MODEL_FILE, "--gpus", "1xH800", "--json").stdout)
    hub.rate = 200 * MB

    def fetched(*arguments, code=0):
        before = hub.cdn_bytes
        result = dsctl(env, *arguments, code=code)
        assert 0 < hub.cdn_bytes - before < 0.04 * len(model)
        return result.stdout

    for name in ("me/SmolLM2-GGUF:Q4_1", "hf.co/me/SmolLM2-GGUF:q4_1", "me/SmolLM2-GGUF:Q4_1",
                 f"{hub.url}/me/SmolLM2-GGUF/resolve/main/SmolLM2-135M-Instruct.Q4_1.gguf"):
        source = ["--source", "modelscope"] if name.startswith("me/") else []
        plan = json.loads(fetched("plan", name, "--gpus", "1xH800", "--json", *source))
        model_of_url, model_of_file = plan["models"][0], of_file["models"][0]
        assert model_of_url.pop("model") != model_of_file["model"]
        assert model_of_url == {key: model_of_file[key] for key in model_of_url}
    text = fetched("pull", "me/SmolLM2-GGUF:Q4_1", "--dry-run")
    assert "the model fits memory" in text and "tokens/s" in text
    listed = fetched("pull", "me/SmolLM2-GGUF", code=1)
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["Q4_1", "Q8_0"]
    assert all("fits memory" in line for line in listed.splitlines()[1:])
    assert not pathlib.Path(env["DSCTL_MODELS"]).exists()


def test_json_events(hub, env):
    hub.add("me/tiny", SHARDED)
    lines = dsctl(env, "pull", "me/tiny:Q4_K_M", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert events[0]["event"] == "plan" and events[-1]["event"] == "done"
    finished = [event for event in events if event["event"] == "finished"]
    assert {event["file"] for event in finished} == {"tiny-Q4_K_M.gguf", "mmproj-tiny-F16.gguf"}
    assert all(event["completed"] == event["total"] for event in finished)


def test_errors_of_the_hub_say_what_to_do(hub, env):
    hub.add("me/private", SHARDED, private=True)
    hub.add("me/gated", {"x-Q8_0.gguf": tiny_gguf(1000)}, gated=True)
    assert "HF_TOKEN" in refused(env, "hf.co/me/private")
    assert "accept its licence" in refused(env, "hf.co/me/gated")
    assert "HF_TOKEN" in refused(env, "me/nothing", "--source", "hf")
    hub.add("me/tiny", SHARDED)
    assert 'no revision "v9"' in refused(env, "hf.co/me/tiny", "--revision", "v9")
    assert "no hub has it" in refused(env, "nobody/nothing")
    hub.add("me/no-model", {"README.md": b"x"})
    assert "no GGUF model" in refused(env, "hf.co/me/no-model")
    token = pathlib.Path(env["HOME"]) / ".cache/huggingface/token"
    token.parent.mkdir(parents=True)
    token.write_text(hub.token + "\n")
    dsctl(env, "pull", "hf.co/me/private:Q4_K_M")
    dsctl({**env, "HF_TOKEN": hub.token}, "pull", "hf.co/me/gated")


def test_links_that_end_are_asked_for_again(hub, env):
    data = tiny_gguf(6 * MB, 7)
    hub.add("me/slow", {"slow-F32.gguf": data})
    hub.link_life, hub.rate = 0.7, MB
    dsctl(env, "pull", "me/slow", "--jobs", "2")
    assert hub.n_links > 1
    assert hub.cdn_bytes < 1.5 * len(data)


def test_a_broken_server_is_outlived(hub, env):
    data = tiny_gguf(3 * MB, 8)
    hub.add("me/bad", {"bad-F32.gguf": data})
    hub.faults = ["cut", "500", "flip", "403", "200", "cut"]
    dsctl(env, "pull", "me/bad", "--jobs", "1")
    blob = pathlib.Path(env["DSCTL_MODELS"]) / "blobs" / ("sha256-" + sha256(data))
    assert blob.read_bytes() == data
    # A file that is not what its digest says never becomes a blob.
    wrong = tiny_gguf(100_000, 9)
    hub.add("me/wrong", {"wrong-F32.gguf": wrong})
    hub.blobs[sha256(wrong)] = wrong[:-1] + b"?"
    assert sha256(wrong)[:12] in refused(env, "me/wrong")
    assert not (blob.parent / ("sha256-" + sha256(wrong))).exists()
    assert list(names(env)) == ["hf.co/me/bad:latest"]


def test_the_rate_is_limited(hub, env):
    hub.add("me/tiny", {"x-F32.gguf": tiny_gguf(2 * MB)})
    start = time.monotonic()
    dsctl(env, "pull", "me/tiny", "--limit-rate", "1M")
    assert time.monotonic() - start > 1
    assert "no rate" in dsctl(env, "pull", "me/tiny", "--limit-rate", "fast", code=1).stderr


def test_modelscope(hub, env):
    hub.add("me/tiny", SHARDED)
    dsctl(env, "pull", "modelscope.cn/me/tiny:Q8_0")
    assert "modelscope.cn/me/tiny:Q8_0" in names(env)
    assert not any(path.startswith("/api/models") for _, path in hub.requests)
    assert "no such model" in refused(env, "modelscope.cn/me/nothing")
    # What one hub brought, the other need not.
    before = hub.cdn_bytes
    dsctl(env, "pull", "hf.co/me/tiny:Q8_0")
    assert hub.cdn_bytes == before


def test_ollama_registry(hub, env):
    host = hub.side_host
    model = tiny_gguf(300_000, 1)
    manifest = hub.add_ollama("me/tiny:8b", [("model", model), ("template", b"{{ .Prompt }}"),
                                              ("params", b'{"temperature":0.5}')])
    hub.registry_token = "registry-token"
    dsctl(env, "pull", f"{host}/me/tiny:8b")
    listed = names(env)[f"{host}/me/tiny:8b"]
    assert listed["digest"] == hashlib.sha256(manifest).hexdigest()
    assert "temperature" in dsctl(env, "show", f"{host}/me/tiny:8b", "--parameters").stdout
    assert "file does not exist" in refused(env, f"{host}/me/tiny:9b")
    assert "--insecure" in refused(env, "http://registry.example/me/tiny:8b",
                                    "--source", "ollama")


@pytest.mark.parametrize("change, why", [
    (lambda m: m["layers"][0].update(digest="sha256:../../x"), "expected \"sha256:\""),
    (lambda m: m["layers"][0].update(size=-1), "is no size"),
    (lambda m: m["layers"][0].update(size=2**62), "is no size"),
    (lambda m: m["layers"][0].update(mediaType="application/x-sh"), "is of type"),
    (lambda m: m.update(layers=[]), "no layers"),
    (lambda m: m.update(layers={}), "layers"),
])
def test_hostile_manifests(hub, env, change, why):
    host = hub.side_host
    manifest = json.loads(hub.add_ollama("me/tiny:8b", [("model", tiny_gguf(1000))]))
    change(manifest)
    hub.manifests["me/tiny:8b"] = json.dumps(manifest).encode()
    assert why in refused(env, f"{host}/me/tiny:8b")
    assert names(env) == {}


@pytest.mark.parametrize("path", ["../../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf",
                                  "x\x00.gguf", "x\n.gguf", ".git/hooks/evil.gguf", "a//b.gguf"])
def test_hostile_file_names(hub, env, tmp_path, path):
    entry = {"type": "file", "oid": "a" * 40, "size": 4, "path": path}
    hub.add("me/evil", {"x.gguf": b"GGUF"}, listed=[entry])
    before = set(tmp_path.rglob("*"))
    assert "refused" in refused(env, "hf.co/me/evil", "--local-dir", tmp_path / "out")
    assert set(tmp_path.rglob("*")) == before


def test_hostile_redirects(hub, env):
    hub.add("me/tiny", {"x-F32.gguf": tiny_gguf(1000)})
    hub.hub_redirect = "file:///etc/passwd"
    assert "file" in refused(env, "hf.co/me/tiny")
    hub.hub_redirect = hub.url + "/me/tiny/resolve/main/x-F32.gguf"
    assert "redirects" in refused(env, "hf.co/me/tiny")


def test_a_symbolic_link_is_not_followed_out(hub, env, tmp_path):
    hub.add("me/tiny", SHARDED)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir(), elsewhere.mkdir()
    (out / "Q8_0").symlink_to(elsewhere)
    assert "symbolic link" in refused(env, "me/tiny:Q8_0", "--local-dir", out)
    assert list(elsewhere.iterdir()) == []


def test_two_pulls_of_one_model_fetch_it_once(hub, env):
    data = tiny_gguf(4 * MB, 3)
    hub.add("me/one", {"one-F32.gguf": data})
    hub.rate = 2 * MB
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: dsctl(env, "pull", "me/one", "--jobs", "2"), range(2)))
    # Both may read a header for the fit; one keeps it.
    assert hub.cdn_bytes <= 1.02 * len(data) + 512 * 1024
    assert "hf.co/me/one:latest" in names(env)


def test_killed_at_any_moment_it_goes_on(hub, env):
    files = {f"x-F32-{i:05}-of-00002.gguf": tiny_gguf(8 * MB, i, shard=(i - 1, 2)) for i in (1, 2)}
    hub.add("me/killed", files)
    hub.rate = 4 * MB
    moments = random.Random(5)
    blobs = pathlib.Path(env["DSCTL_MODELS"]) / "blobs"
    total = sum(map(len, files.values()))
    for _ in range(8):
        moment = hub.cdn_bytes + moments.uniform(0, 1.8 * MB)
        process = subprocess.Popen([PROGRAM, "pull", "me/killed", "-q", "--jobs", "2"], env=env)
        while hub.cdn_bytes <= moment and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
        assert names(env) == {}
        for blob in blobs.glob("sha256-*"):
            if len(blob.name) == 71:  # under its final name: whole and right
                assert sha256(blob.read_bytes()) == blob.name[7:]
    assert MB < hub.cdn_bytes < total
    hub.rate = None
    dsctl(env, "pull", "me/killed")
    # What lay in the two connections' buffers when a process died counts as sent, and is sent again.
    in_buffers = 8 * 2 * 64 * 1024
    assert hub.cdn_bytes <= 1.02 * total + in_buffers
    assert dsctl(env, "verify").returncode == 0
    assert "hf.co/me/killed:latest" in names(env)
    assert [p.name for p in blobs.iterdir() if "partial" in p.name] == []


def test_ctrl_c_ends_it_with_130_and_it_goes_on(hub, env):
    hub.add("me/slow", {"slow-F32.gguf": tiny_gguf(4 * MB, 7)})
    hub.rate = MB
    process = subprocess.Popen([PROGRAM, "pull", "me/slow", "--jobs", "1"], env=env,
                               stderr=subprocess.PIPE, text=True)
    while hub.cdn_bytes < MB:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    process.stderr.close()
    before = hub.cdn_bytes
    hub.rate = None
    dsctl(env, "pull", "me/slow")
    assert hub.cdn_bytes - before < 4 * MB


def test_progress_at_a_terminal(hub, env):
    import pexpect
    hub.add("me/slow", {"slow-F32.gguf": tiny_gguf(3 * MB, 7)})
    hub.rate = MB
    child = pexpect.spawn(PROGRAM, ["pull", "me/slow", "--jobs", "1"], timeout=60,
                          env={**env, "TERM": "xterm"}, encoding="utf-8", dimensions=(40, 120))
    child.expect(r"slow-F32.gguf +\d+% ▕█* *▏ [\d.]+ [KM]?B/3\.0 MB")
    child.expect(r"\d+% [\d.]+ [KM]B of 3\.0 MB, [\d.]+ [MK]B/s, \d+s left")
    child.expect_exact("pulled 'hf.co/me/slow:latest'")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


# Plain files, and what other clients left of them


def test_local_dir_is_what_huggingface_hub_makes(hub, env, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub.add("me/tiny", SHARDED)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    huggingface_hub.snapshot_download("me/tiny", local_dir=theirs, endpoint=hub.url, token=False)
    dsctl(env, "pull", "me/tiny", "--local-dir", ours)
    assert tree(ours) == tree(theirs) == SHARDED
    # Each takes the other's word for what is there.
    before = hub.cdn_bytes
    huggingface_hub.snapshot_download("me/tiny", local_dir=ours, endpoint=hub.url, token=False)
    assert "is up to date" in dsctl(env, "pull", "me/tiny", "--local-dir", theirs).stdout
    assert hub.cdn_bytes == before
    # A file that was changed is fetched again.
    changed = ours / "tiny-Q4_K_M.gguf"
    changed.write_bytes(b"?" + changed.read_bytes()[1:])
    os.utime(changed, (time.time() + 60,) * 2)
    dsctl(env, "pull", "me/tiny", "--local-dir", ours)
    assert tree(ours) == SHARDED


def test_what_huggingface_hub_left_is_taken_up(hub, env, tmp_path):
    data = tiny_gguf(4 * MB, 1)
    hub.add("me/half", {"half-F32.gguf": data})
    # As its client leaves it: download/<hash of the name>.<etag>.incomplete
    folder = tmp_path / "out/.cache/huggingface/download"
    folder.mkdir(parents=True)
    (folder / f"abc=.{sha256(data)}.incomplete").write_bytes(data[: 3 * MB])
    dsctl(env, "pull", "me/half", "--local-dir", tmp_path / "out")
    assert hub.cdn_bytes <= len(data) - 2.9 * MB
    # And a whole file in its cache, for the registry.
    cache = pathlib.Path(env["HOME"]) / ".cache/huggingface/hub/models--me--half/blobs"
    cache.mkdir(parents=True)
    (cache / sha256(data)).write_bytes(data)
    before = hub.cdn_bytes
    dsctl(env, "pull", "me/half")
    assert hub.cdn_bytes == before and "hf.co/me/half:latest" in names(env)


def has_git_lfs():
    return shutil.which("git-lfs") and os.path.exists(GIT_BACKEND)


needs_git_lfs = pytest.mark.skipif(not has_git_lfs(), reason="needs git and git-lfs (apt)")


def git(env, *arguments, cwd=None):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *map(str, arguments)],
                   cwd=cwd, env=env, check=True, capture_output=True)


@pytest.fixture
def git_remote(hub, env, tmp_path):
    """SHARDED as a git repository with LFS: bare, its objects at the CDN too."""
    work, bare = tmp_path / "work", tmp_path / "git/me/tiny.git"
    work.mkdir()
    git(env, "init", "-q", "-b", "trunk", work)
    git(env, "lfs", "install", "--local", cwd=work)
    git(env, "lfs", "track", "*.gguf", cwd=work)
    for path, data in SHARDED.items():
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).write_bytes(data)
        hub.add_blob(data)
    git(env, "add", ".", cwd=work)
    git(env, "commit", "-qm", "model", cwd=work)
    git(env, "tag", "v1", cwd=work)
    bare.parent.mkdir(parents=True)
    git(env, "clone", "-q", "--bare", work, bare)
    shutil.copytree(work / ".git/lfs/objects", bare / "lfs/objects")
    return f"{hub.side_url}/git/me/tiny.git"


@needs_git_lfs
def test_git_lfs_as_git_lfs_has_it(hub, env, git_remote, tmp_path):
    hub.git_user, hub.lfs_max_batch = "me:pass word", 100
    with_user = git_remote.replace("http://", "http://me:pass%20word@")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    git({**env, "GIT_LFS_SKIP_SMUDGE": "1"}, "clone", "-q", with_user, theirs)
    git(env, "lfs", "install", "--local", cwd=theirs)
    git(env, "lfs", "pull", "--include", "Q8_0/tiny-Q8_0*,mm*", "--exclude", "*-00002-*", cwd=theirs)
    dsctl(env, "pull", with_user, "--local-dir", ours)
    fetched = {path: data for path, data in tree(ours).items() if path != ".gitattributes"}
    assert fetched == SHARDED
    # The same patterns take the same files.
    ours2 = tmp_path / "ours2"
    dsctl(env, "pull", with_user, "--local-dir", ours2, "--include", "Q8_0/tiny-Q8_0*,mm*",
          "--exclude", "*-00002-*")
    large = {path for path, data in tree(theirs).items() if data[:4] == b"GGUF"}
    assert set(tree(ours2)) == large == {
        "Q8_0/tiny-Q8_0-00001-of-00003.gguf", "Q8_0/tiny-Q8_0-00003-of-00003.gguf",
        "mmproj-tiny-F16.gguf"}
    assert "put user and password" in refused(env, git_remote)
    (pathlib.Path(env["HOME"]) / ".netrc").write_text(
        'machine 127.0.0.1 login me password "pass word"\n')
    dsctl(env, "pull", git_remote + ":Q4_K_M", "--name", "by-netrc")
    assert "by-netrc:latest" in names(env)


@needs_git_lfs
def test_git_lfs_goes_on_in_a_clone(hub, env, git_remote, tmp_path):
    hub.lfs_max_batch = 100
    clone = tmp_path / "clone"
    git({**env, "GIT_LFS_SKIP_SMUDGE": "1"}, "clone", "-q", git_remote, clone)
    whole, half = (sha256(SHARDED[path]) for path in (
        "tiny-Q4_K_M.gguf", "Q8_0/tiny-Q8_0-00001-of-00003.gguf"))
    object_path = clone / ".git/lfs/objects" / whole[:2] / whole[2:4] / whole
    object_path.parent.mkdir(parents=True)
    object_path.write_bytes(hub.blobs[whole])
    part = clone / ".git/lfs/incomplete" / (half + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(hub.blobs[half][:150_000])
    before = hub.cdn_bytes
    dsctl(env, "pull", git_remote, "--local-dir", clone)
    fetched = tree(clone)
    assert {path: fetched[path] for path in SHARDED} == SHARDED
    large = sum(len(data) for path, data in SHARDED.items() if path.endswith(".gguf"))
    assert hub.cdn_bytes - before <= large - len(hub.blobs[whole]) - 140_000


@needs_git_lfs
def test_git_lfs_batches_errors_revisions_and_files(hub, env, git_remote, tmp_path):
    host = hub.side_host
    dsctl(env, "pull", git_remote + ":Q8_0", "--revision", "v1")
    assert hub.n_batches >= 3  # 413 until two at a time are asked for
    assert f"{host}/me/tiny:Q8_0" in names(env)
    assert 'no revision "v2"' in refused(env, git_remote, "--revision", "v2")
    assert "Q4_K_M, Q8_0" in refused(env, git_remote + ":Q2_K")
    missing = sha256(SHARDED["tiny-Q4_K_M.gguf"])
    hub.lfs_missing.add(missing)
    assert "object does not exist" in refused(env, git_remote + ":Q4_K_M")
    # A remote on this machine: its own objects are used.
    local = f"file://{tmp_path}/git/me/tiny.git"
    before = hub.cdn_bytes
    dsctl(env, "pull", local + ":Q4_K_M", "--name", "local")
    assert "local:latest" in names(env) and hub.cdn_bytes == before


# Through the server


def test_ollamas_client_pulls_through_the_server(hub, env):
    model = tiny_gguf(3 * MB, 1)
    hub.add("me/tiny", {"tiny-Q4_K_M.gguf": model, "tiny-Q8_0.gguf": tiny_gguf(1000)})
    host = hub.side_host
    hub.add_ollama("me/small:1b", [("model", tiny_gguf(100_000, 5))])
    server = Server(env)
    try:
        client = ollama.Client(host=server.url)
        hub.rate = 4 * MB
        lines = list(client.pull("hf.co/me/tiny", stream=True))
        assert lines[0].status == "pulling manifest" and lines[-1].status == "success"
        bars = [line for line in lines if line.digest == "sha256:" + sha256(model)]
        assert bars[0].status == "pulling " + sha256(model)[:12]
        assert bars[-1].completed == bars[-1].total == len(model)
        assert len(bars) > 2
        statuses = [line.status for line in lines]
        assert statuses.index("verifying sha256 digest") < statuses.index("writing manifest")
        assert client.pull(f"{host}/me/small:1b").status == "success"
        assert {model.model for model in client.list().models} == {
            "hf.co/me/tiny:latest", f"{host}/me/small:1b"}
        with pytest.raises(ollama.ResponseError) as missing:
            client.pull(f"{host}/me/nothing:1b")
        assert "file does not exist" in missing.value.error
        with pytest.raises(ollama.ResponseError) as bad:
            client.pull("../x")
        assert bad.value.status_code == 400
        with pytest.raises(ollama.ResponseError):
            client.pull("file:///etc")
        # A client that goes away ends its pull; the next goes on with what has come.
        hub.rate = MB
        hub.add("me/slow", {"slow-F32.gguf": tiny_gguf(4 * MB, 9)})
        before = hub.cdn_bytes
        stream = client.pull("hf.co/me/slow", stream=True)
        for line in stream:
            if (line.completed or 0) > MB // 2:
                break
        stream.close()
        hub.rate = None
        assert client.pull("hf.co/me/slow").status == "success"
        assert hub.cdn_bytes - before < 8 * MB
    finally:
        assert server.stop() == 0


def test_a_killed_server_leaves_the_store_whole(hub, env):
    """kill -9 of `serve` while it pulls, copies and deletes: whichever moment it meets."""
    hub.add("me/killed", {"killed-F32.gguf": tiny_gguf(8 * MB, 3)})
    hub.add("me/small", {"small-F32.gguf": tiny_gguf(100_000, 4)})
    dsctl(env, "pull", "me/small", "--name", "small", "-q")
    hub.rate = 4 * MB
    moments = random.Random(11)
    blobs = pathlib.Path(env["DSCTL_MODELS"]) / "blobs"
    small = sha256(tiny_gguf(100_000, 4))

    def keep_busy(server):
        """Until the server is gone."""
        copies = itertools.count()
        try:
            while True:
                name = f"copy{next(copies) % 3}"
                server.request("POST", "/api/copy", {"source": "small", "destination": name})
                server.request("DELETE", "/api/delete", {"model": name})
        except (OSError, http.client.HTTPException):
            pass

    def pull(server):
        try:
            server.request("POST", "/api/pull", {"model": "hf.co/me/killed", "stream": False})
        except (OSError, http.client.HTTPException):
            pass

    for _ in range(int(os.environ.get("DSCTL_KILLS", "6"))):
        if hub.cdn_bytes > 7 * MB:
            break
        moment = hub.cdn_bytes + moments.uniform(0, 1.2 * MB)
        server = Server(env)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            work = [pool.submit(pull, server), pool.submit(keep_busy, server)]
            while hub.cdn_bytes <= moment and not work[0].done():
                time.sleep(0.002)
            server.process.kill()
            server.process.wait()
        server.process.stdout.close()
        assert all(one.exception() is None for one in work)
        assert "small:latest" in names(env)
        for blob in blobs.glob("sha256-*"):
            if len(blob.name) == 71:  # under its final name: whole and right
                assert sha256(blob.read_bytes()) == blob.name[7:]
        assert (blobs / f"sha256-{small}").exists()
        assert "all sound" in dsctl(env, "verify").stdout
    hub.rate = None
    server = Server(env)
    try:
        status, _, body = server.request("POST", "/api/pull",
                                         {"model": "hf.co/me/killed", "stream": False})
        assert status == 200 and body["status"] == "success"
    finally:
        assert server.stop() == 0
    assert "hf.co/me/killed:latest" in names(env)
    assert "all sound" in dsctl(env, "verify").stdout
