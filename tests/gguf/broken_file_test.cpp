// The corpus of damaged files: each gives one clear Error and nothing else.
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"
#include "gguf/quants/all.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

using tests::error_of;
using tests::GgufBytes;

constexpr uint64_t kHuge = uint64_t{1} << 60;
constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ4_K = 12;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;

/// What opening a file of these bytes says.
std::string error_of_bytes(const std::string& bytes) {
  const tests::TempDir dir;
  const auto path = dir.path() / "broken.gguf";
  tests::write_text(path, bytes);
  std::string message = error_of([&] { GgufFile::open(path); });
  // Every message names the file first and is one line.
  CHECK((message.empty() || message.starts_with(path.string() + ": ")));
  CHECK(message.find('\n') == std::string::npos);
  return message.empty() ? message : message.substr(path.string().size() + 2);
}

struct BrokenCase {
  std::string what;
  GgufBytes bytes;
  std::string expected;  // a part of the message
};

std::vector<BrokenCase> header_cases() {
  return {
      {"no bytes", GgufBytes(), "is empty"},
      {"part of the magic", GgufBytes().raw("GG"), "ends at byte 2"},
      {"magic only", GgufBytes().raw("GGUF"), "the version"},
      {"bad magic", GgufBytes().raw("GGUG").zeros(60), "starts with 'GGUG', expected 'GGUF'"},
      {"version 0", GgufBytes().header(0, 0, 0), "version 0, expected 2 or 3"},
      {"version 1", GgufBytes().header(0, 0, 1), "version 1"},
      {"version 4", GgufBytes().header(0, 0, 4), "newer than this program"},
      {"big-endian", GgufBytes().header(0, 0, 3U << 24), "big-endian"},
      {"no counts", GgufBytes().raw("GGUF").u32(3), "tensor count"},
      {"half a count", GgufBytes().raw("GGUF").u32(3).u64(0).u32(0), "metadata count"},
      {"2^60 tensors", GgufBytes().header(kHuge, 0).zeros(160), "the tensor count is 1152921504"},
      {"2^60 keys", GgufBytes().header(0, kHuge).zeros(160), "the metadata count is 1152921504"},
      {"-1 tensors", GgufBytes().header(~uint64_t{0}, 0).zeros(160),
       "the tensor count is 18446744"},
      {"100 tensors in 160 bytes", GgufBytes().header(100, 0).zeros(160), "more than fit"},
  };
}

