#include "commands/perplexity.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "commands/error.h"
#include "commands/logits_file.h"
#include "commands/text_chunks.h"
#include "gguf/gguf_writer.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/recording_console.h"

namespace dsctl::commands {
namespace {

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

LogitsHeader small_header() {
  return {.n_ctx = 8, .n_vocab = 5, .n_chunks = 1, .tokens = {0, 1, 2, 3, 4, 0, 1, 2}};
}

TEST_CASE("encode_logits keeps log-probabilities to a step of the 16 bits") {
  const std::vector<float> logits{1.5F, -2.0F, 9.25F, -30.0F, 0.0F};
  std::vector<uint16_t> row(small_header().row_size());
  encode_logits(logits, row.data());
  const LogitsRow decoded = decode_logits(row.data());
  double sum = 0;
  for (const float logit : logits)
    sum += std::exp(static_cast<double>(logit));
  CHECK(decoded.scale == Approx(16.0 / 65535));
  CHECK(decoded.codes[2] == 65535);
  CHECK(decoded.codes[3] == 0);  // more than 16 below the largest
  for (const size_t i : {0U, 1U, 2U, 4U}) {
    const float back = decoded.scale * static_cast<float>(decoded.codes[i]) + decoded.min;
    CHECK(back == Approx(logits[i] - std::log(sum)).margin(16.0 / 65535));
  }
  // Equal logits have no range.
  encode_logits(std::vector<float>(5, 3.0F), row.data());
  CHECK(decode_logits(row.data()).scale == 0.0F);
  CHECK(decode_logits(row.data()).min == Approx(-std::log(5.0)));
}

TEST_CASE("a logits file comes back, and appears only when it is whole") {
  const tests::TempDir dir;
  const fs::path path = dir.path() / "base";
  const LogitsHeader header = small_header();
  REQUIRE(header.n_scored() == 3);
  REQUIRE(header.row_size() == 10);
  std::vector<uint16_t> rows(3 * header.row_size());
  for (size_t i = 0; i < rows.size(); ++i)
    rows[i] = static_cast<uint16_t>(i * 7);
  { LogitsFileWriter unfinished(path, header); }
  CHECK(fs::is_empty(dir.path()));
  {
    LogitsFileWriter writer(path, header);
    writer.write(rows);
    CHECK_FALSE(fs::exists(path));
    writer.finish();
  }
  LogitsFileReader reader(path);
  CHECK(reader.header().tokens == header.tokens);
  CHECK(reader.header().n_vocab == 5);
  CHECK(reader.read(3) == rows);
}

TEST_CASE("a damaged logits file is refused") {
  const tests::TempDir dir;
  const fs::path path = dir.path() / "base";
  {
    LogitsFileWriter writer(path, small_header());
    writer.write(std::vector<uint16_t>(30));
    writer.finish();
  }
  std::ifstream in(path, std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(in), {}};
  const auto message = [&](const std::string& bytes) -> std::string {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    try {
      LogitsFileReader reader(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message(good).empty());
  for (size_t size = 0; size < good.size(); ++size)
    CHECK_FALSE(message(good.substr(0, size)).empty());
  const auto with = [&](size_t offset, int32_t value) {
    std::string bytes = good;
    std::memcpy(bytes.data() + offset, &value, sizeof(value));
    return message(bytes);
  };
  CHECK_THAT(with(0, 0), Contains("does not begin with '_logits_'"));
  CHECK_THAT(with(8, -1), Contains("damaged"));
  CHECK_THAT(with(12, 0), Contains("damaged"));
  CHECK_THAT(with(16, 2000000000), Contains("cut off"));
  CHECK_THAT(with(8 + 12, 5), Contains("tokens outside"));
}

TEST_CASE("read_chunks cuts a text as llama-perplexity does") {
  const tests::TempDir dir;
  gguf::GgufWriter writer;
  writer.add("general.architecture", "llama");
  writer.add("tokenizer.ggml.model", "gpt2");
  writer.add("tokenizer.ggml.pre", "gpt-2");
  writer.add_strings("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "c", "<s>"});
  writer.add_array("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1, 1, 3});
  writer.add_strings("tokenizer.ggml.merges", std::vector<std::string>{});
  writer.add("tokenizer.ggml.bos_token_id", uint32_t{3});
  writer.add("tokenizer.ggml.add_bos_token", true);
  writer.write(dir.path() / "m.gguf");
  const auto tokenizer = engine::Tokenizer::from_gguf(gguf::GgufFile::open(dir.path() / "m.gguf"));
  const fs::path path = dir.path() / "text";
  std::ofstream(path) << "abcabcabca\n";

  // BOS before the text counts as a token; each chunk's first is replaced by it.
  const TextChunks chunks = read_chunks(path, *tokenizer, 4, 0);
  CHECK(chunks.tokens == std::vector<int32_t>{3, 0, 1, 2, 0, 1, 2, 0});
  CHECK(chunks.n_chunks() == 2);
  CHECK(chunks.input(1) == std::vector<int32_t>{3, 1, 2, 0});
  CHECK(read_chunks(path, *tokenizer, 4, 1).n_chunks() == 1);
  CHECK_THROWS_WITH(read_chunks(path, *tokenizer, 12, 0), Contains("11 tokens, expected"));
  CHECK_THROWS_WITH(read_chunks(dir.path() / "none", *tokenizer, 4, 0),
                    Contains("can't be opened"));
}

TEST_CASE("for_each_parallel calls each index once") {
  for (const int n : {0, 1, 2, 100}) {
    std::vector<int> calls(static_cast<size_t>(n));
    for_each_parallel(n, 3, [&](int i) { ++calls[static_cast<size_t>(i)]; });
    CHECK(std::count(calls.begin(), calls.end(), 1) == n);
  }
}

TEST_CASE("perplexity says what it lacks") {
  tests::RecordingConsole console;
  PerplexityOptions options;
  options.model = "m.gguf";
  CHECK_THROWS_WITH(perplexity({}, options, console), Contains("no text"));
  options.compare_to = "a";
  options.save_base = "b";
  CHECK_THROWS_WITH(perplexity({}, options, console), Contains("one run makes a base"));
}

}  // namespace
}  // namespace dsctl::commands
