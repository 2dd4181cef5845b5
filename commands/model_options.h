// Ollama's options (request "options", Modelfile PARAMETER, REPL "/set parameter") as typed values:
// one table says which exist, every source is checked against it, and later layers win.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/request.h"

namespace dsctl::commands {

enum class OptionType { kInt, kFloat, kBool, kStrings };

/// What an option changes: how tokens are chosen, how the model is loaded, or nothing any more.
enum class OptionScope { kRequest, kLoad, kIgnored };

struct OptionInfo {
  std::string_view name;
  OptionType type = OptionType::kInt;
  OptionScope scope = OptionScope::kRequest;
  double min = 0.0;  // of numbers
  double max = 0.0;
  std::string_view help;
};

using OptionValue = std::variant<bool, int64_t, double, std::vector<std::string>>;
/// Only what somebody set. Merging is assignment key by key.
using Options = std::map<std::string, OptionValue>;

/// Every option, in the order in which help lists them.
std::span<const OptionInfo> option_table();
const OptionInfo* find_option(std::string_view name);

/// The value of `name` from words of a Modelfile or the REPL; only `stop` takes several. Throws
/// Error: "unknown parameter 'x'", "invalid int value [x]" as Ollama says it.
OptionValue parse_option(std::string_view name, std::span<const std::string> words);

/// Checks type and range of a value that came typed (JSON); a whole number is a valid float. Throws
/// Error naming the option: "option \"num_ctx\" must be of type integer".
OptionValue check_option(std::string_view name, const OptionValue& value);

/// `over` on top of `base`.
Options merge_options(Options base, const Options& over);

/// "0.6", "[\"<|im_end|>\" \"x\"]": as `/show parameters` and messages print a value.
std::string format_option(const OptionValue& value);

/// The options that shape one generation, ready for the engine.
struct GenerationOptions {
  engine::SamplingParams sampling;
  int max_tokens = -1;  // num_predict; negative: until the context is full
  std::optional<int> num_ctx;
  std::vector<std::string> stop;
};

/// Reads `options` over `defaults`.
GenerationOptions generation_options(const Options& options, engine::SamplingParams defaults = {});

/// The options that matter when a model is loaded; absent: the default.
struct LoadOptions {
  std::optional<int> num_ctx;
  std::optional<int> num_batch;
  std::optional<int> num_gpu;
  std::optional<int> num_thread;
};

LoadOptions load_options(const Options& options);

}  // namespace dsctl::commands