std::vector<BrokenCase> metadata_cases() {
  const auto one = [] { return GgufBytes().header(0, 1); };
  return {
      {"empty key", one().text("").u32(4).u32(1).zeros(32), "metadata 1 of 1: the key is empty"},
      {"key beyond the file", one().u64(kHuge).raw("key").zeros(32), "the file ends at byte"},
      {"key of -1 bytes", one().u64(~uint64_t{0}).raw("key").zeros(32), "the file ends at byte"},
      {"key too long", one().text(std::string(65536, 'k')).u32(4).u32(1), "at most 65535"},
      {"key with an escape", one().key("a\x1b[2J", 4).u32(1), "control codes: a\\x1b[2J"},
      {"unknown value type", one().key("k", 13).zeros(32), "(k): has unknown value type 13"},
      {"value type -1", one().key("k", 0xffffffff).zeros(32), "unknown value type 4294967295"},
      {"bool of 2", one().key("k", 7).raw("\x02").zeros(32), "bool of value 2"},
      {"string beyond the file", one().key("k", kString).u64(kHuge).zeros(32),
       "(k): the file ends"},
      {"string of -1 bytes", one().key("k", kString).u64(~uint64_t{0}).zeros(9), "the file ends"},
      {"array of arrays", one().key("k", kArray).u32(9).u64(1).u32(4).u64(0), "array of arrays"},
      {"array of type 13", one().key("k", kArray).u32(13).u64(1).zeros(32), "unknown type 13"},
      {"array of 2^60", one().key("k", kArray).u32(4).u64(kHuge).zeros(32), "at most 67108864"},
      {"array of 2^26", one().key("k", kArray).u32(0).u64(1 << 26).zeros(32), "the file ends"},
      {"u64 array of 2^26", one().key("k", kArray).u32(10).u64(1 << 26).zeros(32), "the file ends"},
      {"bool array of 2^26", one().key("k", kArray).u32(7).u64(1 << 26).zeros(32), "the file ends"},
      {"strings of 2^26", one().key("k", kArray).u32(8).u64(1 << 26).zeros(32), "the file ends"},
      {"bool array with 7", one().key("k", kArray).u32(7).u64(2).raw("\x01\x07"), "of value 7"},
      {"string array cut", one().key("k", kArray).u32(8).u64(2).text("a").u64(9), "the file ends"},
      {"key twice", GgufBytes().header(0, 2).u32_entry("k", 1).u32_entry("k", 1),
       "k appears twice"},
      {"alignment 0", one().u32_entry("general.alignment", 0).zeros(9), "expected a power of two"},
      {"alignment 24", one().u32_entry("general.alignment", 24), "is 24, expected a power of two"},
      {"alignment of u64", one().key("general.alignment", 10).u64(32), "has type 10, expected 4"},
      {"alignment a string", one().string_entry("general.alignment", "32"), "expected 4 (u32)"},
      {"split.count a string", one().string_entry("split.count", "3"),
       "split.count: has type string, expected an integer"},
      {"split.count negative", one().key("split.count", 3).scalar(int16_t{-1}).zeros(9),
       "split.count: is -1, which is out of range"},
      {"split.count huge", one().u32_entry("split.count", 1 << 20), "at most 65535"},
      {"split.no too large",
       GgufBytes().header(0, 2).u32_entry("split.count", 3).u32_entry("split.no", 3),
       "split.no is 3, expected less than"},
  };
}

std::vector<BrokenCase> tensor_cases() {
  const auto one = [] { return GgufBytes().header(1, 0); };
  const auto tensor = [&](std::initializer_list<uint64_t> dims, uint32_t type, uint64_t offset) {
    return one().tensor("t", dims, type, offset).pad().zeros(1024);
  };
  const uint64_t large = uint64_t{1} << 62;
  return {
      {"empty name", one().tensor("", {1}, kF32, 0).pad().zeros(32), "1 of 1: the name is empty"},
      {"name of 64 bytes", one().tensor(std::string(64, 'n'), {1}, kF32, 0).pad().zeros(32),
       "has 64 bytes, at most 63"},
      {"name with NUL", one().tensor(std::string_view("a\0b", 3), {1}, kF32, 0).pad().zeros(32),
       "control codes: a\\x00b"},
      {"name beyond the file", one().u64(kHuge).zeros(64), "the file ends"},
      {"0 dimensions", tensor({}, kF32, 0), "(t): has 0 dimensions, expected 1 to 4"},
      {"5 dimensions", tensor({1, 1, 1, 1, 1}, kF32, 0), "has 5 dimensions"},
      {"2^32 - 1 dimensions", one().text("t").u32(0xffffffff).zeros(64), "4294967295 dimensions"},
      {"a dimension of 0", tensor({4, 0}, kF32, 0), "dimension 1 is 0, expected a positive"},
      {"a negative dimension", tensor({~uint64_t{0}}, kF32, 0), "dimension 0 is -1"},
      {"elements overflow", tensor({large, 4}, kF32, 0), "more than 2^63"},
      {"elements overflow to 0", tensor({uint64_t{1} << 32, uint64_t{1} << 32}, kF32, 0),
       "more than 2^63"},
      {"bytes overflow", tensor({large}, kF32, 0), "more than 2^63"},
      {"dimension not of blocks", tensor({255}, kQ4_K, 0), "expected a multiple of 256 for Q4_K"},
      {"retired type", tensor({32}, 4, 0), "retired type Q4_2"},
      {"unknown type", tensor({32}, 99, 0), "has type 99"},
      {"type -1", tensor({32}, 0xffffffff, 0), "has type 4294967295"},
      {"offset misaligned", tensor({4}, kF32, 4), "offset 4 is no multiple of the alignment 32"},
      {"offset beyond the file", tensor({4}, kF32, 2048), "tensor t: the file ends at byte"},
      {"offset overflows", tensor({4}, kF32, (uint64_t{1} << 63) - 32), "the file ends at byte"},
      {"offset negative", tensor({4}, kF32, ~uint64_t{31}), "beyond the end of the file"},
      {"data cut by a byte", one().tensor("t", {4}, kF32, 0).pad().zeros(15), "its 16 bytes start"},
      {"no data at all", one().tensor("t", {4}, kF32, 0), "its 16 bytes start"},
      {"huge alignment",
       GgufBytes()
           .header(1, 1)
           .u32_entry("general.alignment", 1U << 31)
           .tensor("t", {4}, kF32, 0)
           .zeros(64),
       "its 16 bytes start"},
      {"tensor twice",
       GgufBytes().header(2, 0).tensor("t", {1}, kF32, 0).tensor("t", {1}, kF32, 0).pad().zeros(64),
       "tensor t appears twice"},
      {"second tensor missing", GgufBytes().header(2, 0).tensor("t", {1}, kF32, 0).zeros(4),
       "the tensor count is 2, more than fit"},
  };
}

