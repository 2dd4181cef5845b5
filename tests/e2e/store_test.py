"""A store in Ollama's layout made by this script alone, from what is known of the format: it must be
listed, shown, run, verified and archived, also when it can't be written to."""

import hashlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tarfile
import time

import pytest

from conftest import MODEL_FILE, PROGRAM

QUESTION = ("run", "smol:135m", "What is the capital of France?", "-n", "16")
KINDS = "application/vnd.ollama.image."


class OllamaStore:
    """blobs/sha256-<hex> and manifests/<host>/<namespace>/<model>/<tag>, as Ollama writes them."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        (self.root / "blobs").mkdir(parents=True)

    def blob(self, content):
        digest = hashlib.sha256(content).hexdigest()
        (self.root / "blobs" / f"sha256-{digest}").write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    def add(self, path, weights, **texts):
        layers = [{"mediaType": KINDS + "model", **self.blob(weights)}]
        for kind, text in texts.items():
            layers.append({"mediaType": KINDS + kind, **self.blob(text.encode())})
        config = {
            "model_format": "gguf",
            "model_family": "llama",
            "model_families": ["llama"],
            "model_type": "134.52M",
            "file_type": "Q4_1",
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                **self.blob(json.dumps(config).encode()),
            },
            "layers": layers,
        }
        target = self.root / "manifests" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(manifest)
        target.write_text(text)
        return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def weights():
    return pathlib.Path(MODEL_FILE).read_bytes()


@pytest.fixture
def store(tmp_path, weights):
    one = OllamaStore(tmp_path / "ollama")
    one.id = one.add(
        "registry.ollama.ai/library/smol/135m",
        weights,
        params=json.dumps({"temperature": 0, "num_ctx": 1024, "stop": ["<|im_end|>"]}),
        system="You are terse.",
        license="Apache-2.0",
    )
    one.add("hf.co/me/other-model/Q4_1", weights)
    (one.root / "blobs" / ("sha256-" + "a" * 64 + "-partial")).write_bytes(b"unfinished")
    return one


def run(store_root, *arguments, check=0, variable="OLLAMA_MODELS", **options):
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DSCTL_", "OLLAMA_", "XDG_"))
    }
    env.update({variable: str(store_root), "DSCTL_HOST": "127.0.0.1:9", "HOME": "/nonexistent"})
    options.setdefault("text", True)
    done = subprocess.run([PROGRAM, *arguments], env=env, capture_output=True, timeout=300, **options)
    assert done.returncode == check, done.stderr
    return done


@pytest.fixture(scope="module")
def own_answer(tmp_path_factory):
    """What a model that the program itself made of the same parts says."""
    home = tmp_path_factory.mktemp("own")
    (home / "Modelfile").write_text(
        f"FROM {MODEL_FILE}\nPARAMETER temperature 0\nPARAMETER num_ctx 1024\n"
        'PARAMETER stop <|im_end|>\nSYSTEM You are terse.\n'
    )
    run(home / "models", "create", "smol:135m", "-f", str(home / "Modelfile"))
    answer = run(home / "models", *QUESTION).stdout
    assert answer.strip()
    return answer


def test_an_ollama_store_is_listed_shown_and_run(store, own_answer):
    listed = json.loads(run(store.root, "list", "--json").stdout)["models"]
    by_name = {model["name"]: model for model in listed}
    assert set(by_name) == {"smol:135m", "hf.co/me/other-model:Q4_1"}
    assert by_name["smol:135m"]["digest"] == store.id
    assert by_name["smol:135m"]["details"]["parameter_size"] == "134.52M"
    shown = json.loads(run(store.root, "show", "smol:135m", "--json").stdout)
    assert shown["system"] == "You are terse."
    assert shown["license"] == "Apache-2.0"
    assert "stop" in shown["parameters"]
    assert shown["model_info"]["general.architecture"] == "llama"
    assert run(store.root, *QUESTION).stdout == own_answer
    assert run(store.root, "list", variable="DSCTL_MODELS").stdout == run(store.root, "list").stdout


def test_a_store_of_another_user_is_read(store, tmp_path):
    """Nothing in it may be written: neither a lock, nor a record, nor a directory."""
    for path in [store.root, *store.root.rglob("*")]:
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    for parent in store.root.parents:
        if parent == tmp_path.parents[2]:
            break
        os.chmod(parent, os.stat(parent).st_mode | 0o055)
    as_nobody = {}
    if os.geteuid() == 0:
        if not os.access(PROGRAM, os.X_OK):
            pytest.skip("the program can't be run by another user")
        as_nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    before = sorted(str(path) for path in store.root.rglob("*"))
    assert "smol:135m" in run(store.root, "list", **as_nobody).stdout
    assert "llama" in run(store.root, "show", "smol:135m", **as_nobody).stdout
    answer = run(store.root, "run", "smol:135m", "Say hello.", "-n", "4", **as_nobody).stdout
    assert answer.strip()
    run(store.root, "verify", **as_nobody)
    would = run(store.root, "prune", "--dry-run", "--older-than", "0", **as_nobody).stdout
    assert "would remove blobs/sha256-" + "a" * 64 + "-partial" in would
    failed = run(store.root, "rm", "smol:135m", check=1, **as_nobody)
    assert "Permission denied" in failed.stderr and failed.stderr.count("\n") == 1
    assert sorted(str(path) for path in store.root.rglob("*")) == before


def test_verify_finds_a_flipped_bit(store):
    assert "all sound" in run(store.root, "verify").stdout
    blob = max((store.root / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    with open(blob, "r+b") as file:
        file.seek(12345678)
        byte = file.read(1)
        file.seek(12345678)
        file.write(bytes([byte[0] ^ 1]))
    result = json.loads(run(store.root, "verify", "--json", check=1).stdout)
    assert [bad["digest"] for bad in result["bad"]] == [blob.name.replace("-", ":")]
    assert sorted(result["bad"][0]["models"]) == ["hf.co/me/other-model:Q4_1", "smol:135m"]
    failed = run(store.root, "export", "smol:135m", "-o", "-", check=1, text=False)
    assert b"is damaged" in failed.stderr


def test_export_is_a_tar_of_a_store(store, tmp_path):
    tar_path = tmp_path / "models.tar"
    run(store.root, "export", "smol:135m", "hf.co/me/other-model:Q4_1", "-o", str(tar_path))
    with tarfile.open(tar_path) as tar:
        names = tar.getnames()
    assert names[0].startswith("manifests/")
    assert len(names) == len(set(names)) == 2 + 6  # weights, params, system, license, two configs
    subprocess.run(["tar", "-xf", tar_path, "-C", tmp_path], check=True)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    for part in ("blobs", "manifests"):
        (tmp_path / part).rename(unpacked / part)
    assert run(unpacked, "verify").stdout
    listed = {model["name"]: model for model in json.loads(run(unpacked, "list", "--json").stdout)["models"]}
    assert listed["smol:135m"]["digest"] == store.id


def test_export_and_import_through_a_pipe(store, own_answer, tmp_path):
    other = tmp_path / "other"
    archive = run(store.root, "export", "smol:135m", "-o", "-", text=False).stdout
    imported = run(other, "import", "-", "--json", input=archive, text=False)
    assert json.loads(imported.stdout)["models"] == ["smol:135m"]
    assert run(other, *QUESTION).stdout == own_answer


@pytest.mark.parametrize("arguments", [["--format=gnu"], ["--format=ustar"], ["--format=posix"]])
def test_import_takes_a_tar_of_a_store(store, tmp_path, arguments):
    tar_path = tmp_path / "store.tar"
    subprocess.run(["tar", *arguments, "-cf", tar_path, "-C", store.root, "."], check=True)
    other = tmp_path / "other"
    run(other, "import", str(tar_path))
    assert run(other, "verify").stdout
    assert len(json.loads(run(other, "list", "--json").stdout)["models"]) == 2


def test_hostile_archives_are_refused(store, tmp_path):
    def archive(add):
        path = tmp_path / "hostile.tar"
        with tarfile.open(path, "w") as tar:
            for source in sorted(store.root.rglob("*")):
                if source.is_file() and "other-model" not in str(source):
                    tar.add(source, str(source.relative_to(store.root)))
            add(tar)
        return path

    def entry(name, content=b"x", **fields):
        def add(tar):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))

        return add

    blob = "blobs/sha256-" + "b" * 64
    hostile = {
        "traversal": entry("../../escaped"),
        "absolute": entry("/tmp/escaped"),
        "inner": entry("blobs/../../escaped"),
        "symlink": entry(blob, b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "hard link": entry(blob, b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        "device": entry(blob, b"", type=tarfile.CHRTYPE),
        "digest": entry(blob, b"not what its name says"),
    }
    other = tmp_path / "other"
    for what, add in hostile.items():
        failed = run(other, "import", str(archive(add)), check=1)
        errors = [line for line in failed.stderr.splitlines() if not line.startswith("importing")]
        assert len(errors) == 1 and errors[0].startswith("error: archive: "), what
        assert json.loads(run(other, "list", "--json").stdout)["models"] == [], what
        assert not list(tmp_path.rglob("escaped")), what
        blobs = other / "blobs"
        assert not blobs.exists() or not list(blobs.iterdir()), what
    whole = archive(lambda tar: None)
    data = whole.read_bytes()
    for size in (0, 100, 512, 5000, len(data) // 2, len(data) - 20000):
        cut = tmp_path / "cut.tar"
        cut.write_bytes(data[:size])
        assert "cut short" in run(other, "import", str(cut), check=1).stderr


def test_kill_9_of_import_at_random_moments(store, tmp_path):
    tar_path = tmp_path / "models.tar"
    run(store.root, "export", "smol:135m", "-o", str(tar_path))
    other = tmp_path / "other"
    env = {**os.environ, "DSCTL_MODELS": str(other), "HOME": str(tmp_path)}
    start = time.monotonic()
    subprocess.run([PROGRAM, "import", str(tar_path)], env=env, check=True, capture_output=True)
    whole = time.monotonic() - start
    rng = random.Random(7)
    n_killed = 0
    for _ in range(30):
        shutil.rmtree(other, ignore_errors=True)
        process = subprocess.Popen([PROGRAM, "import", str(tar_path)], env=env,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * whole)
        process.send_signal(signal.SIGKILL)
        n_killed += process.wait() == -signal.SIGKILL
        for blob in (other / "blobs").glob("sha256-*"):
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name[7:]
        models = json.loads(run(other, "list", "--json").stdout)["models"]
        if models:
            run(other, "verify")
        run(other, "import", str(tar_path))
        assert "all sound" in run(other, "verify").stdout
        run(other, "prune")  # an import that finds all blobs there makes no staging of its own
        staging = [path for path in (other / "blobs").iterdir() if path.name.startswith(".")]
        assert not staging
    assert n_killed > 0
