#include "gguf/merge_in_place.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>

#include "gguf/error.h"
#include "gguf/merge_journal.h"
#include "gguf/shard_set.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/gguf_shards.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

/// What a person does: begin, or go on with what was begun.
void merge_or_resume(const fs::path& shard, const fs::path& out, const MergeOptions& options) {
  if (has_unfinished_merge(out)) {
    resume_in_place(out, options);
  } else {
    merge_in_place(open_shard_set({shard}), out, options);
  }
}

/// Runs `work` in a child that is killed when it tells its progress for the `kill_at`th time.
/// Returns whether it was killed.
template <typename Work>
bool run_and_kill(int kill_at, const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    int n_told = 0;
    try {
      work([&](std::string_view, int64_t, int64_t) {
        if (++n_told == kill_at) ::kill(::getpid(), SIGKILL);
      });
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) return true;
  if (WEXITSTATUS(status) != 0) throw std::runtime_error("the child failed");
  return false;
}

TEST_CASE("merge_in_place makes the same file and removes the shards") {
  const tests::TempDir dir;
  const auto shards = tests::copy_shards("two", dir.path());
  merge_in_place(open_shard_set({shards[1]}), dir.path() / "out.gguf", {.verify = Verify::kYes});
  CHECK(tests::read_text(dir.path() / "out.gguf") ==
        tests::read_text(tests::golden_shards() / "merged.gguf"));
  CHECK(tests::names_in(dir.path()) == std::vector<std::string>{"out.gguf"});
}

TEST_CASE("merge_in_place loses nothing, whenever it is killed, and the next call finishes") {
  const auto [max_step_bytes, verify] =
      GENERATE(table<int64_t, Verify>({{0, Verify::kNo}, {0, Verify::kYes}, {4000, Verify::kNo}}));
  const tests::TempDir expected_dir;
  merge(open_shard_set(tests::write_shards(expected_dir.path(), "m", 6)),
        expected_dir.path() / "out", {});
  const std::string expected = tests::read_text(expected_dir.path() / "out");
  int n_kills = 0;
  for (int kill_at = 1;; ++kill_at) {
    const tests::TempDir dir;
    const auto shards = tests::write_shards(dir.path(), "m", 6);
    const fs::path out = dir.path() / "out";
    const auto work = [&](const Progress& progress) {
      merge_or_resume(shards[0], out,
                      {.verify = verify, .progress = progress, .max_step_bytes = max_step_bytes});
    };
    const bool was_killed = run_and_kill(kill_at, work);
    if (was_killed) ++n_kills;
    // Killed again in the middle of going on.
    if (was_killed) run_and_kill(2, work);
    if (!fs::exists(out) || has_unfinished_merge(out)) work({});
    REQUIRE((tests::read_text(out) == expected));
    REQUIRE(tests::names_in(dir.path()) == std::vector<std::string>{"out"});
    if (!was_killed) break;
  }
  CHECK(n_kills >= (max_step_bytes > 0 ? 20 : 7));
}

TEST_CASE("merge_in_place frees each part of a shard once its data is safe") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path(), "m", 4, 1 << 20);
  int64_t least_blocks = INT64_MAX;
  const auto count_blocks = [&](std::string_view, int64_t, int64_t) {
    struct stat status {};
    if (::stat(shards[0].c_str(), &status) == 0) {
      least_blocks = std::min<int64_t>(least_blocks, status.st_blocks);
    }
  };
  merge_in_place(open_shard_set(shards), dir.path() / "out",
                 {.progress = count_blocks, .max_step_bytes = 256 << 10});
  // The last step of its 2 MiB is not punched out: then the whole shard goes.
  CHECK(least_blocks * 512 <= 300 << 10);
}

