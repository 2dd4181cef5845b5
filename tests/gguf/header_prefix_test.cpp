// A model known by the first bytes of its files, as they come over a network.
#include <fstream>

#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"
#include "gguf/shard_parser.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using tests::error_of;
using tests::GgufBytes;
using tests::read_text;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

GgufWriter model() {
  GgufWriter writer;
  writer.add("general.architecture", "llama");
  writer.add("llama.block_count", uint32_t{2});
  writer.add_strings("tokenizer.ggml.tokens", std::vector<std::string>(1000, "token"));
  writer.add_array("tokenizer.ggml.scores", std::vector<float>(1000, 0.5f));
  for (int i = 0; i < 20; ++i)
    writer.add_tensor("blk." + std::to_string(i) + ".w", {64, 4}, std::vector<float>(256, 1.0f));
  return writer;
}

TEST_CASE("header_bytes_needed asks for more until the header is whole") {
  const tests::TempDir dir;
  model().write(dir.path() / "m.gguf");
  const std::string file = read_text(dir.path() / "m.gguf");
  const auto size = static_cast<int64_t>(file.size());
  const int64_t header = header_bytes_needed("m", bytes_of(file), size);
  CHECK(header < size);
  CHECK(GgufFile::open(dir.path() / "m.gguf").tensors()[0].offset_bytes - header < 32);
  int64_t have = 0;
  int n_asked = 0;
  while (true) {
    const int64_t needed =
        header_bytes_needed("m", bytes_of(file).first(static_cast<size_t>(have)), size);
    if (needed <= have) break;
    CHECK(needed > have);
    CHECK(needed <= header);  // never more than there is
    have = needed;
    ++n_asked;
  }
  CHECK(have == header);
  CHECK(n_asked > 100);  // field by field; a real reader takes larger steps
  for (const int64_t less :
       {int64_t{0}, int64_t{1}, int64_t{3}, int64_t{23}, header / 2, header - 1})
    CHECK(header_bytes_needed("m", bytes_of(file).first(static_cast<size_t>(less)), size) > less);
}

TEST_CASE("A model opens by its headers and has everything but its data") {
  const tests::TempDir dir;
  const auto paths = model().write_split(dir.path(), "m", {.n_shards = 3});
  const GgufFile whole = GgufFile::open(paths[0]);
  std::vector<PartialFile> files;
  for (const fs::path& path : paths) {
    const std::string file = read_text(path);
    const auto size = static_cast<int64_t>(file.size());
    const auto header = static_cast<size_t>(header_bytes_needed(path, bytes_of(file), size));
    PartialFile& partial = files.emplace_back();
    partial.path = path.filename();
    partial.size_bytes = size;
    const auto bytes = bytes_of(file).first(header);
    partial.prefix.assign(bytes.begin(), bytes.end());
  }
  const GgufFile headers = GgufFile::open_headers(files);
  CHECK(headers.size_bytes() == whole.size_bytes());
  CHECK(headers.metadata().size() == whole.metadata().size());
  CHECK(headers.find_array("tokenizer.ggml.tokens")->size() == 1000);
  REQUIRE(headers.tensors().size() == whole.tensors().size());
  for (size_t i = 0; i < whole.tensors().size(); ++i) {
    const TensorInfo& a = headers.tensors()[i];
    const TensorInfo& b = whole.tensors()[i];
    CHECK((a.name == b.name && a.dims == b.dims && a.offset_bytes == b.offset_bytes &&
           a.size_bytes == b.size_bytes && a.shard_idx == b.shard_idx));
    CHECK(a.data[a.size_bytes - 1] == std::byte{0});
  }
}

TEST_CASE("The header of a file of terabytes takes no memory for the rest") {
  GgufBytes bytes;
  bytes.header(1, 1).string_entry("general.architecture", "llama");
  bytes.tensor("w", {1 << 20, 1 << 20}, 0, 0).pad();
  constexpr int64_t kData = int64_t{4} << 40;
  PartialFile file;
  file.path = "huge.gguf";
  file.size_bytes = static_cast<int64_t>(bytes.bytes().size()) + kData;
  const auto prefix = bytes_of(bytes.bytes());
  file.prefix.assign(prefix.begin(), prefix.end());
  tests::take_largest_allocation();
  const GgufFile model = GgufFile::open_headers({file});
  CHECK(tests::take_largest_allocation() < 100'000);
  CHECK(model.tensors()[0].size_bytes == kData);
  CHECK(model.tensors()[0].data[kData - 1] == std::byte{0});
}

TEST_CASE("A broken header is refused before all of it is here") {
  const auto needed = [](const GgufBytes& bytes, int64_t size) {
    return error_of([&] { header_bytes_needed("m", bytes_of(bytes.bytes()), size); });
  };
  CHECK_THAT(needed(GgufBytes().raw("<!DOCTYPE html>"), 1'000'000), Contains("m: "));
  CHECK_THAT(needed(GgufBytes().raw("version https://git-lfs.github.com/spec/v1\n"), 130),
             Contains("Git-LFS"));
  CHECK_THAT(needed(GgufBytes().header(uint64_t{1} << 40, 0), 1'000'000),
             Contains("tensor count is 1099511627776"));
  // What can't be in the file is an error, what can is asked for.
  GgufBytes text;
  text.header(0, 1).key("k", 8).u64(5'000'000);
  CHECK_THAT(needed(text, 1'000'000), Contains("the file ends at byte 1000000"));
  CHECK(header_bytes_needed("m", bytes_of(text.bytes()), 9'000'000) ==
        static_cast<int64_t>(text.bytes().size()) + 5'000'000);
  CHECK_THAT(error_of([&] {
               PartialFile file;
               file.path = "m";
               file.prefix.assign(100, std::byte{0});
               file.size_bytes = 50;
               GgufFile::open_headers({file});
             }),
             Contains("has 50 bytes, but 100"));
}

}  // namespace
}  // namespace dsctl::gguf
