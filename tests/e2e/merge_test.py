"""`dsctl merge` and `split` against the Python gguf package, on full and read-only disks, under
kill -9. DSCTL_KILLS says how often to kill (default 20)."""

import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import gguf
import numpy as np
import pytest

from conftest import PROGRAM

KILLS = int(os.environ.get("DSCTL_KILLS", "20"))
SOURCE = pathlib.Path(__file__).parents[2]
MIB = 1 << 20
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def run(tmp_path_factory):
    """Runs dsctl with a store of its own."""
    models = tmp_path_factory.mktemp("models")

    def start(*arguments, check=None, home=models, **options):
        result = subprocess.run([PROGRAM, *map(str, arguments)], text=True, capture_output=True,
                                env={**os.environ, "DSCTL_MODELS": str(models), "HOME": str(home)},
                                timeout=300, **options)
        if check is not None:
            assert result.returncode == check, result.stderr
        return result

    return start


def error_line(result):
    """The one line of an error."""
    assert result.returncode == 1, (result.returncode, result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and result.stderr.endswith(lines[0] + "\n"), result.stderr
    return lines[0]


def write_model(path, n_tensors=12, tensor_bytes=30_000, alignment=None, **split):
    """A model by the Python package, in one file or, by its own splitting, in shards."""
    rng = np.random.default_rng(n_tensors)
    writer = gguf.GGUFWriter(str(path), "llama", **split)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_name("a model")
    writer.add_block_count(3)
    writer.add_float64("some.real", 1 / 3)
    writer.add_int8("some.small", -7)
    writer.add_token_list(["a", "b", "é", ""])
    writer.add_token_scores([0.5, -1.0, float("inf"), 0.0])
    writer.add_array("some.flags", [True, False, True])
    for i in range(n_tensors):
        data = rng.integers(-128, 127, tensor_bytes + i % 5, dtype=np.int8)
        writer.add_tensor(f"blk.{i}.weight", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob(path.stem + "*.gguf"))


def make_shards(directory, n_shards=6, shard_bytes=240_000):
    """Shards of four tensors each."""
    directory.mkdir(parents=True, exist_ok=True)
    return write_model(directory / "m.gguf", 4 * n_shards, shard_bytes // 4, split_max_tensors=4)


def tensors_of(*paths):
    return {tensor.name: (tensor.tensor_type, tensor.shape.tolist(), tensor.data.tobytes())
            for path in paths for tensor in gguf.GGUFReader(path).tensors}


def metadata_of(path):
    return {name: (field.types, field.contents()) for name, field in
            gguf.GGUFReader(path).fields.items() if not name.startswith(("GGUF.", "split."))}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_merges_what_python_split(run, tmp_path):
    shards = make_shards(tmp_path)
    assert len(shards) == 6
    run("merge", shards[3], tmp_path / "out.gguf", "--verify", check=0)
    assert tensors_of(tmp_path / "out.gguf") == tensors_of(*shards)
    assert list(metadata_of(tmp_path / "out.gguf")) == list(metadata_of(shards[0]))
    assert repr(metadata_of(tmp_path / "out.gguf")) == repr(metadata_of(shards[0]))
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert reader.fields["split.count"].contents() == 0
    assert names(tmp_path) == [*(shard.name for shard in shards), "out.gguf"]


@pytest.mark.parametrize("rule", [("--max-tensors", 5), ("--max-size", "100k"),
                                  ("--max-tensors", 3, "--no-tensor-first-split")])
def test_python_reads_what_was_split(run, tmp_path, rule):
    model, = write_model(tmp_path / "model.gguf")
    (tmp_path / "out").mkdir()
    run("split", model, tmp_path / "out/part", *rule, "--verify", check=0)
    shards = sorted((tmp_path / "out").iterdir())
    assert len(shards) > 2
    assert tensors_of(*shards) == tensors_of(model)
    assert repr(metadata_of(shards[0])) == repr(metadata_of(model))
    for i, shard in enumerate(shards):
        fields = gguf.GGUFReader(shard).fields
        assert fields["split.no"].contents() == i
        assert fields["split.count"].contents() == len(shards)
        assert fields["split.tensors.count"].contents() == 12
    run("merge", tmp_path / "out", tmp_path / "again.gguf", check=0)
    assert tensors_of(tmp_path / "again.gguf") == tensors_of(model)


def test_every_way_to_name_the_shards(run, tmp_path):
    shards = make_shards(tmp_path / "d")
    run("merge", shards[0], tmp_path / "first.gguf", check=0)
    expected = digest(tmp_path / "first.gguf")
    for i, inputs in enumerate([[shards[5]], shards, shards[::-1], [tmp_path / "d"],
                                [tmp_path / "d/m-*.gguf"]]):
        run("merge", *inputs, tmp_path / f"{i}.gguf", check=0)
        assert digest(tmp_path / f"{i}.gguf") == expected


def test_the_first_users_404_gb_are_planned_in_seconds(run, tmp_path):
    script = SOURCE / "tests/golden/gguf/make_sparse_r1.py"
    first = subprocess.run([sys.executable, script, tmp_path], text=True, capture_output=True,
                           check=True).stdout.strip()
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert sum(sizes) == 404_430_187_616
    plan = json.loads(run("merge", first, tmp_path / "r1.gguf", "--dry-run", "--json",
                          check=0).stdout)
    assert plan["tensors"] == 1025 and len(plan["shards"]) == 9
    assert [shard["size"] for shard in plan["shards"]] == sizes
    assert 404_400_000_000 < plan["size"] < sum(sizes) and plan["needed"] == plan["size"]
    assert plan["fits"] == (plan["needed"] <= plan["free"])
    text = run("merge", tmp_path, tmp_path / "r1.gguf", "--dry-run", check=0).stdout
    assert "9 shards, 1025 tensors" in text and "404 GB (404,43" in text
    # Cut again by the rule that made them, the shards have the sizes that people downloaded.
    again = json.loads(run("split", first, tmp_path / "again", "--max-size", "50G", "--dry-run",
                           "--json", check=0).stdout)
    assert [shard["size"] for shard in again["shards"]] == sizes
    assert "404 GB" in run("show", first, check=0).stdout
    assert len(names(tmp_path)) == 9
    if not plan["fits"]:
        assert "needs 404 GB, but only" in error_line(run("merge", first, tmp_path / "r1.gguf"))
        assert len(names(tmp_path)) == 9


def damage_missing(shards):
    shards[2].unlink()
    return "1 of 6 shards missing"


def damage_cut(shards):
    os.truncate(shards[4], shards[4].stat().st_size - 100)
    return f"{shards[4].name}: tensor blk.19.weight: the file ends at byte"


def damage_empty(shards):
    shards[0].write_bytes(b"")
    return "is empty"


def damage_pointer(shards):
    for shard in shards[1:]:
        shard.write_text("version https://git-lfs.github.com/spec/v1\n"
                         f"oid sha256:{'0' * 64}\nsize 49429396320\n")
    return "is a Git-LFS pointer, not the model itself (as are 5 of the 6 files here"


def damage_page(shards):
    shards[3].write_text("<!DOCTYPE html><html>")
    return "is an HTML page"


def damage_order(shards):
    swap = shards[1].with_suffix(".swap")
    shards[1].rename(swap)
    shards[2].rename(shards[1])
    swap.rename(shards[2])
    return "out of order or renamed"


def damage_twice(shards):
    shutil.copy(shards[1], shards[2])
    return "out of order or renamed"


def damage_foreign(shards):
    other = shards[0].parent / "other"
    foreign = write_model_shards_of_other(other)
    shutil.copy(foreign[5], shards[5])
    shutil.rmtree(other)
    return "it is a shard of another model"


def write_model_shards_of_other(directory):
    directory.mkdir()
    return write_model(directory / "m.gguf", 23, 60_000, split_max_tensors=4)


def damage_name(shards):
    shards[0].rename(shards[0].with_name("renamed.gguf"))
    shards[0] = shards[0].with_name("renamed.gguf")
    return "its name does not end in -NNNNN-of-NNNNN.gguf"


def damage_directory(shards):
    shards[1].unlink()
    shards[1].mkdir()
    return "is a directory, expected a file"


@pytest.mark.parametrize("damage", [damage_missing, damage_cut, damage_empty, damage_pointer,
                                    damage_page, damage_order, damage_twice, damage_foreign,
                                    damage_name, damage_directory])
@pytest.mark.parametrize("flags", [[], ["--in-place"], ["--dry-run"]])
def test_damage_is_one_line_and_costs_nothing(run, tmp_path, damage, flags):
    shards = make_shards(tmp_path, shard_bytes=1000)
    expected = damage(shards)
    before = {path.name: path.is_dir() or digest(path) for path in tmp_path.iterdir()}
    assert expected in error_line(run("merge", shards[0], tmp_path / "out.gguf", *flags))
    assert {path.name: path.is_dir() or digest(path) for path in tmp_path.iterdir()} == before


def test_the_output_is_never_lost_by_mistake(run, tmp_path):
    shards = make_shards(tmp_path)
    out = tmp_path / "out.gguf"
    out.write_text("precious")
    assert "exists already; --force replaces it" in error_line(run("merge", shards[0], out))
    assert out.read_text() == "precious"
    for other in [shards[1], tmp_path]:
        error_line(run("merge", tmp_path / "m-*.gguf", other, "--force"))
    run("merge", shards[0], out, "--force", check=0)
    assert len(tensors_of(out)) == 24
    error_line(run("split", shards[0], tmp_path / "m", "--max-tensors", 4))
    model, = write_model(tmp_path / "x-00001-of-00001.gguf")
    assert "is one of the files to be read" in error_line(
        run("split", model, tmp_path / "x", "--max-tensors", 100, "--force"))


def test_links_to_shards_as_in_the_hubs_cache(run, tmp_path):
    shards = make_shards(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for i, shard in enumerate(shards):
        blob = shard.rename(shard.parent / hashlib.sha256(b"%d" % i).hexdigest())
        (tmp_path / "snapshot" / shard.name).symlink_to(f"../blobs/{blob.name}")
    first = tmp_path / "snapshot" / shards[0].name
    assert "is a symbolic link to" in error_line(
        run("merge", first, tmp_path / "out.gguf", "--in-place"))
    run("merge", first, tmp_path / "out.gguf", check=0)
    assert len(tensors_of(tmp_path / "out.gguf")) == 24


@pytest.mark.parametrize("flags", [[], ["--in-place"]])
def test_a_directory_that_may_not_be_written(run, tmp_path, flags):
    shards = make_shards(tmp_path / "d")
    nobody = {"user": 65534} if os.geteuid() == 0 else {}
    for directory in [tmp_path, *tmp_path.parents]:
        if directory.stat().st_uid == os.geteuid() and directory.is_relative_to("/tmp"):
            directory.chmod(0o755)
    (tmp_path / "d").chmod(0o555)
    how = {**nobody, "home": tmp_path}
    try:
        line = error_line(run("merge", shards[0], tmp_path / "d/out.gguf", *flags, **how))
        expected = "it can't be removed from its directory" if flags else "can't be created"
        assert expected + ": Permission denied" in line
        if flags:
            line = error_line(run("merge", shards[0], "/var/tmp/out.gguf", *flags, **how))
            assert "it can't be removed from its directory: Permission denied" in line
        assert names(tmp_path / "d") == [shard.name for shard in shards]
        shards[1].chmod(0)
        assert f"{shards[1]}: can't be opened: Permission denied" in error_line(
            run("merge", shards[0], tmp_path / "d/out.gguf", *flags, **how))
    finally:
        (tmp_path / "d").chmod(0o755)


@pytest.mark.parametrize("flags", [[], ["--in-place"]])
def test_a_file_that_may_not_grow(run, tmp_path, flags):
    shards = make_shards(tmp_path)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
    line = error_line(run("merge", shards[0], tmp_path / "out.gguf", *flags, preexec_fn=limit))
    assert "File too large" in line
    assert names(tmp_path) == [shard.name for shard in shards]


@pytest.fixture
def small_disk(tmp_path):
    """Mounts tmpfs of a size below tmp_path."""
    mounted = []

    def mount(size):
        target = tmp_path / f"disk{len(mounted)}"
        target.mkdir()
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", target],
                                capture_output=True)
        if result.returncode != 0:
            pytest.skip("can't mount here")
        mounted.append(target)
        return target

    yield mount
    for target in mounted:
        subprocess.run(["umount", target], check=True)


@as_root
def test_a_full_disk_is_one_line_with_numbers(run, small_disk):
    disk = small_disk(12 * MIB)
    shards = make_shards(disk, 4, 2 * MIB)
    line = error_line(run("merge", shards[0], disk / "out.gguf"))
    assert "out.gguf: needs 8.39 MB, but only 4.1" in line and "are free on its file system" in line
    assert names(disk) == [shard.name for shard in shards]
    line = error_line(run("split", shards[0], disk / "again", "--max-tensors", 1))
    assert "the shards need 8.39 MB, but only 4.1" in line
    plan = run("merge", shards[0], disk / "out.gguf", "--dry-run", check=0).stdout
    assert "not enough: 4.2" in plan
    assert "merging in place needs" in error_line(
        run("merge", shards[0], disk / "out.gguf", "--in-place"))
    assert names(disk) == [shard.name for shard in shards]


@as_root
@pytest.mark.parametrize("spare", [40 + 17, 36])
def test_in_place_fits_in_the_models_size_and_one_shard(run, small_disk, tmp_path, spare):
    """Shards of 40 MiB: with room for one more (and 16 MiB of slack), and with less than that."""
    shards = make_shards(tmp_path / "d", 4, 40 * MIB)
    run("merge", shards[0], tmp_path / "expected.gguf", check=0)
    disk = small_disk((160 + spare) * MIB)
    for shard in shards:
        shutil.copy(shard, disk)
    assert "--in-place would do with" in run("merge", disk / shards[0].name, disk / "out.gguf",
                                             "--dry-run", check=0).stdout
    result = run("merge", disk / shards[0].name, disk / "out.gguf", "--in-place", check=0)
    assert result.stderr.startswith("in place: each of the 4 shards is removed once its data is")
    assert names(disk) == ["out.gguf"]
    assert digest(disk / "out.gguf") == digest(tmp_path / "expected.gguf")


@as_root
def test_in_place_survives_a_disk_that_fills_up(run, small_disk, tmp_path):
    """Someone else takes the room when the first shards are already gone."""
    shards = make_shards(tmp_path / "d", 4, 24 * MIB)
    run("merge", shards[0], tmp_path / "expected.gguf", check=0)
    disk = small_disk(140 * MIB)
    for shard in shards:
        shutil.copy(shard, disk)
    env = {**os.environ, "DSCTL_MODELS": str(tmp_path / "models")}
    command = [PROGRAM, "merge", str(disk / shards[0].name), str(disk / "out.gguf"), "--in-place"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    while (disk / shards[0].name).exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    if not (disk / "out.gguf").exists():
        with open(disk / "hog", "wb") as hog:
            with pytest.raises(OSError):
                while True:
                    hog.write(bytes(MIB))
        assert "nothing is lost: run the same command again to finish" in error_line(
            run(*command[1:]))
        (disk / "hog").unlink()
        run(*command[1:], check=0)
    (disk / "hog").unlink(missing_ok=True)
    assert names(disk) == ["out.gguf"]
    assert digest(disk / "out.gguf") == digest(tmp_path / "expected.gguf")


@as_root
@pytest.mark.skipif(not shutil.which("mkfs.btrfs"), reason="needs mkfs.btrfs")
def test_blocks_are_shared_where_alignment_and_file_system_allow(run, tmp_path):
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(300 * MIB)
    disk = tmp_path / "btrfs"
    disk.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, disk], capture_output=True).returncode:
        pytest.skip("can't mount btrfs here")
    try:
        model, = write_model(disk / "model.gguf", 16, 2 * MIB, alignment=4096)
        split = json.loads(run("split", model, disk / "part", "--max-tensors", 4, "--verify",
                               "--json", check=0).stdout)
        out = disk / "out.gguf"
        merged = json.loads(run("merge", disk / "part-*", out, "--verify", "--json",
                                check=0).stdout)
        for result in [split, merged]:
            assert result["shared"] > 31 * MIB and result["copied"] < MIB
        assert tensors_of(out) == tensors_of(model)
        assert all(tensor.data_offset % 4096 == 0 for tensor in gguf.GGUFReader(out).tensors)
    finally:
        subprocess.run(["umount", disk], check=True)


def kill_after(command, env, seconds):
    """Whether the process was killed before it ended."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        assert process.wait(seconds) == 0
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True


@pytest.mark.parametrize("flags", [[], ["--in-place"], ["--in-place", "--verify"]])
def test_kill_9_at_any_moment_loses_nothing(tmp_path, flags):
    shards = make_shards(tmp_path / "original", 6, 4 * MIB)
    env = {**os.environ, "DSCTL_MODELS": str(tmp_path / "models")}
    original = {shard.name: digest(shard) for shard in shards}
    start = time.monotonic()
    subprocess.run([PROGRAM, "merge", shards[0], tmp_path / "expected.gguf"], env=env, check=True,
                   capture_output=True)
    duration = 1.5 * (time.monotonic() - start)
    expected = digest(tmp_path / "expected.gguf")
    rng = random.Random(len(flags))
    n_killed = 0
    for i in range(KILLS):
        directory = tmp_path / f"run{i}"
        shutil.copytree(tmp_path / "original", directory)
        out = directory / "out.gguf"
        journal = directory / "out.gguf.dsctl-merge-journal"
        command = [PROGRAM, "merge", str(directory / shards[0].name), str(out), *flags]
        while kill_after(command, env, rng.uniform(0, duration)):
            n_killed += 1
            if not flags:
                assert {shard: digest(directory / shard) for shard in original} == original
            if out.exists():
                assert digest(out) == expected
            if (out.exists() and not journal.exists()) or rng.random() < 0.5:
                break
        if not out.exists() or journal.exists():
            subprocess.run(command, env=env, check=True, capture_output=True)
        assert digest(out) == expected
        assert names(directory) == ([*original, "out.gguf"] if not flags else ["out.gguf"])
        shutil.rmtree(directory)
    print(f"killed {n_killed} times")
    assert n_killed > 0
