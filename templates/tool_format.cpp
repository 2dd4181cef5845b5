#include "templates/tool_format.h"

#include <algorithm>

namespace dsctl::templates {
namespace {

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// {"name": ..., "arguments": ...} with these keys.
ToolFormat json_format(const char* family, const char* begin, const char* end) {
  ToolFormat format;
  format.family = family;
  format.begin = begin;
  format.trigger = begin;
  format.end = end;
  format.is_json = true;
  format.before_name = R"({"name": ")";
  format.before_arguments = R"(", "arguments": )";
  format.after_arguments = "}";
  return format;
}

/// One object between each pair of tags.
ToolFormat tagged_format(const char* family, const char* begin, const char* end) {
  ToolFormat format = json_format(family, begin, end);
  format.before_name = begin + ("\n" + format.before_name);
  format.after_arguments += std::string("\n") + end;
  format.separator = "\n";
  return format;
}

/// All objects in one list.
ToolFormat list_format(const char* family, const char* begin, const char* end) {
  ToolFormat format = json_format(family, begin, end);
  format.open = begin + std::string("[");
  format.separator = ", ";
  format.close = std::string("]") + end;
  return format;
}

ToolFormat hermes() {
  return tagged_format("hermes", "<tool_call>", "</tool_call>");
}

ToolFormat nemotron() {
  return tagged_format("nemotron", "<toolcall>", "</toolcall>");
}

ToolFormat mistral() {
  return list_format("mistral", "[TOOL_CALLS]", "");
}

ToolFormat mistral_named() {
  ToolFormat format = json_format("mistral-args", "[TOOL_CALLS]", "");
  format.name_end = "[ARGS]";
  format.before_name = format.begin;
  format.before_arguments = format.name_end;
  format.after_arguments = "";
  return format;
}

ToolFormat firefunction() {
  ToolFormat format = list_format("firefunction", "functools", "");
  format.trigger = format.open;
  return format;
}

ToolFormat granite() {
  return list_format("granite", "<|tool_call|>", "");
}

ToolFormat phi4() {
  return list_format("phi-4", "<|tool_call|>", "<|/tool_call|>");
}

ToolFormat command_r() {
  ToolFormat format = json_format("command-r", "Action:", "");
  format.open = "Action:\n```json\n[\n";
  format.trigger = "Action:\n```json";
  format.before_name = "    {\n        \"tool_name\": \"";
  format.before_arguments = "\",\n        \"parameters\": ";
  format.after_arguments = "\n    }";
  format.separator = ",\n";
  format.close = "\n]```";
  return format;
}

ToolFormat command_r7b() {
  ToolFormat format = json_format("command-r7b", "<|START_ACTION|>", "<|END_ACTION|>");
  format.dropped = {"<|START_RESPONSE|>", "<|END_RESPONSE|>"};
  format.open = "<|START_ACTION|>[\n";
  format.before_name = R"(    {"tool_call_id": "0", "tool_name": ")";
  format.before_arguments = R"(", "parameters": )";
  format.separator = ",\n";
  format.close = "\n]<|END_ACTION|>";
  return format;
}

ToolFormat deepseek_v31() {
  ToolFormat format;
  format.family = "deepseek-v3.1";
  format.begin = "<｜tool▁calls▁begin｜>";
  format.end = "<｜tool▁calls▁end｜>";
  format.call_begin = "<｜tool▁call▁begin｜>";
  format.name_end = "<｜tool▁sep｜>";
  format.call_end = "<｜tool▁call▁end｜>";
  format.trigger = format.begin;
  format.open = format.begin;
  format.before_name = format.call_begin;
  format.before_arguments = format.name_end;
  format.after_arguments = format.call_end;
  format.close = format.end;
  return format;
}

ToolFormat deepseek_v3() {
  ToolFormat format = deepseek_v31();
  format.family = "deepseek-v3";
  format.before_name = format.call_begin + "function" + format.name_end;
  format.before_arguments = "\n```json\n";
  format.after_arguments = "\n```" + format.call_end;
  format.separator = "\n";
  return format;
}

ToolFormat functionary_v31() {
  ToolFormat format;
  format.family = "functionary-v3.1";
  format.begin = "<function=";
  format.trigger = format.begin;
  format.name_end = ">";
  format.call_end = "</function>";
  format.before_name = format.begin;
  format.before_arguments = format.name_end;
  format.after_arguments = format.call_end;
  return format;
}

ToolFormat functionary_v32() {
  ToolFormat format;
  format.family = "functionary-v3.2";
  format.begin = ">>>";
  format.name_end = "\n";
  format.starts_inside = true;
  format.before_arguments = format.name_end;
  format.separator = format.begin;
  return format;
}

ToolFormat llama3() {
  ToolFormat format = json_format("llama-3", "<|python_tag|>", "");
  format.before_arguments = R"(", "parameters": )";
  format.is_python = true;
  format.trigger = "";  // these models write their calls without the marker
  format.is_parallel = false;
  return format;
}

/// A family is known by texts that its templates contain; the first line that fits counts.
struct Family {
  std::vector<std::string_view> texts;
  ToolFormat (*make)();
};

const std::vector<Family>& families() {
  static const std::vector<Family> kFamilies = {
      {{"<｜tool▁calls▁begin｜>", "```json"}, deepseek_v3},
      {{"<｜tool▁calls▁begin｜>"}, deepseek_v31},
      {{"<|START_ACTION|>"}, command_r7b},
      {{"Action:", "tool_name"}, command_r},
      {{"functools["}, firefunction},
      {{">>>all"}, functionary_v32},
      {{"<function=", "</function>", "tool_call"}, functionary_v31},
      {{"[TOOL_CALLS]", "[ARGS]"}, mistral_named},
      {{"[TOOL_CALLS]"}, mistral},
      {{"<toolcall>"}, nemotron},
      {{"<tool_call>"}, hermes},
      {{"<|tool_call|>", "<|/tool_call|>"}, phi4},
      {{"<|tool_call|>"}, granite},
      {{"<|python_tag|>"}, llama3},
      {{"<|start_header_id|>", R"("parameters": )"}, llama3},
  };
  return kFamilies;
}

}  // namespace

std::vector<std::string> ToolFormat::markers() const {
  std::vector<std::string> all;
  for (const std::string& marker : {begin, end, call_begin, name_end, call_end}) {
    if (!marker.empty()) all.push_back(marker);
  }
  all.insert(all.end(), dropped.begin(), dropped.end());
  return all;
}

std::optional<ToolFormat> find_tool_format(std::string_view template_source) {
  // Qwen3-Coder's XML inside <tool_call>: values there have no JSON form to read.
  if (contains(template_source, "<parameter=")) return std::nullopt;
  for (const Family& family : families()) {
    const bool fits =
        std::all_of(family.texts.begin(), family.texts.end(),
                    [&](std::string_view text) { return contains(template_source, text); });
    if (fits) return family.make();
  }
  return std::nullopt;
}

ToolFormat generic_tool_format(std::string_view tag) {
  const bool is_list = tag.ends_with('[');
  while (tag.ends_with('[') || tag.ends_with(' '))
    tag.remove_suffix(1);
  if (tag == "{") tag = "";
  const std::string begin(tag);
  ToolFormat format = is_list ? list_format("generic", begin.c_str(), "")
                              : json_format("generic", begin.c_str(), "");
  if (!is_list) format.open = begin;
  // Without a list nothing says where one call ends and the next begins.
  format.is_parallel = is_list;
  return format;
}

}  // namespace dsctl::templates