void check_cases(const std::vector<BrokenCase>& cases) {
  for (const BrokenCase& broken : cases) {
    INFO(broken.what);
    tests::take_largest_allocation();
    const std::string message = error_of_bytes(broken.bytes.bytes());
    INFO(message);
    CHECK(message.find(broken.expected) != std::string::npos);
    CHECK(tests::take_largest_allocation() < (1 << 20));
  }
}

TEST_CASE("GgufFile refuses a broken header") {
  check_cases(header_cases());
}
TEST_CASE("GgufFile refuses broken metadata") {
  check_cases(metadata_cases());
}
TEST_CASE("GgufFile refuses broken tensors") {
  check_cases(tensor_cases());
}

/// A small sound file with every kind of field.
std::string sound_file() {
  return GgufBytes()
      .header(2, 6)
      .string_entry("general.architecture", "llama")
      .u32_entry("general.alignment", 64)
      .key("flag", 7)
      .raw("\x01")
      .key("floats", kArray)
      .u32(6)
      .u64(2)
      .scalar(1.0F)
      .scalar(2.0F)
      .key("strings", kArray)
      .u32(8)
      .u64(2)
      .text("one")
      .text("")
      .key("big", 10)
      .u64(~uint64_t{0})
      .tensor("a.weight", {256, 2}, kQ4_K, 0)
      .tensor("b.weight", {5}, kF32, 320)
      .pad(64)
      .zeros(320 + 20)
      .bytes();
}

/// Reads everything a file offers, so that a sanitizer would see a bad pointer.
size_t walk(const GgufFile& file) {
  size_t sum = 0;
  for (const KeyValue& entry : file.metadata()) {
    sum += entry.key.size();
    CHECK(file.find(entry.key) == &entry.value);
    const auto* array = std::get_if<ArrayValue>(&entry.value.data);
    if (array) sum += array->size();
  }
  for (const TensorInfo& tensor : file.tensors()) {
    CHECK(file.find_tensor(tensor.name) == &tensor);
    for (int64_t i = 0; i < tensor.size_bytes; ++i)
      sum += static_cast<size_t>(tensor.data[i]);
    std::vector<float> row(static_cast<size_t>(tensor.dims[0]));
    dequantize_row(tensor.dtype, tensor.data, row.data(), tensor.dims[0]);
  }
  return sum;
}

