#include "gguf/convert/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf::convert {
namespace {

// The regexes of published vocabularies, as their tokenizer.json has them.
#define DSCTL_CONTRACTION R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?)"
#define DSCTL_TAIL R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
constexpr std::string_view kLlama3 = DSCTL_CONTRACTION R"(\p{L}+|\p{N}{1,3})" DSCTL_TAIL;
constexpr std::string_view kQwen2 = DSCTL_CONTRACTION R"(\p{L}+|\p{N})" DSCTL_TAIL;
constexpr std::string_view kQwen35 = DSCTL_CONTRACTION
    R"([\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
#undef DSCTL_CONTRACTION
#undef DSCTL_TAIL
#define DSCTL_CASED \
  R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
#define DSCTL_CASED2 \
  R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
#define DSCTL_SLASH_TAIL R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
constexpr std::string_view kTekken = DSCTL_CASED "|" DSCTL_CASED2 R"(|\p{N})" DSCTL_SLASH_TAIL;
#define DSCTL_SUFFIX R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
constexpr std::string_view kGpt4o =
    DSCTL_CASED DSCTL_SUFFIX "|" DSCTL_CASED2 DSCTL_SUFFIX R"(|\p{N}{1,3})" DSCTL_SLASH_TAIL;
#undef DSCTL_CASED
#undef DSCTL_CASED2
#undef DSCTL_SLASH_TAIL
#undef DSCTL_SUFFIX

/// A known list: each step begins with the text given (the rest of a long regex is not repeated).
struct KnownSteps {
  std::string_view name;
  std::array<std::string_view, 4> starts;  // "" ends the list
};

constexpr std::array<KnownSteps, 10> kKnown{{
    {"llama-bpe", {kLlama3}},
    {"qwen2", {kQwen2}},
    {"qwen35", {kQwen35}},
    {"tekken", {kTekken}},
    {"gpt-4o", {kGpt4o}},
    {"deepseek-v3",
     {R"(\p{N}{1,3})", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)"}},
    {"deepseek-llm", {R"([\r\n])", "\\s?[A-Za-z\u00b5\u00c0-"}},
    {"deepseek-coder", {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)"}},
    {"smollm", {"Digits", "ByteLevel"}},
    {"gpt-2", {"ByteLevel"}},
}};

bool matches(const KnownSteps& known, const std::vector<std::string>& steps) {
  size_t n = 0;
  while (n < known.starts.size() && !known.starts[n].empty()) {
    if (n == steps.size() || !steps[n].starts_with(known.starts[n])) return false;
    ++n;
  }
  // The DeepSeek lists of old go on with more steps than are compared.
  return n == steps.size() || known.name.starts_with("deepseek-");
}

void add_steps(const Json& value, int depth, std::vector<std::string>& steps) {
  const std::string type = string_member(value, "type").value_or("");
  if (type == "Sequence" && depth < 4) {
    if (const Json* parts = array_member(value, "pretokenizers")) {
      for (const Json& part : *parts)
        add_steps(part, depth + 1, steps);
    }
  } else if (type == "Split") {
    const Json* pattern = object_member(value, "pattern");
    std::string regex = pattern ? string_member(*pattern, "Regex").value_or("") : "";
    if (regex.empty() && pattern) {
      regex = "String " + string_member(*pattern, "String").value_or("");
    }
    steps.push_back(std::move(regex));
  } else if (type == "Digits") {
    steps.push_back(bool_member(value, "individual_digits").value_or(false) ? "Digits" : "Digits+");
  } else if (type == "ByteLevel") {
    if (bool_member(value, "use_regex").value_or(true)) steps.push_back("ByteLevel");
  } else {
    steps.push_back("type " + type);
  }
}

}  // namespace

std::vector<std::string> pre_tokenizer_steps(const Json& pre_tokenizer) {
  std::vector<std::string> steps;
  add_steps(pre_tokenizer, 0, steps);
  // The published files write line ends and tabs in regexes both ways.
  for (std::string& step : steps) {
    for (const auto& [raw, escaped] : {std::pair('\r', "\\r"), std::pair('\n', "\\n")}) {
      for (size_t at = step.find(raw); at != std::string::npos; at = step.find(raw, at))
        step.replace(at, 1, escaped);
    }
  }
  return steps;
}

std::optional<std::string> recognize_pre_tokenizer(const std::vector<std::string>& steps) {
  for (const KnownSteps& known : kKnown) {
    if (matches(known, steps)) return std::string(known.name);
  }
  return std::nullopt;
}

}  // namespace dsctl::gguf::convert
