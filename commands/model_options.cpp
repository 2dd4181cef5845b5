#include "commands/model_options.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <sstream>

#include "commands/error.h"

namespace dsctl::commands {
namespace {

constexpr double kIntMin = std::numeric_limits<int>::min();
constexpr double kIntMax = std::numeric_limits<int>::max();
constexpr double kBig = 1e6;
constexpr auto kInt = OptionType::kInt;
constexpr auto kFloat = OptionType::kFloat;
constexpr auto kBool = OptionType::kBool;
constexpr auto kStrings = OptionType::kStrings;
constexpr auto kRequest = OptionScope::kRequest;
constexpr auto kLoad = OptionScope::kLoad;
constexpr auto kIgnored = OptionScope::kIgnored;

constexpr OptionInfo kTable[] = {
    {"num_ctx", kInt, kLoad, 4, 1 << 24, "size of the context in tokens"},
    {"num_predict", kInt, kRequest, -2, kIntMax, "most tokens to generate; -1: no limit"},
    {"seed", kInt, kRequest, kIntMin, 9e15, "random seed; -1: another one each time"},
    {"temperature", kFloat, kRequest, 0, kBig, "0: always the likeliest token"},
    {"top_k", kInt, kRequest, kIntMin, kIntMax, "keep the k likeliest tokens; 0: all"},
    {"top_p", kFloat, kRequest, 0, 1, "keep the likeliest tokens up to this probability"},
    {"min_p", kFloat, kRequest, 0, 1, "drop tokens under this share of the likeliest one"},
    {"typical_p", kFloat, kRequest, 0, 1, "locally typical sampling; 1: off"},
    {"stop", kStrings, kRequest, 0, 0, "texts that end the answer"},
    {"repeat_last_n", kInt, kRequest, -1, kIntMax, "tokens looked back for penalties; -1: context"},
    {"repeat_penalty", kFloat, kRequest, 0, kBig, "divides logits of tokens seen; 1: off"},
    {"presence_penalty", kFloat, kRequest, -kBig, kBig, "subtracted once for a token seen"},
    {"frequency_penalty", kFloat, kRequest, -kBig, kBig, "subtracted for each time seen"},
    {"num_keep", kInt, kRequest, -1, kIntMax, "accepted; contexts are not shifted"},
    {"num_batch", kInt, kLoad, 1, 1 << 20, "prompt tokens computed in one step"},
    {"num_gpu", kInt, kLoad, -1, kIntMax, "layers on the GPU; -1: as many as fit"},
    {"main_gpu", kInt, kLoad, 0, 1024, "accepted; the GPU is chosen by the engine"},
    {"use_mmap", kBool, kLoad, 0, 0, "accepted; files are always mapped"},
    {"num_thread", kInt, kLoad, 0, 4096, "CPU threads; 0: one for each core"},
    {"draft_num_predict", kInt, kIgnored, 0, kIntMax, "accepted; there is no draft model"},
    {"ignore_eos", kBool, kRequest, 0, 0, "do not stop at the end-of-text token"},
    {"min_tokens", kInt, kRequest, 0, kIntMax, "do not stop before so many tokens"},
    {"top_n_sigma", kFloat, kRequest, -kBig, kBig, "keep logits within n deviations; <= 0: off"},
    {"xtc_probability", kFloat, kRequest, 0, 1, "exclude top choices this often; 0: off"},
    {"xtc_threshold", kFloat, kRequest, 0, 1, "probability of a top choice for XTC"},
    {"dynatemp_range", kFloat, kRequest, 0, kBig, "dynamic temperature range; 0: off"},
    {"dynatemp_exponent", kFloat, kRequest, 0, kBig, "dynamic temperature exponent"},
    {"dry_multiplier", kFloat, kRequest, 0, kBig, "penalty of repeated sequences; 0: off"},
    {"dry_base", kFloat, kRequest, 0, kBig, "base of that penalty"},
    {"dry_allowed_length", kInt, kRequest, 0, kIntMax, "sequences up to this length are free"},
    {"dry_penalty_last_n", kInt, kRequest, -1, kIntMax, "tokens looked back; -1: context"},
    {"dry_sequence_breakers", kStrings, kRequest, 0, 0, "texts that end a sequence"},
    {"mirostat", kInt, kRequest, 0, 2, "0: off, 1, 2"},
    {"mirostat_tau", kFloat, kRequest, 0, kBig, "target surprise"},
    {"mirostat_eta", kFloat, kRequest, 0, kBig, "learning rate"},
    {"penalize_newline", kBool, kIgnored, 0, 0, "gone from Ollama; ignored"},
    {"low_vram", kBool, kIgnored, 0, 0, "gone from Ollama; ignored"},
    {"f16_kv", kBool, kIgnored, 0, 0, "gone from Ollama; ignored"},
    {"logits_all", kBool, kIgnored, 0, 0, "gone from Ollama; ignored"},
    {"vocab_only", kBool, kIgnored, 0, 0, "gone from Ollama; ignored"},
    {"use_mlock", kBool, kIgnored, 0, 0, "gone from Ollama; ignored"},
    {"numa", kBool, kIgnored, 0, 0, "gone from Ollama; ignored"},
    {"tfs_z", kFloat, kIgnored, -kBig, kBig, "gone from Ollama; ignored"},
    {"num_gqa", kInt, kIgnored, 0, kIntMax, "gone from Ollama; ignored"},
    {"rope_frequency_base", kFloat, kIgnored, 0, 1e12, "gone from Ollama; ignored"},
    {"rope_frequency_scale", kFloat, kIgnored, 0, 1e12, "gone from Ollama; ignored"},
};

// An answer with that many stop strings is an attack, not a question.
constexpr size_t kMaxStrings = 64;
constexpr size_t kMaxStringBytes = 4096;

const char* type_name(OptionType type) {
  switch (type) {
    case OptionType::kInt:
      return "integer";
    case OptionType::kFloat:
      return "float32";
    case OptionType::kBool:
      return "boolean";
    case OptionType::kStrings:
      return "array";
  }
  return "";
}

std::string format_number(double value) {
  std::ostringstream out;
  out.precision(7);
  out << value;
  return out.str();
}

const OptionInfo& known_option(std::string_view name) {
  const OptionInfo* info = find_option(name);
  if (!info) throw Error("unknown parameter '" + std::string(name) + "'");
  return *info;
}

void check_range(const OptionInfo& info, double value) {
  if (value >= info.min && value <= info.max) return;
  throw Error("option \"" + std::string(info.name) + "\": " + format_number(value) + ", expected " +
              format_number(info.min) + " to " + format_number(info.max));
}

void check_strings(const OptionInfo& info, const std::vector<std::string>& strings) {
  if (strings.size() > kMaxStrings) {
    throw Error("option \"" + std::string(info.name) + "\": " + std::to_string(strings.size()) +
                " texts, expected at most " + std::to_string(kMaxStrings));
  }
  for (const std::string& text : strings) {
    if (text.size() <= kMaxStringBytes) continue;
    throw Error("option \"" + std::string(info.name) + "\": a text of " +
                std::to_string(text.size()) + " bytes, expected at most " +
                std::to_string(kMaxStringBytes));
  }
}

double parse_number(const OptionInfo& info, const std::string& word) {
  const bool is_int = info.type == OptionType::kInt;
  char* end = nullptr;
  double value = 0.0;
  if (is_int) {
    value = static_cast<double>(std::strtoll(word.c_str(), &end, 10));
  } else {
    value = std::strtod(word.c_str(), &end);
  }
  if (word.empty() || *end != '\0' || !std::isfinite(value)) {
    throw Error(std::string("invalid ") + (is_int ? "int" : "float") + " value [" + word +
                "] for parameter '" + std::string(info.name) + "'");
  }
  return value;
}

template <typename T>
std::optional<T> get(const Options& options, const char* name) {
  const auto it = options.find(name);
  if (it == options.end()) return std::nullopt;
  if (const auto* whole = std::get_if<int64_t>(&it->second)) return static_cast<T>(*whole);
  if (const auto* real = std::get_if<double>(&it->second)) return static_cast<T>(*real);
  if (const auto* flag = std::get_if<bool>(&it->second)) return static_cast<T>(*flag);
  return std::nullopt;
}

template <typename T>
void read(const Options& options, const char* name, T& value) {
  if (const auto found = get<T>(options, name)) value = *found;
}

}  // namespace

std::span<const OptionInfo> option_table() {
  return kTable;
}

const OptionInfo* find_option(std::string_view name) {
  const auto it = std::find_if(std::begin(kTable), std::end(kTable),
                               [name](const OptionInfo& info) { return info.name == name; });
  return it == std::end(kTable) ? nullptr : &*it;
}

OptionValue check_option(std::string_view name, const OptionValue& value) {
  const OptionInfo& info = known_option(name);
  const auto wrong_type = [&info] {
    return Error("option \"" + std::string(info.name) + "\" must be of type " +
                 type_name(info.type));
  };
  switch (info.type) {
    case OptionType::kBool:
      if (!std::holds_alternative<bool>(value)) throw wrong_type();
      return value;
    case OptionType::kStrings:
      if (!std::holds_alternative<std::vector<std::string>>(value)) throw wrong_type();
      check_strings(info, std::get<std::vector<std::string>>(value));
      return value;
    case OptionType::kInt:
      if (const auto* whole = std::get_if<int64_t>(&value)) {
        check_range(info, static_cast<double>(*whole));
        return value;
      }
      // JavaScript has no integers: 40.0 is one, 40.5 is not.
      if (const auto* real = std::get_if<double>(&value);
          real && std::abs(*real) < 9e15 && *real == std::floor(*real)) {
        check_range(info, *real);
        return static_cast<int64_t>(*real);
      }
      throw wrong_type();
    case OptionType::kFloat:
      if (const auto* real = std::get_if<double>(&value)) {
        check_range(info, *real);
        return value;
      }
      if (const auto* whole = std::get_if<int64_t>(&value)) {
        check_range(info, static_cast<double>(*whole));
        return static_cast<double>(*whole);
      }
      throw wrong_type();
  }
  throw wrong_type();
}

OptionValue parse_option(std::string_view name, std::span<const std::string> words) {
  const OptionInfo& info = known_option(name);
  if (info.type == OptionType::kStrings) {
    return check_option(name, std::vector<std::string>(words.begin(), words.end()));
  }
  if (words.size() != 1) {
    throw Error("parameter '" + std::string(name) + "': " + std::to_string(words.size()) +
                " values, expected one");
  }
  const std::string& word = words.front();
  if (info.type == OptionType::kBool) {
    for (const char* yes : {"true", "1", "t", "T", "TRUE", "True"}) {
      if (word == yes) return true;
    }
    for (const char* no : {"false", "0", "f", "F", "FALSE", "False"}) {
      if (word == no) return false;
    }
    throw Error("invalid bool value [" + word + "] for parameter '" + std::string(name) + "'");
  }
  const double value = parse_number(info, word);
  if (info.type == OptionType::kFloat) return check_option(name, value);
  return check_option(name, static_cast<int64_t>(value));
}

Options merge_options(Options base, const Options& over) {
  for (const auto& [name, value] : over)
    base[name] = value;
  return base;
}

std::string format_option(const OptionValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* whole = std::get_if<int64_t>(&value)) return std::to_string(*whole);
  if (const auto* real = std::get_if<double>(&value)) return format_number(*real);
  std::string text = "[";
  for (const std::string& item : std::get<std::vector<std::string>>(value)) {
    if (text.size() > 1) text += ' ';
    text += '"' + item + '"';
  }
  return text + "]";
}