TEST_CASE("GgufFile refuses a file that is cut anywhere") {
  const std::string sound = sound_file();
  REQUIRE(error_of_bytes(sound).empty());
  for (size_t size = 0; size < sound.size(); ++size) {
    INFO(size);
    CHECK(!error_of_bytes(sound.substr(0, size)).empty());
  }
}

TEST_CASE("GgufFile reads or refuses a file with any byte changed") {
  const tests::TempDir dir;
  const auto path = dir.path() / "changed.gguf";
  const std::string sound = sound_file();
  const size_t header_size = sound.size() - 340;
  size_t n_refused = 0;
  for (size_t i = 0; i < header_size; ++i) {
    for (const int change : {0x01, 0x80, 0xff, 0x10}) {
      std::string changed = sound;
      changed[i] = static_cast<char>(changed[i] ^ change);
      tests::write_text(path, changed);
      const std::string message = error_of([&] { walk(GgufFile::open(path)); });
      if (!message.empty()) ++n_refused;
    }
  }
  CHECK(n_refused > header_size);  // most fields are lengths, types and counts
}

TEST_CASE("GgufFile accepts unusual files that are sound") {
  const tests::TempDir dir;
  const auto path = dir.path() / "odd.gguf";
  const auto open = [&](const GgufBytes& bytes) {
    tests::write_text(path, bytes.bytes());
    return GgufFile::open(path);
  };
  SECTION("nothing inside, not even padding") {
    const GgufFile file = open(GgufBytes().header(0, 0));
    CHECK(file.metadata().empty());
    CHECK(file.tensors().empty());
  }
  SECTION("metadata without tensors and padding") {
    CHECK(open(GgufBytes().header(0, 1).u32_entry("k", 5)).get_uint("k") == 5);
  }
  SECTION("a gap between tensors, and tensors out of order") {
    const GgufFile file = open(GgufBytes()
                                   .header(2, 0)
                                   .tensor("late", {1}, kF32, 96)
                                   .tensor("early", {1}, kF32, 0)
                                   .pad()
                                   .zeros(100));
    CHECK(file.find_tensor("late")->data - file.find_tensor("early")->data == 96);
  }
  SECTION("an empty array and an empty string") {
    const GgufFile file =
        open(GgufBytes().header(0, 2).key("a", kArray).u32(8).u64(0).string_entry("s", ""));
    CHECK(file.find_array("a")->size() == 0);
    CHECK(file.get_string("s").empty());
  }
  SECTION("split.count 0, which means no split") {
    CHECK(open(GgufBytes().header(0, 1).u32_entry("split.count", 0)).shards().size() == 1);
  }
  SECTION("a name of 63 bytes") {
    const std::string name(63, 'n');
    CHECK(open(GgufBytes().header(1, 0).tensor(name, {1}, kF32, 0).pad().zeros(4))
              .find_tensor(name) != nullptr);
  }
}

TEST_CASE("GgufFile opens a file with 100000 tensors without a quadratic search") {
  const tests::TempDir dir;
  const auto path = dir.path() / "many.gguf";
  constexpr uint64_t kTensors = 100000;
  GgufBytes bytes;
  bytes.header(kTensors, kTensors);
  for (uint64_t i = 0; i < kTensors; ++i) {
    bytes.u32_entry("key." + std::to_string(i), static_cast<uint32_t>(i));
  }
  for (uint64_t i = 0; i < kTensors; ++i) {
    bytes.tensor("blk." + std::to_string(i), {1}, kF32, 0);
  }
  tests::write_text(path, bytes.pad().zeros(4).bytes());
  const GgufFile file = GgufFile::open(path);  // a quadratic one would take minutes
  CHECK(file.tensors().size() == kTensors);
  CHECK(file.get_uint("key.99999") == 99999);
  CHECK(file.find_tensor("blk.100000") == nullptr);
}

}  // namespace
}  // namespace dsctl::gguf
