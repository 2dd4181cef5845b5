#include <algorithm>

#include "gguf/convert/safetensors.h"
#include "gguf/error.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_safetensors.h"
#include "tests/support/paths.h"

namespace dsctl::gguf::convert {
namespace {

using Catch::Matchers::Contains;
using tests::safetensors_bytes;

std::vector<SafeTensor> parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), "x.safetensors");
}

TEST_CASE("safetensors: tensors come sorted by name, with their data") {
  const std::string bytes = safetensors_bytes(
      {tests::f32_tensor("b", {2, 3}, tests::ramp(6)), tests::bf16_tensor("a", {4}, {1, 2, 3, 4})});
  const auto tensors = parse(bytes);
  REQUIRE(tensors.size() == 2);
  CHECK(tensors[0].name == "a");
  CHECK(tensors[0].type == ScalarType::kBF16);
  CHECK(tensors[1].shape == std::vector<int64_t>{2, 3});
  CHECK(tensors[1].data.size() == 24);
  CHECK(tensors[1].data.data() ==
        reinterpret_cast<const std::byte*>(bytes.data()) + (bytes.size() - 32));
}

TEST_CASE("safetensors: a broken file is refused with what is wrong") {
  struct Case {
    std::string header, data, message;
  };
  const std::string good = R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})";
  const auto tensor = [](const std::string& fields) { return "{\"a\": {" + fields + "}}"; };
  const std::vector<Case> cases = {
      {good, "1234567", "the download is incomplete"},
      {good, "123456789", "1 bytes after the last tensor"},
      {"{\"a\"", "", "no valid JSON"},
      {"[]", "", "is no safetensors file"},
      {tensor(R"("dtype": "F99", "shape": [], "data_offsets": [0, 4])"), "1234", "\"F99\""},
      {tensor(R"("dtype": "F32", "data_offsets": [0, 4])"), "1234", "shape"},
      {tensor(R"("dtype": "F32", "shape": [1])"), "1234", "data_offsets"},
      {tensor(R"("dtype": "F32", "shape": [-1], "data_offsets": [0, 4])"), "1234", "dimension"},
      {tensor(R"("dtype": "F32", "shape": [1.5], "data_offsets": [0, 4])"), "1234", "dimension"},
      {tensor(R"("dtype": "F32", "shape": [1099511627776, 1099511627776], "data_offsets": [0, 4])"),
       "1234", "too many elements"},
      {tensor(R"("dtype": "F32", "shape": [2], "data_offsets": [0, 4])"), "1234", "takes 8 bytes"},
      {tensor(R"("dtype": "F32", "shape": [1], "data_offsets": [4, 8])"), "12345678", "begins"},
      {tensor(R"("dtype": "F32", "shape": [1], "data_offsets": [8, 4])"), "12345678",
       "data_offsets"},
      {tensor(R"("dtype": "F32", "shape": [1,1,1,1,1,1,1,1,1], "data_offsets": [0, 4])"), "1234",
       "at most 8"},
      {R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
           "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})",
       "1", "twice"},
      {R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
           "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}})",
       "123", "begins at byte 1 of the data, expected 2"},
  };
  for (const Case& broken : cases) {
    CAPTURE(broken.header);
    CHECK_THROWS_WITH(parse(safetensors_bytes(broken.header, broken.data)),
                      Contains(broken.message));
  }
}

TEST_CASE("safetensors: what is no such file at all is named") {
  CHECK_THROWS_WITH(parse(""), Contains("no safetensors file"));
  CHECK_THROWS_WITH(parse(std::string(8, '\xff') + "{}"), Contains("no safetensors file"));
  CHECK_THROWS_WITH(parse("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
                    Contains("Git-LFS pointer"));
  std::string cut = safetensors_bytes({tests::f32_tensor("a", {1}, {1})});
  cut.resize(20);
  CHECK_THROWS_WITH(parse(cut), Contains("the download is incomplete"));
}

TEST_CASE("Checkpoint opens the files of an index in order of their names") {
  const tests::TempDir dir;
  tests::write_file(dir.path() / "b.safetensors",
                    safetensors_bytes({tests::f32_tensor("a", {1}, {1})}));
  tests::write_file(dir.path() / "a.safetensors",
                    safetensors_bytes({tests::f32_tensor("z", {1}, {2})}));
  const auto write_index = [&](const std::string& map) {
    tests::write_file(dir.path() / "model.safetensors.index.json",
                      "{\"weight_map\": {" + map + "}}");
  };
  write_index(R"("a": "b.safetensors", "z": "a.safetensors")");
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  REQUIRE(checkpoint.tensors().size() == 2);
  CHECK(checkpoint.tensors()[0].name == "z");
  CHECK(checkpoint.find("a") == &checkpoint.tensors()[1]);
  CHECK(checkpoint.find("b") == nullptr);

  write_index(R"("a": "b.safetensors", "z": "c.safetensors")");
  CHECK_THROWS_WITH(Checkpoint::open(dir.path()), Contains("c.safetensors: no such file"));
  write_index(R"("a": "b.safetensors")");
  CHECK_NOTHROW(Checkpoint::open(dir.path()));
  write_index(R"("a": "b.safetensors", "y": "b.safetensors")");
  CHECK_THROWS_WITH(Checkpoint::open(dir.path()), Contains("has no tensor \"y\""));
  write_index(R"("x": "b.safetensors")");
  CHECK_THROWS_WITH(Checkpoint::open(dir.path()), Contains("not where the index has it"));
  for (const std::string name : {"../b.safetensors", "/etc/passwd", "..", ""}) {
    write_index("\"a\": \"" + name + "\"");
    CHECK_THROWS_WITH(Checkpoint::open(dir.path()), Contains("no name of a file"));
  }
  write_index("");
  CHECK_THROWS_WITH(Checkpoint::open(dir.path()), Contains("weight_map is empty"));
}

TEST_CASE("Checkpoint without an index takes model*.safetensors") {
  const tests::TempDir dir;
  CHECK_THROWS_WITH(Checkpoint::open(dir.path()), Contains("no model*.safetensors"));
  tests::write_file(dir.path() / "model-00002-of-00002.safetensors",
                    safetensors_bytes({tests::f32_tensor("a", {1}, {1})}));
  tests::write_file(dir.path() / "model-00001-of-00002.safetensors",
                    safetensors_bytes({tests::f32_tensor("b", {1}, {1})}));
  tests::write_file(dir.path() / "adapter.safetensors", "no");
  CHECK(Checkpoint::open(dir.path()).tensors()[0].name == "b");
  tests::write_file(dir.path() / "model.safetensors",
                    safetensors_bytes({tests::f32_tensor("a", {1}, {1})}));
  CHECK_THROWS_WITH(Checkpoint::open(dir.path()), Contains("is in another file too"));
}

}  // namespace
}  // namespace dsctl::gguf::convert
