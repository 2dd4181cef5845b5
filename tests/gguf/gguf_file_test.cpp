#include "gguf/gguf_file.h"

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "gguf/error.h"
#include "gguf/gguf_writer.h"
#include "gguf/split.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

using tests::error_of;

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

/// A model of four tensors t0..t3, each filled with its number.
GgufWriter model(const std::string& architecture = "llama", int n_tensors = 4) {
  GgufWriter writer;
  writer.add("general.architecture", architecture);
  for (int i = 0; i < n_tensors; ++i) {
    writer.add_tensor("t" + std::to_string(i), {8}, std::vector<float>(8, static_cast<float>(i)));
  }
  return writer;
}

/// Three shards of the model in `directory`.
std::vector<std::filesystem::path> split_model(const std::filesystem::path& directory,
                                               const std::string& prefix = "model") {
  SplitOptions options;
  options.n_shards = 3;
  return model().write_split(directory, prefix, options);
}

TEST_CASE("GgufFile gives typed values and names the key that has another type") {
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  GgufWriter writer;
  writer.add("text", "a");
  writer.add("small", int8_t{-3});
  writer.add("large", uint64_t{18446744073709551615u});
  writer.add("real", 0.5F);
  writer.add("flag", true);
  writer.add_array("array", std::vector<uint32_t>{1});
  writer.write(path);
  const GgufFile file = GgufFile::open(path);
  CHECK(file.find_int("small") == -3);
  CHECK(file.find_uint("large") == 18446744073709551615u);
  CHECK(file.find_float("small") == -3.0);
  CHECK(file.find_float("real") == 0.5);
  CHECK(!file.find("none"));
  CHECK(!file.find_string("none"));
  CHECK(!file.find_int("none"));
  CHECK(!file.find_uint("none"));
  CHECK(!file.find_float("none"));
  CHECK(!file.find_bool("none"));
  CHECK(file.find_array("none") == nullptr);
  contains(error_of([&] { file.get_string("none"); }), "none: missing");
  contains(error_of([&] { file.architecture(); }), "general.architecture: missing");
  contains(error_of([&] { file.find_uint("small"); }), "small: is -3, which is out of range");
  contains(error_of([&] { file.find_int("large"); }), "large: is 18446744073709551615, which");
  contains(error_of([&] { file.find_uint("real"); }), "real: has type f32, expected an integer");
  contains(error_of([&] { file.find_uint("flag"); }), "flag: has type bool, expected an integer");
  contains(error_of([&] { file.find_string("flag"); }), "flag: has type bool, expected a string");
  contains(error_of([&] { file.find_bool("small"); }), "small: has type i8, expected a bool");
  contains(error_of([&] { file.find_float("text"); }), "text: has type string, expected a number");
  contains(error_of([&] { file.find_array("text"); }), "text: has type string, expected an array");
  contains(error_of([&] { file.find_int("array"); }), "array: has type array, expected an integer");
}

TEST_CASE("GgufFile keeps its views when it is moved") {
  const tests::TempDir dir;
  model().write(dir.path() / "model.gguf");
  GgufFile first = GgufFile::open(dir.path() / "model.gguf");
  const std::byte* data = first.find_tensor("t3")->data;
  GgufFile second = std::move(first);
  CHECK(second.find_tensor("t3")->data == data);
  model("other").write(dir.path() / "other.gguf");
  second = GgufFile::open(dir.path() / "other.gguf");
  CHECK(second.architecture() == "other");
  CHECK(second.find_tensor("t0") == &second.tensors()[0]);
}

TEST_CASE("GgufFile is read by many threads at once") {
  const tests::TempDir dir;
  model().write(dir.path() / "model.gguf");
  const GgufFile file = GgufFile::open(dir.path() / "model.gguf");
  std::atomic<int> n_found = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int k = 0; k < 1000; ++k) {
          if (file.find_tensor("t" + std::to_string(k % 4)) && file.architecture() == "llama") {
            ++n_found;
          }
        }
      });
    }
  }
  CHECK(n_found == 4000);
}

