#include "commands/tokenize.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "commands/model_file.h"
#include "engine/tokenizer/tokenizer.h"

namespace dsctl::commands {

namespace {

using engine::AddSpecial;
using engine::SpecialTokens;
using engine::Tokenizer;

/// Ids separated by white space or commas, with or without brackets around them.
std::vector<int32_t> parse_ids(const std::string& text, int vocab_size) {
  const auto is_between = [](char c) {
    return c == ',' || c == '[' || c == ']' || (c >= '\t' && c <= '\r') || c == ' ';
  };
  std::vector<int32_t> ids;
  auto at = text.begin();
  while ((at = std::find_if_not(at, text.end(), is_between)) != text.end()) {
    const auto end = std::find_if(at, text.end(), is_between);
    const std::string word(at, end);
    int32_t id = -1;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    const bool is_number = error == std::errc() && stop == word.data() + word.size();
    if (!is_number || id < 0 || id >= vocab_size) {
      throw Error("--decode: '" + word + "', expected token ids below " +
                  std::to_string(vocab_size));
    }
    ids.push_back(id);
    at = end;
  }
  return ids;
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const std::string& text,
                            const TokenizeOptions& options) {
  using Bos = TokenizeOptions::Bos;
  if (options.bos == Bos::kAlways && tokenizer.bos() < 0) {
    throw Error("--add-bos: the vocabulary has no BOS token");
  }
  auto ids =
      tokenizer.encode(text, options.bos == Bos::kNever ? AddSpecial::kNo : AddSpecial::kYes,
                       options.parse_special ? SpecialTokens::kParse : SpecialTokens::kAsText);
  if (options.bos == Bos::kAlways && (ids.empty() || ids.front() != tokenizer.bos())) {
    ids.insert(ids.begin(), tokenizer.bos());
  }
  return ids;
}

std::string line_of(const std::vector<int32_t>& ids) {
  std::string line;
  for (const int32_t id : ids) {
    if (!line.empty()) line += ' ';
    line += std::to_string(id);
  }
  return line + "\n";
}

std::string json_of(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  auto array = nlohmann::ordered_json::array();
  for (const int32_t id : ids) {
    array.push_back({{"id", id}, {"piece", tokenizer.piece(id, SpecialTokens::kParse)}});
  }
  return array.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

int tokenize(const Settings& settings, const TokenizeOptions& options, std::istream& input,
             Console& console) {
  const auto tokenizer = Tokenizer::from_gguf(open_model_file(settings, options.model));
  if (options.decode) {
    const auto ids = parse_ids(*options.decode, tokenizer->vocab_size());
    console.print(tokenizer->decode(ids, SpecialTokens::kParse) + "\n");
    return 0;
  }
  const std::string text =
      options.text ? *options.text : std::string(std::istreambuf_iterator<char>(input), {});
  const auto ids = encode(*tokenizer, text, options);
  switch (options.output) {
    case TokenizeOptions::Output::kIds:
      console.print(line_of(ids));
      break;
    case TokenizeOptions::Output::kJson:
      console.print(json_of(*tokenizer, ids));
      break;
    case TokenizeOptions::Output::kCount:
      console.print(std::to_string(ids.size()) + "\n");
      break;
  }
  return 0;
}

}  // namespace dsctl::commands