TEST_CASE("merge_in_place gives up cleanly while no shard is gone, and says how to go on later") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path(), "m", 8);
  const auto before = tests::names_in(dir.path());
  const fs::path out = dir.path() / "out";
  const auto stop = [](std::string_view, int64_t, int64_t) { throw std::runtime_error("stop"); };
  CHECK_THROWS_AS(merge_in_place(open_shard_set(shards), out, {.progress = stop}),
                  std::runtime_error);
  CHECK(tests::names_in(dir.path()) == before);

  // The third shard is damaged after the first was merged.
  const auto damage = [&](std::string_view, int64_t, int64_t) {
    if (!fs::exists(shards[0]) && fs::exists(shards[2])) fs::resize_file(shards[2], 100);
  };
  CHECK_THAT(
      tests::error_of([&] { merge_in_place(open_shard_set(shards), out, {.progress = damage}); }),
      Contains("m-00003-of-00004.gguf: changed since the merge began; nothing is lost: run the "
               "same command again to finish"));
  CHECK(has_unfinished_merge(out));
  CHECK_FALSE(fs::exists(shards[0]));
  CHECK_FALSE(fs::exists(out));
  CHECK_THAT(tests::error_of([&] { resume_in_place(out, {}); }), Contains("changed since"));
  CHECK(has_unfinished_merge(out));

  // Plain merges keep off while the only copy of some shards lies there.
  const tests::TempDir other;
  const auto others = tests::write_shards(other.path(), "m", 8);
  CHECK_THAT(tests::error_of([&] { merge(open_shard_set(others), out, {}); }),
             Contains("a merge in place to it was interrupted"));
  CHECK_THAT(tests::error_of([&] { merge_in_place(open_shard_set(others), out, {}); }),
             Contains("begun and not finished"));

  // The damaged shard comes back from elsewhere, with its time.
  fs::remove(shards[2]);
  fs::copy_file(others[2], shards[2]);
  CHECK_THAT(tests::error_of([&] { resume_in_place(out, {}); }), Contains("changed since"));
}

TEST_CASE("merge_in_place refuses shards that can't be given up") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path() / "a", "m", 4);
  const fs::path out = dir.path() / "out";
  const auto error = [&](const fs::path& shard) {
    return tests::error_of([&] { merge_in_place(open_shard_set({shard}), out, {}); });
  };
  fs::create_hard_link(shards[1], dir.path() / "blob");
  CHECK_THAT(error(shards[0]), Contains("00002-of-00002.gguf: can't be merged in place, because it "
                                        "has 2 names"));
  fs::remove(dir.path() / "blob");

  fs::create_directories(dir.path() / "links");
  for (const fs::path& shard : shards)
    fs::create_symlink(shard, dir.path() / "links" / shard.filename());
  CHECK_THAT(error(dir.path() / "links" / shards[0].filename()),
             Contains("it is a symbolic link to"));

  const auto size = fs::file_size(shards[1]);
  fs::resize_file(shards[1], size + 1000);
  CHECK_THAT(error(shards[0]), Contains("1.00 kB after its tensors would be lost"));
  fs::resize_file(shards[1], size);
  CHECK(tests::names_in(dir.path()) == std::vector<std::string>{"a", "links"});
  CHECK(error(shards[0]).empty());
}

TEST_CASE("merge_in_place tells apart leftovers that it may use from those it may not") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path(), "m", 4);
  const fs::path out = dir.path() / "out";
  tests::write_text(merge_partial_path(out), "someone's");
  CHECK_THAT(tests::error_of([&] { merge_in_place(open_shard_set(shards), out, {}); }),
             Contains("out.dsctl-merge: is there without its journal"));
  CHECK(tests::read_text(merge_partial_path(out)) == "someone's");
  CHECK_FALSE(fs::exists(merge_journal_path(out)));

  // A journal that says nothing yet: the kill came before any work.
  tests::write_text(merge_journal_path(out), "{\"format\":");
  CHECK_FALSE(has_unfinished_merge(out));
  merge_in_place(open_shard_set(shards), out, {});
  CHECK(tests::names_in(dir.path()) == std::vector<std::string>{"out"});

  tests::write_text(merge_journal_path(out), "{}\n");
  CHECK_THAT(tests::error_of([&] { has_unfinished_merge(out); }),
             Contains("out.dsctl-merge-journal: the journal of the merge is damaged"));
}

TEST_CASE("resume_in_place misses a merged file that was moved away") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path(), "m", 4);
  const fs::path out = dir.path() / "out";
  REQUIRE(run_and_kill(4, [&](const Progress& progress) {
    merge_in_place(open_shard_set(shards), out, {.progress = progress});
  }));
  REQUIRE(has_unfinished_merge(out));
  fs::rename(merge_partial_path(out), dir.path() / "moved");
  CHECK_THAT(tests::error_of([&] { resume_in_place(out, {}); }), Contains("is gone, though"));
  fs::rename(dir.path() / "moved", merge_partial_path(out));
  resume_in_place(out, {});
  CHECK(GgufFile::open(out).tensors().size() == 4);
  CHECK_THROWS_AS(resume_in_place(out, {}), Error);
  CHECK(tests::names_in(dir.path()) == std::vector<std::string>{"out"});
}

}  // namespace
}  // namespace dsctl::gguf
