#include "gguf/gguf_stream_writer.h"

#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <random>
#include <thread>
#include <vector>

#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/printable.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

using Catch::Contains;

std::vector<std::byte> random_bytes(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes)
    byte = static_cast<std::byte>(random() & 0xff);
  return bytes;
}

/// Three tensors of which the middle one needs padding; data from `data` or only declared.
GgufWriter make_writer(const std::vector<std::vector<std::byte>>& data, bool declared,
                       uint32_t alignment = 32) {
  GgufWriter writer({3, alignment});
  writer.add("general.architecture", "llama");
  const std::vector<std::pair<std::string, std::vector<int64_t>>> shapes = {
      {"a", {64, 3}}, {"b", {37}}, {"c", {5, 4, 2}}};
  for (size_t i = 0; i < shapes.size(); ++i) {
    const auto& [name, dims] = shapes[i];
    if (declared) {
      writer.declare_tensor(name, DType::I8, dims);
    } else {
      writer.add_tensor(name, DType::I8, dims, data[i]);
    }
  }
  return writer;
}

std::vector<std::vector<std::byte>> make_data() {
  return {random_bytes(192, 1), random_bytes(37, 2), random_bytes(40, 3)};
}

size_t n_files(const std::filesystem::path& directory) {
  const std::filesystem::directory_iterator files(directory);
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

TEST_CASE("GgufStreamWriter makes the file that GgufWriter makes, from pieces in any order") {
  const tests::TempDir dir;
  const auto alignment = GENERATE(uint32_t{8}, uint32_t{32}, uint32_t{4096});
  const auto data = make_data();
  make_writer(data, false, alignment).write(dir.path() / "whole.gguf");

  GgufStreamWriter stream(dir.path() / "pieces.gguf", make_writer(data, true, alignment));
  for (const size_t i : {2U, 0U, 1U}) {
    const auto bytes = std::span<const std::byte>(data[i]);
    for (size_t end = bytes.size(); end > 0;) {
      const size_t begin = end - std::min<size_t>(end, 17);
      stream.write(i, static_cast<int64_t>(begin), bytes.subspan(begin, end - begin));
      end = begin;
    }
  }
  CHECK_FALSE(std::filesystem::exists(dir.path() / "pieces.gguf"));
  stream.finish();
  CHECK(tests::read_text(dir.path() / "pieces.gguf") ==
        tests::read_text(dir.path() / "whole.gguf"));
  CHECK(n_files(dir.path()) == 2);
}

TEST_CASE("GgufStreamWriter takes pieces from many threads") {
  const tests::TempDir dir;
  constexpr size_t kBytes = 1 << 20;
  const auto bytes = random_bytes(kBytes, 7);
  GgufWriter header;
  header.declare_tensor("t", DType::I8, {int64_t{kBytes}});
  GgufStreamWriter stream(dir.path() / "m.gguf", header);
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (size_t begin = t * 1000; begin < kBytes; begin += 4000) {
          const size_t size = std::min<size_t>(1000, kBytes - begin);
          stream.write(0, static_cast<int64_t>(begin), std::span(bytes).subspan(begin, size));
        }
      });
    }
  }
  stream.finish();
  const GgufFile file = GgufFile::open(dir.path() / "m.gguf");
  const TensorInfo* tensor = file.find_tensor("t");
  REQUIRE(tensor != nullptr);
  CHECK(std::equal(bytes.begin(), bytes.end(), tensor->data));
}

TEST_CASE("GgufStreamWriter writes tensors that came with data by itself") {
  const tests::TempDir dir;
  GgufWriter header;
  header.add_tensor("given", {2}, std::vector<float>{1, 2});
  header.declare_tensor("later", DType::F32, {2});
  GgufStreamWriter stream(dir.path() / "m.gguf", header);
  const std::vector<float> later = {3, 4};
  stream.write(1, 0, std::as_bytes(std::span(later)));
  stream.finish();
  const GgufFile file = GgufFile::open(dir.path() / "m.gguf");
  CHECK(file.find_tensor("given")->data[7] == std::byte{0x40});
  CHECK(file.find_tensor("later")->data[7] == std::byte{0x40});
}