TEST_CASE("parse_shard_name is the inverse of shard_file_name") {
  const auto name = parse_shard_name("DeepSeek-R1-UD-IQ1_S-00002-of-00003.gguf");
  REQUIRE(name);
  CHECK(name->prefix == "DeepSeek-R1-UD-IQ1_S");
  CHECK(name->shard_idx == 1);
  CHECK(name->n_shards == 3);
  CHECK(shard_file_name(*name) == "DeepSeek-R1-UD-IQ1_S-00002-of-00003.gguf");
  CHECK(parse_shard_name("a-00001-of-00002-00001-of-00002.gguf")->prefix == "a-00001-of-00002");
  for (const char* other :
       {"model.gguf", "-00001-of-00002.gguf", "m-00003-of-00002.gguf", "m-00000-of-00002.gguf",
        "m-0001-of-00002.gguf", "m-00001-of-0002.gguf", "m-00001-of-00002.bin",
        "m00001-of-00002.gguf", "m-00001_of_00002.gguf", "", ".gguf", "m-+0001-of-00002.gguf"}) {
    INFO(other);
    CHECK(!parse_shard_name(other));
  }
}

TEST_CASE("GgufFile names the shards that are missing") {
  const tests::TempDir dir;
  const auto paths = split_model(dir.path());
  std::filesystem::remove(paths[0]);
  std::filesystem::remove(paths[2]);
  const std::string message = error_of([&] { GgufFile::open(paths[1]); });
  contains(message, "2 of 3 shards missing: ");
  contains(message, "model-00001-of-00003.gguf");
  contains(message, "model-00003-of-00003.gguf");
}

TEST_CASE("GgufFile names a shard that is truncated") {
  const tests::TempDir dir;
  const auto paths = split_model(dir.path());
  const auto size = std::filesystem::file_size(paths[1]);
  std::filesystem::resize_file(paths[1], size - 32);
  const std::string message = error_of([&] { GgufFile::open(paths[0]); });
  contains(message, paths[1].string() + ": tensor t");
  contains(message, "the file ends at byte " + std::to_string(size - 32));
}

TEST_CASE("GgufFile names a shard that is a Git-LFS pointer") {
  const tests::TempDir dir;
  const auto paths = split_model(dir.path());
  tests::write_text(paths[2], "version https://git-lfs.github.com/spec/v1\nsize 5\n");
  contains(error_of([&] { GgufFile::open(paths[0]); }), paths[2].string() + ": is a Git-LFS");
}

TEST_CASE("GgufFile names shards whose files were swapped") {
  const tests::TempDir dir;
  const auto paths = split_model(dir.path());
  std::filesystem::rename(paths[1], dir.path() / "aside");
  std::filesystem::rename(paths[2], paths[1]);
  std::filesystem::rename(dir.path() / "aside", paths[2]);
  contains(error_of([&] { GgufFile::open(paths[0]); }),
           paths[1].string() + ": split.no is 2, expected 1 (shard 2 of 3)");
  contains(error_of([&] { GgufFile::open(paths[1]); }),
           "says it is shard 3 of 3 (split.no 2, split.count 3), but its name says shard 2 of 3");
}

TEST_CASE("GgufFile refuses a shard that lost its name") {
  const tests::TempDir dir;
  const auto paths = split_model(dir.path());
  std::filesystem::rename(paths[1], dir.path() / "second.gguf");
  contains(error_of([&] { GgufFile::open(dir.path() / "second.gguf"); }),
           "says it is shard 2 of 3, but its name does not end in -NNNNN-of-NNNNN.gguf");
}

