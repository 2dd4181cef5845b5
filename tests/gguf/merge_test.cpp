#include "gguf/merge.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>

#include "gguf/error.h"
#include "gguf/shard_set.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/gguf_shards.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

TEST_CASE("merge writes byte for byte what llama-gguf-split writes") {
  const tests::TempDir dir;
  tests::copy_shards("two", dir.path());
  const GgufFile model = open_shard_set({dir.path() / "two-00002-of-00003.gguf"});
  const auto verify = GENERATE(Verify::kNo, Verify::kYes);
  const CopyCounts counts = merge(model, dir.path() / "out.gguf", {.verify = verify});
  CHECK(tests::read_text(dir.path() / "out.gguf") ==
        tests::read_text(tests::golden_shards() / "merged.gguf"));
  int64_t data_bytes = 0;
  for (const TensorInfo& tensor : model.tensors())
    data_bytes += tensor.size_bytes;
  CHECK(counts.shared + counts.kernel + counts.through == data_bytes);
  CHECK(tests::names_in(dir.path()).size() == 4);  // the shards are still there, no temporary is
}

TEST_CASE("merge keeps a model's own alignment") {
  const tests::TempDir dir;
  GgufWriter writer({3, 4096});
  writer.add("general.architecture", "llama");
  writer.add_tensor("a", {3}, std::vector<float>{1, 2, 3});
  writer.add_tensor("b", {2}, std::vector<float>{4, 5});
  const auto shards = writer.write_split(dir.path(), "m", {.n_tensors_per_shard = 1});
  merge(open_shard_set(shards), dir.path() / "m.gguf", {});
  const GgufFile merged = GgufFile::open(dir.path() / "m.gguf");
  CHECK(merged.get_uint("general.alignment") == 4096);
  REQUIRE(merged.tensors().size() == 2);
  for (const TensorInfo& tensor : merged.tensors())
    CHECK(tensor.offset_bytes % 4096 == 0);
  CHECK(std::memcmp(merged.find_tensor("b")->data, std::vector<float>{4, 5}.data(), 8) == 0);
}

TEST_CASE("merge refuses an output that would cost something") {
  const tests::TempDir dir;
  const auto shards = tests::copy_shards("two", dir.path());
  const GgufFile model = open_shard_set({shards[0]});
  const auto error = [&](const fs::path& out, IfExists if_exists) {
    return tests::error_of([&] { merge(model, out, {.if_exists = if_exists}); });
  };
  tests::write_text(dir.path() / "old.gguf", "old");
  CHECK_THAT(error(dir.path() / "old.gguf", IfExists::kFail),
             Contains("old.gguf: exists already; --force replaces it"));
  CHECK(tests::read_text(dir.path() / "old.gguf") == "old");
  CHECK(error(dir.path() / "old.gguf", IfExists::kReplace).empty());
  CHECK(GgufFile::open(dir.path() / "old.gguf").tensors().size() == 6);
  CHECK_THAT(error(shards[1], IfExists::kReplace), Contains("is one of the files to be read"));
  fs::create_symlink(shards[2], dir.path() / "link.gguf");
  CHECK_THAT(error(dir.path() / "link.gguf", IfExists::kReplace),
             Contains("is one of the files to be read"));
  CHECK_THAT(error(dir.path(), IfExists::kReplace), Contains("is a directory"));
  CHECK_THAT(error(dir.path() / "none/out.gguf", IfExists::kFail),
             Contains("there is no directory"));
  CHECK_THAT(error("/dev/null", IfExists::kReplace), Contains("is no regular file"));
  CHECK_THAT(tests::error_of([&] {
               merge(GgufFile::open(tests::golden_shards() / "tiny.gguf"), dir.path() / "x", {});
             }),
             Contains("tiny.gguf: is no shard of a split model"));
  CHECK_THAT(tests::error_of([&] {
               merge(GgufFile::open(tests::golden_shards() / "merged.gguf"), dir.path() / "x", {});
             }),
             Contains("is no shard of a split model"));
}