TEST_CASE("GgufStreamWriter refuses a tensor that is not whole, and pieces that leave it") {
  const tests::TempDir dir;
  const auto path = dir.path() / "m.gguf";
  const auto data = make_data();
  {
    GgufStreamWriter stream(path, make_writer(data, true));
    CHECK_THROWS_AS(stream.write(0, 1, data[0]), Error);
    CHECK_THROWS_AS(stream.write(0, -1, std::span(data[0]).first(1)), Error);
    CHECK_THROWS_AS(stream.write(0, INT64_MAX, std::span(data[0]).first(1)), Error);
    stream.write(0, 0, data[0]);
    stream.write(1, 0, data[1]);
    // As many bytes as the tensor has, but some of them twice: a gap is left.
    stream.write(2, 0, std::span(data[2]).first(20));
    stream.write(2, 10, std::span(data[2]).subspan(10, 20));
    CHECK_THAT(tests::error_of([&] { stream.finish(); }), Contains("tensor c has 30 of its 40"));
    stream.write(2, 29, std::span(data[2]).subspan(29));
    CHECK_NOTHROW(stream.finish());
  }
  std::filesystem::remove(path);
  { const GgufStreamWriter unfinished(path, make_writer(data, true)); }
  CHECK(n_files(dir.path()) == 0);
}

TEST_CASE("GgufWriter refuses to write a tensor that was only declared") {
  const tests::TempDir dir;
  GgufWriter writer;
  writer.declare_tensor("t", DType::F32, {2});
  CHECK_THAT(tests::error_of([&] { writer.write(dir.path() / "m.gguf"); }),
             Contains("t: was declared without data"));
  CHECK_THROWS_AS(writer.declare_tensor("t", DType::F32, {2}), Error);
  CHECK_THROWS_AS(writer.declare_tensor("u", DType::Q4_0, {16}), Error);
  CHECK(n_files(dir.path()) == 0);
}

TEST_CASE("GgufStreamWriter says how much room a full disk lacks and leaves nothing") {
  const tests::TempDir dir;
  GgufWriter header;
  header.declare_tensor("t", DType::I8, {int64_t{1} << 50});
  const std::string error =
      tests::error_of([&] { GgufStreamWriter(dir.path() / "m.gguf", header); });
  CHECK_THAT(error, Contains("m.gguf: needs 1.13 PB, but only ") && Contains("are free"));
  CHECK(n_files(dir.path()) == 0);
  header.declare_tensor("u", DType::F64, {int64_t{1} << 59});
  header.declare_tensor("v", DType::F64, {int64_t{1} << 59});
  CHECK_THAT(tests::error_of([&] { header.layout(); }), Contains("more than 2^63 bytes"));
}

TEST_CASE("A writer removes what a killed writer of the same path left behind") {
  const tests::TempDir dir;
  const auto path = dir.path() / "m.gguf";
  const pid_t child = ::fork();
  if (child == 0) {
    const GgufStreamWriter abandoned(path, make_writer(make_data(), true));
    ::raise(SIGKILL);
  }
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  REQUIRE(n_files(dir.path()) == 1);
  tests::write_text(dir.path() / "m.gguf.tmp-mine", "not a temporary of ours");
  tests::write_text(dir.path() / "n.gguf.tmp-1", "of another file");
  GgufStreamWriter stream(path, make_writer(make_data(), true));
  CHECK(n_files(dir.path()) == 3);
}

TEST_CASE("Sizes in messages have three figures") {
  CHECK(printable_size(0) == "0 bytes");
  CHECK(printable_size(999) == "999 bytes");
  CHECK(printable_size(1000) == "1.00 kB");
  CHECK(printable_size(48'339'779'936) == "48.3 GB");
  CHECK(printable_size(404'430'188'544) == "404 GB");
  CHECK(printable_size(999'600'000) == "1.00 GB");
}

}  // namespace
}  // namespace dsctl::gguf