TEST_CASE("GgufFile refuses a shard of another split in its place") {
  const tests::TempDir dir;
  const auto paths = split_model(dir.path());
  SECTION("with another count of shards") {
    SplitOptions options;
    options.n_shards = 2;
    const auto other = model().write_split(dir.path(), "other", options);
    std::filesystem::copy_file(other[1], paths[1],
                               std::filesystem::copy_options::overwrite_existing);
    contains(error_of([&] { GgufFile::open(paths[0]); }),
             paths[1].string() + ": is shard 2 of 2, but was given as shard 2 of 3");
  }
  SECTION("with another total of tensors") {
    SplitOptions options;
    options.n_shards = 3;
    const auto other = model("llama", 5).write_split(dir.path(), "other", options);
    std::filesystem::copy_file(other[1], paths[1],
                               std::filesystem::copy_options::overwrite_existing);
    contains(error_of([&] { GgufFile::open(paths[0]); }),
             paths[1].string() + ": split.tensors.count differs from that of " + paths[0].string());
  }
  SECTION("an ordinary file") {
    model().write(paths[1]);
    contains(error_of([&] { GgufFile::open(paths[0]); }), paths[1].string() + ": is shard 1 of 1");
  }
  SECTION("with the same tensors again") {
    // The shape of a shard of the same model cut elsewhere: totals agree, a name comes twice.
    tests::GgufBytes bytes;
    bytes.header(1, 3).u32_entry("split.no", 1).u32_entry("split.count", 3);
    bytes.u32_entry("split.tensors.count", 4).tensor("t0", {8}, 0, 0).pad().zeros(32);
    tests::write_text(paths[1], bytes.bytes());
    contains(error_of([&] { GgufFile::open(paths[0]); }),
             paths[1].string() + ": tensor t0 appears twice, first in " + paths[0].string());
  }
  SECTION("with fewer tensors than the total says") {
    tests::GgufBytes bytes;
    bytes.header(0, 3).u32_entry("split.no", 1).u32_entry("split.count", 3);
    tests::write_text(paths[1], bytes.u32_entry("split.tensors.count", 4).bytes());
    contains(error_of([&] { GgufFile::open(paths[0]); }),
             "split.tensors.count is 4, but the 3 shards hold 3 tensors");
  }
}

TEST_CASE("GgufFile opens shards by any names in their order and no other") {
  const tests::TempDir dir;
  auto paths = split_model(dir.path());
  for (size_t i = 0; i < paths.size(); ++i) {
    const auto blob = dir.path() / ("sha256-" + std::to_string(9 - i));
    std::filesystem::rename(paths[i], blob);
    paths[i] = blob;
  }
  const GgufFile file = GgufFile::open_shards(paths);
  CHECK(file.tensors().size() == 4);
  CHECK(file.find_tensor("t3")->shard_idx == 2);
  CHECK(file.size_bytes() == static_cast<int64_t>(std::filesystem::file_size(paths[0]) +
                                                  std::filesystem::file_size(paths[1]) +
                                                  std::filesystem::file_size(paths[2])));
  contains(error_of([&] {
             GgufFile::open_shards({paths[0], paths[2], paths[1]});
           }),
           paths[2].string() + ": split.no is 2, expected 1");
  contains(error_of([&] {
             GgufFile::open_shards({paths[0], paths[1]});
           }),
           paths[0].string() + ": is shard 1 of 3, but was given as shard 1 of 2");
  contains(error_of([&] {
             GgufFile::open_shards({paths[0], paths[0], paths[1]});
           }),
           "split.no is 0");
  contains(error_of([&] { GgufFile::open_shards({}); }), "no GGUF file given");
}

TEST_CASE("GgufFile finds shards beside a symbolic link, not beside its target") {
  const tests::TempDir dir;
  std::filesystem::create_directories(dir.path() / "blobs");
  const auto paths = split_model(dir.path() / "blobs");
  std::vector<std::filesystem::path> links;
  for (size_t i = 0; i < paths.size(); ++i) {
    const auto blob = dir.path() / "blobs" / std::to_string(i);
    std::filesystem::rename(paths[i], blob);
    links.push_back(dir.path() / paths[i].filename());
    std::filesystem::create_symlink(blob, links.back());
  }
  CHECK(GgufFile::open(links[2]).tensors().size() == 4);
}

TEST_CASE("GgufFile opens a shard by a path without a directory") {
  const tests::TempDir dir;
  split_model(dir.path());
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  const size_t n_tensors = GgufFile::open("model-00002-of-00003.gguf").tensors().size();
  std::filesystem::current_path(before);
  CHECK(n_tensors == 4);
}

TEST_CASE("MappedFile refuses what is no regular file") {
  const tests::TempDir dir;
  contains(error_of([&] { MappedFile(dir.path()); }), "is a directory");
  contains(error_of([&] { MappedFile(dir.path() / "none"); }), "No such file");
  contains(error_of([&] { MappedFile("/dev/null"); }), "is no regular file");
  tests::write_text(dir.path() / "empty", "");
  CHECK(MappedFile(dir.path() / "empty").bytes().empty());
}

}  // namespace
}  // namespace dsctl::gguf
