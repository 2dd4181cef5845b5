// Modelfile: Ollama's recipe of a model, parsed with positions and printed back.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "registry/manifest.h"

namespace dsctl::registry {

enum class Instruction {
  kFrom,
  kParameter,
  kTemplate,
  kSystem,
  kAdapter,
  kLicense,
  kMessage,
  kDraft,
  kRenderer,
  kParser,
  kRequires,
};

/// The type of a PARAMETER's value.
enum class ParameterType { kInt, kFloat, kBool, kString, kStringList };

/// One line of the table of parameters.
struct ParameterInfo {
  std::string_view name;
  ParameterType type = ParameterType::kInt;
  bool deprecated = false;  // accepted, without effect
};

/// Every parameter a Modelfile, an API request or `/set parameter` may name.
const std::vector<ParameterInfo>& parameter_table();
/// The line for `name` (case-sensitive), or null.
const ParameterInfo* find_parameter(std::string_view name);

/// One instruction with the place of its first letter, counted from 1; columns count code points.
struct ModelfileCommand {
  Instruction instruction = Instruction::kFrom;
  std::string key;  // PARAMETER: its name; MESSAGE: the role; else empty
  std::string value;
  int line = 1;
  int column = 1;
  int value_line = 1;
  int value_column = 1;
};

/// A parsed Modelfile: valid instructions in their order, with at least one FROM.
class Modelfile {
 public:
  static constexpr size_t kMaxBytes = 16 << 20;
  static constexpr size_t kMaxCommands = 10'000;

  /// Parses `bytes` (UTF-8, or UTF-16 with a byte order mark). Throws Error
  /// "<label>:line:column: what was found, what was expected".
  static Modelfile parse(std::string_view bytes, std::string_view label = "Modelfile");

  /// A Modelfile from instructions, for printing; not validated.
  explicit Modelfile(std::vector<ModelfileCommand> commands);

  const std::vector<ModelfileCommand>& commands() const { return commands_; }
  /// Notes on what was accepted but has no effect, with line and column.
  const std::vector<std::string>& warnings() const { return warnings_; }

  std::vector<std::string> values(Instruction instruction) const;
  /// The last value of an instruction, which is the one that counts; or nothing.
  std::optional<std::string> last(Instruction instruction) const;
  /// All PARAMETERs as one JSON object; `stop` is a list, the last of a repeated one wins.
  std::string parameters_json() const;
  std::vector<StoredMessage> messages() const;

  /// The Modelfile as text. Parsing it again gives the same instructions.
  std::string print() const;

 private:
  Modelfile() = default;
  std::vector<ModelfileCommand> commands_;
  std::vector<std::string> warnings_;
};

/// Checks `value` against the type of parameter `name` and returns it as JSON (for kStringList: of
/// one element). Throws Error without a position.
std::string parameter_to_json(std::string_view name, std::string_view value);

}  // namespace dsctl::registry