TEST_CASE("merge leaves nothing when it is told to stop, or a shard changes meanwhile") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path(), "m", 8);
  const auto before = tests::names_in(dir.path());
  const GgufFile model = open_shard_set({shards[0]});
  const auto stop = [](std::string_view, int64_t, int64_t) { throw std::runtime_error("stop"); };
  CHECK_THROWS_AS(merge(model, dir.path() / "out.gguf", {.progress = stop}), std::runtime_error);
  CHECK(tests::names_in(dir.path()) == before);
  const auto touch = [&](std::string_view, int64_t, int64_t) {
    fs::last_write_time(shards[2], fs::file_time_type());
  };
  CHECK_THAT(tests::error_of([&] { merge(model, dir.path() / "out.gguf", {.progress = touch}); }),
             Contains("m-00003-of-00004.gguf: changed while it was read"));
  CHECK(tests::names_in(dir.path()) == before);
}

TEST_CASE("merge says that a file may not become so large and leaves nothing") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path(), "m", 8);
  const auto before = tests::names_in(dir.path());
  std::string error;
  {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit old{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
    const rlimit small{16384, old.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    error = tests::error_of([&] { merge(open_shard_set({shards[0]}), dir.path() / "out", {}); });
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &old) == 0);
    std::signal(SIGXFSZ, SIG_DFL);
  }
  CHECK_THAT(error, Contains("out: can't be made 40.") && Contains("File too large"));
  CHECK(tests::names_in(dir.path()) == before);
}

TEST_CASE("compare_parts names the first byte that differs") {
  const tests::TempDir dir;
  const fs::path a = dir.path() / "a";
  const fs::path b = dir.path() / "b";
  std::string text(5 << 20, 'x');
  tests::write_text(a, "12" + text);
  text[(4 << 20) + 7] = 'y';
  tests::write_text(b, text);
  const DataFile in(a, 0);
  const DataFile out(b, 0);
  const std::vector<CopyPart> parts = {{in.fd(), 2, out.fd(), 0, 5 << 20, &a, &b}};
  CHECK_THAT(tests::error_of([&] { compare_parts(parts, "x", {}); }),
             Contains("b: byte 4194311 differs from byte 4194313 of") && Contains("faulty"));
  const std::vector<CopyPart> beyond = {{in.fd(), 3, out.fd(), 0, 5 << 20, &a, &b}};
  CHECK_THAT(tests::error_of([&] { compare_parts(beyond, "x", {}); }),
             Contains("ends at byte 5242882 while it is read"));
}

TEST_CASE("copy_parts moves any range to any place, to a file system of its own too") {
  const tests::TempDir dir;
  std::string text;
  for (int i = 0; text.size() < (5 << 20); ++i)
    text += std::to_string(i) + " ";
  tests::write_text(dir.path() / "in", text);
  const fs::path other = fs::exists("/dev/shm") ? "/dev/shm" : dir.path();
  const fs::path out_path = GENERATE(false, true)
                                ? other / ("dsctl-test-" + std::to_string(::getpid()))
                                : dir.path() / "out";
  tests::write_text(out_path, std::string(6 << 20, '.'));
  const DataFile in(dir.path() / "in", 0);
  const DataFile out(out_path, 2);
  // The second part could be shared where the file system can.
  std::vector<CopyPart> parts = {
      {in.fd(), 1, out.fd(), 0, 4095, &in.path(), &out.path()},
      {in.fd(), 4100, out.fd(), 8196, 3 << 20, &in.path(), &out.path()},
      {in.fd(), 0, out.fd(), (6 << 20) - 17, 17, &in.path(), &out.path()},
  };
  std::string expected(6 << 20, '.');
  int64_t total = 0;
  for (const CopyPart& part : parts) {
    expected.replace(
        static_cast<size_t>(part.out_offset_bytes), static_cast<size_t>(part.size_bytes), text,
        static_cast<size_t>(part.in_offset_bytes), static_cast<size_t>(part.size_bytes));
    total += part.size_bytes;
  }
  int64_t told = 0;
  const CopyCounts counts =
      copy_parts(parts, "copy", [&](std::string_view, int64_t done, int64_t) { told = done; });
  CHECK(told == total);
  CHECK(counts.shared + counts.kernel + counts.through == total);
  CHECK((tests::read_text(out_path) == expected));
  parts[0].in_offset_bytes = static_cast<int64_t>(text.size()) - 1;
  CHECK_THAT(tests::error_of([&] { copy_parts(parts, "copy", {}); }), Contains("ends at byte"));
  fs::remove(out_path);
}

}  // namespace
}  // namespace dsctl::gguf