GenerationOptions generation_options(const Options& options, engine::SamplingParams defaults) {
  GenerationOptions result;
  result.sampling = std::move(defaults);
  engine::SamplingParams& sampling = result.sampling;
  read(options, "temperature", sampling.temperature);
  read(options, "top_k", sampling.top_k);
  read(options, "top_p", sampling.top_p);
  read(options, "min_p", sampling.min_p);
  read(options, "typical_p", sampling.typical_p);
  read(options, "top_n_sigma", sampling.top_n_sigma);
  read(options, "xtc_probability", sampling.xtc_probability);
  read(options, "xtc_threshold", sampling.xtc_threshold);
  read(options, "dynatemp_range", sampling.dynatemp_range);
  read(options, "dynatemp_exponent", sampling.dynatemp_exponent);
  read(options, "repeat_last_n", sampling.repeat_last_n);
  read(options, "repeat_penalty", sampling.repeat_penalty);
  read(options, "presence_penalty", sampling.presence_penalty);
  read(options, "frequency_penalty", sampling.frequency_penalty);
  read(options, "dry_multiplier", sampling.dry_multiplier);
  read(options, "dry_base", sampling.dry_base);
  read(options, "dry_allowed_length", sampling.dry_allowed_length);
  read(options, "dry_penalty_last_n", sampling.dry_last_n);
  read(options, "mirostat", sampling.mirostat);
  read(options, "mirostat_tau", sampling.mirostat_tau);
  read(options, "mirostat_eta", sampling.mirostat_eta);
  read(options, "min_tokens", sampling.min_tokens);
  read(options, "ignore_eos", sampling.ignore_eos);
  if (const auto it = options.find("dry_sequence_breakers"); it != options.end()) {
    sampling.dry_sequence_breakers = std::get<std::vector<std::string>>(it->second);
  }
  // Every negative seed is "another one each time", as in Ollama; zero is an ordinary seed.
  if (const auto seed = get<int64_t>(options, "seed"); seed && *seed >= 0) {
    sampling.seed = static_cast<uint64_t>(*seed);
  }
  read(options, "num_predict", result.max_tokens);
  if (result.max_tokens < 0) result.max_tokens = -1;
  result.num_ctx = get<int>(options, "num_ctx");
  if (const auto it = options.find("stop"); it != options.end()) {
    result.stop = std::get<std::vector<std::string>>(it->second);
    std::erase(result.stop, std::string());
  }
  return result;
}

LoadOptions load_options(const Options& options) {
  return {.num_ctx = get<int>(options, "num_ctx"),
          .num_batch = get<int>(options, "num_batch"),
          .num_gpu = get<int>(options, "num_gpu"),
          .num_thread = get<int>(options, "num_thread")};
}

}  // namespace dsctl::commands
