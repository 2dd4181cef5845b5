// Throughput of a tokenizer on one thread, and its batch mode for comparison scripts.
//
//   tokenizer_bench MODEL.gguf TEXT_FILE...   MB/s for every file, best and median of 15 runs
//   tokenizer_bench --batch MODEL.gguf        answers requests on standard input
//
// A request is a line "ids|time|decode 0|1 SIZE" and SIZE bytes; 1: special tokens are parsed. The
// answer is one line: the ids of the text without BOS and EOS, the nanoseconds that they took, or
// (decode; the bytes are ids and spaces) the size of the text and then its bytes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "engine/tokenizer/tokenizer.h"

namespace {

using dsctl::engine::AddSpecial;
using dsctl::engine::SpecialTokens;
using dsctl::engine::Tokenizer;
using Clock = std::chrono::steady_clock;

void answer(const Tokenizer& tokenizer, const std::string& what, SpecialTokens special,
            const std::string& text) {
  if (what == "decode") {
    std::istringstream numbers(text);
    const std::vector<int32_t> ids{std::istream_iterator<int32_t>(numbers), {}};
    const std::string decoded = tokenizer.decode(ids, special);
    std::cout << decoded.size() << '\n' << decoded;
    return;
  }
  const auto start = Clock::now();
  const auto ids = tokenizer.encode(text, AddSpecial::kNo, special);
  const auto stop = Clock::now();
  if (what == "time") {
    std::cout << std::chrono::nanoseconds(stop - start).count() << '\n';
    return;
  }
  std::string line;
  for (const int32_t id : ids)
    line.append(std::to_string(id)).append(" ");
  std::cout << line << '\n';
}

int serve_batch(const Tokenizer& tokenizer) {
  std::string what;
  int parses = 0;
  size_t size = 0;
  while (std::cin >> what >> parses >> size) {
    std::cin.ignore(1);
    std::string text(size, '\0');
    if (!std::cin.read(text.data(), static_cast<std::streamsize>(size))) return 1;
    answer(tokenizer, what, parses ? SpecialTokens::kParse : SpecialTokens::kAsText, text);
    std::cout.flush();
  }
  return 0;
}

void measure(const Tokenizer& tokenizer, const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  std::vector<double> seconds;
  size_t n_tokens = 0;
  for (int i = 0; i < 15; ++i) {
    const auto start = Clock::now();
    n_tokens = tokenizer.encode(text, AddSpecial::kNo, SpecialTokens::kParse).size();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::ranges::sort(seconds);
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  std::printf("%s: %.2f MB, %zu tokens, best %.1f MB/s, median %.1f MB/s\n", path, megabytes,
              n_tokens, megabytes / seconds.front(), megabytes / seconds[seconds.size() / 2]);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < 2) {
    std::fprintf(stderr, "usage: tokenizer_bench MODEL.gguf TEXT_FILE... | --batch MODEL.gguf\n");
    return 2;
  }
  const bool is_batch = arguments[0] == "--batch";
  const auto start = Clock::now();
  const auto tokenizer =
      Tokenizer::from_gguf(dsctl::gguf::GgufFile::open(arguments[is_batch ? 1 : 0]));
  if (is_batch) return serve_batch(*tokenizer);
  const std::chrono::duration<double, std::milli> load = Clock::now() - start;
  std::printf("%s: %d tokens, loaded in %.0f ms\n", tokenizer->description().c_str(),
              tokenizer->vocab_size(), load.count());
  for (int i = 2; i < argc; ++i)
    measure(*tokenizer, argv[i]);
  return 0;
}
