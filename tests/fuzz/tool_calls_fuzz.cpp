// Fuzzes the readers of tool calls: whatever a model writes, no byte of it is lost, and the result
// is the same however the text is cut.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "templates/tool_call_parser.h"

namespace {

using dsctl::templates::ToolCallParser;
using dsctl::templates::ToolCallPiece;
using dsctl::templates::ToolFormat;

const std::vector<ToolFormat>& formats() {
  static const std::vector<ToolFormat> kFormats = [] {
    std::vector<ToolFormat> all = {dsctl::templates::generic_tool_format("")};
    for (const char* source :
         {"<tool_call>", "<|start_header_id|> \"parameters\": ", "[TOOL_CALLS][",
          "[TOOL_CALLS]name[ARGS]", "<｜tool▁calls▁begin｜> ```json", "<｜tool▁calls▁begin｜>",
          "tool_call <function= </function>", ">>>all", "Action: \"tool_name\"", "<|START_ACTION|>",
          "functools[", "<toolcall>", "<|tool_call|>"}) {
      all.push_back(*dsctl::templates::find_tool_format(source));
    }
    return all;
  }();
  return kFormats;
}

/// Everything that the parser says, calls written out.
std::string read(const ToolFormat& format, std::string_view text, size_t piece_size) {
  ToolCallParser parser(format, {"f", "get_weather"}, 3);
  std::string out;
  std::string arguments;
  const auto add = [&](const ToolCallParser::Pieces& pieces) {
    for (const ToolCallParser::Piece& piece : pieces) {
      out += piece.content;
      for (const ToolCallPiece& call : piece.calls) {
        if (!call.name.empty()) {
          out += "\n<call " + std::to_string(call.index) + " " + call.name + ">";
          arguments.clear();
        }
        arguments += call.arguments;
        // How much of a broken call was shown depends on the cuts, what it was does not.
        if (call.state == ToolCallPiece::State::kBroken) out += "<broken>" + call.raw;
        if (call.state != ToolCallPiece::State::kDone) continue;
        out += arguments + "<done>";
        if (!dsctl::templates::is_json_object(arguments)) std::abort();
      }
    }
  };
  for (size_t pos = 0; pos < text.size(); pos += piece_size)
    add(parser.feed(text.substr(pos, piece_size)));
  add(parser.finish());
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const ToolFormat& format = formats()[data[0] % formats().size()];
  const size_t piece_size = 1 + data[1] % 9;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::string whole = read(format, text, size);
  if (read(format, text, piece_size) != whole) std::abort();
  // Without a single marker or bracket there is nothing to read.
  if (text.find_first_of("{[<>A ") == std::string_view::npos && !format.starts_inside &&
      whole != text && text.find("functools") == std::string_view::npos) {
    std::abort();
  }
  return 0;
}
