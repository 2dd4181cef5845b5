// Fuzz target: a Go template from arbitrary bytes, parsed and rendered over a fixed conversation.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "templates/error.h"
#include "templates/go/go_chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using dsctl::templates::RenderInput;
  static const RenderInput input = [] {
    RenderInput fixed;
    fixed.messages = {{"system", "Be brief.", {}, {}, "", ""},
                      {"user", "h\u00e9llo <b>", {}, {}, "", ""},
                      {"assistant", "", "hm", {{"1", "f", {{"a", 1.5}, {"b", {1, "x"}}}}}, "", ""},
                      {"tool", "22", {}, {}, "f", "1"},
                      {"user", "bye", {}, {}, "", ""}};
    fixed.tools = dsctl::templates::Json::parse(
        R"([{"type":"function","function":{"name":"f","parameters":{"type":"object",)"
        R"("properties":{"a":{"type":["number","null"]}}}}}])");
    return fixed;
  }();
  try {
    const auto chat = dsctl::templates::go::parse_chat_template(
        std::string_view(reinterpret_cast<const char*>(data), size), [] { return int64_t{20455}; });
    chat->render(input);
  } catch (const dsctl::templates::Error&) {
    // A refused template is a good answer.
  }
  return 0;
}
