// Whole chat templates of real models, against what Python's jinja2 renders.
#include "templates/chat_template.h"

#include <algorithm>

#include "templates/error.h"
#include "templates/jinja/template.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/templates_jinja.h"

namespace dsctl::templates {
namespace {

using tests::ends_like;
using tests::read_json;
using tests::read_text;
using tests::render;
using tests::render_error;

std::filesystem::path data_dir() {
  return tests::shared_dir() / "data/chat_templates";
}

bool no_data() {
  if (!tests::shared_dir().empty()) return false;
  WARN("no shared data: skipped");
  return true;
}

/// The variables of a golden conversation: its members only, so `tools` may be undefined.
Json golden_variables(const Json& conversation, const Json& golden) {
  Json variables = conversation;
  variables["bos_token"] = golden["bos_token"];
  variables["eos_token"] = golden["eos_token"];
  return variables;
}

Message message(std::string_view role, std::string_view content) {
  Message result;
  result.role = role;
  result.content = content;
  return result;
}

RenderInput conversation(const Json& messages) {
  RenderInput input;
  for (const Json& item : messages) {
    input.messages.push_back(
        message(item["role"].get<std::string>(), item["content"].get<std::string>()));
  }
  return input;
}

std::unique_ptr<ChatTemplate> parse_file(const char* name) {
  return ChatTemplate::parse(TemplateLanguage::kJinja, read_text(data_dir() / name));
}

Json weather_tools() {
  return Json::parse(R"([{"type": "function", "function": {"name": "get_weather",
      "description": "Weather", "parameters": {"type": "object",
      "properties": {"city": {"type": "string"}}, "required": ["city"]}}}])");
}

/// A question, a tool call without text, its result.
RenderInput tool_conversation() {
  RenderInput input;
  input.messages = {message("user", "Weather in Paris?"), message("assistant", ""),
                    message("tool", "22C")};
  input.messages[1].tool_calls.push_back(
      {"call_abcdefgh", "get_weather", Json::parse(R"({"city": "Paris"})")});
  input.messages[2].tool_name = "get_weather";
  input.messages[2].tool_call_id = "call_abcdefgh";
  input.tools = weather_tools();
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  return input;
}

/// llama.cpp cuts a first BOS and a last EOS off the rendered text, since it adds its own.
std::string without_ends(std::string text, const RenderInput& input) {
  if (text.starts_with(input.bos_token)) text.erase(0, input.bos_token.size());
  if (text.ends_with(input.eos_token)) text.resize(text.size() - input.eos_token.size());
  return text;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("Jinja renders the collected chat templates as jinja2 does") {
  if (no_data()) return;
  const Json goldens = read_json(data_dir() / "golden_renders.json");
  size_t n_renders = 0;
  for (const auto& [name, golden] : goldens["templates"].items()) {
    const std::string source = read_text(data_dir() / name);
    for (const auto& [conversation, expected] : golden["renders"].items()) {
      INFO(name << " with " << conversation);
      ++n_renders;
      const Json variables = golden_variables(goldens["conversations"][conversation], golden);
      if (expected.contains("output")) {
        CHECK(render(source, variables) == expected["output"].get<std::string>());
        continue;
      }
      const std::string error = expected["error"];
      CHECK(ends_like(render_error(source, variables), error.substr(error.find(": ") + 2)));
    }
  }
  CHECK(n_renders == 24 * 11);
}

TEST_CASE("ChatTemplate renders llama.cpp's cases as llama.cpp's Jinja does") {
  if (no_data()) return;
  const Json data = read_json(data_dir() / "llamacpp_template_cases.json");
  size_t n_same = 0;
  for (const Json& test : data["cases"]) {
    const std::string name = test["name"];
    INFO(name);
    // Marked there as beyond its own Jinja.
    if (!test["supported_with_jinja"].get<bool>()) continue;
    RenderInput input = conversation(data["conversation"]);
    input.bos_token = test["bos_token"];
    input.eos_token = test["eos_token"];
    const auto parsed =
        ChatTemplate::parse(TemplateLanguage::kJinja, test["template_str"].get<std::string>());
    std::string expected = test["expected_output_jinja"];
    // ChatGLM3's text begins with a space before the content. jinja2 keeps it, as llama.cpp's own
    // formatter does; only its Jinja of the time lost it.
    if (expected.empty() || name == "ChatGLM3") expected = test["expected_output"];
    CHECK(without_ends(parsed->render(input), input) == without_ends(expected, input));
    ++n_same;
  }
  CHECK(n_same == 29);
}

/// The conversation of the goldens, as the commands hand it over.
static RenderInput golden_input(const Json& conversation, const Json& golden) {
  RenderInput input;
  for (const Json& item : conversation["messages"]) {
    Message next = message(item["role"].get<std::string>(),
                           item["content"].is_string() ? item["content"].get<std::string>() : "");
    const Json calls = item.value("tool_calls", Json::array());
    for (const Json& call : calls) {
      Json arguments = call["function"]["arguments"];
      if (arguments.is_string()) arguments = Json::parse(arguments.get<std::string>());
      next.tool_calls.push_back({call["id"], call["function"]["name"], std::move(arguments)});
    }
    next.tool_name = item.value("name", "");
    next.tool_call_id = item.value("tool_call_id", "");
    input.messages.push_back(std::move(next));
  }
  input.tools = conversation["tools"];
  input.bos_token = golden["bos_token"];
  input.eos_token = golden["eos_token"];
  return input;
}

TEST_CASE("ChatTemplate renders tools, calls and results as jinja2 does") {
  if (no_data()) return;
  const Json goldens = read_json(data_dir() / "golden_renders.json");
  // The form of the call that each template wants, of those that jinja2 was given.
  const std::map<std::string, const char*> kForms = {
      {"CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja", "tool_call_dictargs"},
      {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja", "tool_call_dictargs"},
      {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", "tool_call_dictargs"},
      {"Qwen-Qwen2.5-7B-Instruct.jinja", "tool_call_dictargs"},
      {"Qwen-Qwen3-0.6B.jinja", "tool_call_dictargs"},
      {"deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja", "tool_call_strargs"},
      {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", "tool_call_strargs"},
      {"deepseek-ai-DeepSeek-V3.jinja", "tool_call_strargs"},
      {"deepseek-ai-DeepSeek-V3.1.jinja", "tool_call_strargs"},
      {"meetkai-functionary-medium-v3.1.jinja", "tool_call_strargs"},
      {"meetkai-functionary-medium-v3.2.jinja", "tool_call_strargs"},
      {"meta-llama-Llama-3.1-8B-Instruct.jinja", "tool_call_dictargs"},
      {"ollama-qwen38_chat_template.jinja", "tool_call_dictargs"},
      {"ollama-gemma4_31b_chat_template.jinja", "tool_call_dictargs"},
  };
  for (const auto& [name, form] : kForms) {
    INFO(name << " with " << form);
    const Json& golden = goldens["templates"][name];
    const auto chat_template = parse_file(name.c_str());
    CHECK(chat_template->capabilities().tools);
    // Whatever form the calls come in, the template gets the one that it wants.
    RenderInput input = golden_input(goldens["conversations"][form], golden);
    const bool shows_tools = contains(golden["renders"]["tools"]["output"], "get_weather");
    if (!shows_tools) {
      CHECK(contains(chat_template->render(input), "### get_weather"));
      input.tools = nullptr;
    }
    CHECK(chat_template->render(input) == golden["renders"][form]["output"].get<std::string>());
  }
}

TEST_CASE("ChatTemplate gives the tools to templates that want them their own way") {
  if (no_data()) return;
  const RenderInput input = tool_conversation();
  const std::string mistral =
      parse_file("mistralai-Mistral-Nemo-Instruct-2407.jinja")->render(input);
  CHECK(contains(mistral, "[AVAILABLE_TOOLS][{\"type\": \"function\""));
  CHECK(contains(
      mistral, R"([TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": ")"));
  const std::string firefunction =
      parse_file("fireworks-ai-llama-3-firefunction-v2.jinja")->render(input);
  CHECK(contains(firefunction, "\"name\": \"get_weather\""));
  CHECK(contains(firefunction,
                 R"( functools[{"name": "get_weather", "arguments": {"city": "Paris"}}])"));
  const std::string command_r =
      parse_file("CohereForAI-c4ai-command-r-plus-tool_use.jinja")->render(input);
  CHECK(contains(command_r, "def get_weather(city: str)"));
  CHECK(contains(command_r, "\"tool_name\": \"get_weather\""));
}

TEST_CASE("ChatTemplate gives each template the tool call form that it wants") {
  if (no_data()) return;
  // Arguments as text, and none for the missing content.
  const std::string distill =
      parse_file("deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja")->render(tool_conversation());
  CHECK(contains(distill, "get_weather\n```json\n{\"city\": \"Paris\"}\n```"));
  // Arguments as an object.
  const std::string qwen = parse_file("Qwen-Qwen3-0.6B.jinja")->render(tool_conversation());
  CHECK(contains(qwen, "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}"));
  // Ids of nine letters and digits.
  const std::string nemo =
      parse_file("mistralai-Mistral-Nemo-Instruct-2407.jinja")->render(tool_conversation());
  CHECK(contains(nemo,
                 "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}, \"id\": \""));
}

TEST_CASE("Every collected template renders a plain conversation without tools") {
  if (no_data()) return;
  for (const auto& entry : std::filesystem::directory_iterator(data_dir())) {
    const std::string name = entry.path().filename();
    // Firefunction wants variables of its own.
    if (entry.path().extension() != ".jinja" || contains(name, "firefunction")) continue;
    INFO(name);
    RenderInput input;
    input.messages = {message("system", "Be brief."), message("user", "Hello there")};
    const std::string text = parse_file(name.c_str())->render(input);
    CHECK(contains(text, "Hello there"));
    CHECK(contains(text, "Be brief."));
  }
}

TEST_CASE("ChatTemplate tells what a template supports") {
  if (no_data()) return;
  const auto qwen3 = parse_file("Qwen-Qwen3-0.6B.jinja");
  CHECK(qwen3->capabilities().tools);
  CHECK(qwen3->capabilities().thinking);
  CHECK(qwen3->capabilities().think_open == "<think>");
  CHECK(qwen3->capabilities().think_close == "</think>");
  CHECK_FALSE(qwen3->capabilities().insert);
  CHECK(qwen3->language() == TemplateLanguage::kJinja);
  const auto gemma = parse_file("google-gemma-2-2b-it.jinja");
  CHECK_FALSE(gemma->capabilities().tools);
  CHECK_FALSE(gemma->capabilities().thinking);
  CHECK(parse_file("meta-llama-Llama-3.1-8B-Instruct.jinja")->capabilities().tools);
  CHECK(parse_file("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja")->capabilities().thinking);
}

TEST_CASE("ChatTemplate passes thinking on and off to the template") {
  const auto parsed = ChatTemplate::parse(
      TemplateLanguage::kJinja,
      "{{ enable_thinking is defined }} {{ enable_thinking }} {{ reasoning_effort }}");
  RenderInput input;
  input.messages = {message("user", "x")};
  CHECK(parsed->render(input) == "False  ");
  input.think = false;
  CHECK(parsed->render(input) == "True False ");
  input.think = true;
  input.think_level = "high";
  CHECK(parsed->render(input) == "True True high");
  input.extra["reasoning_effort"] = "own";
  CHECK(parsed->render(input) == "True True own");
}

TEST_CASE("ChatTemplate gives the thoughts of earlier answers to the template") {
  const auto parsed = ChatTemplate::parse(
      TemplateLanguage::kJinja,
      "{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }};{% endfor %}");
  RenderInput input;
  input.messages = {message("user", "x"), message("assistant", "y")};
  input.messages[1].thinking = "hm";
  CHECK(parsed->render(input) == "|;hm|hm;");
}

TEST_CASE("ChatTemplate merges a system message that the template refuses") {
  const auto parsed = ChatTemplate::parse(
      TemplateLanguage::kJinja,
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
      "{% endif %}[{{ m.role }}:{{ m.content }}]{% endfor %}");
  RenderInput input;
  input.messages = {message("system", "Be brief."), message("user", "Hi")};
  CHECK(parsed->render(input) == "[user:Be brief.\nHi]");
}

TEST_CASE("ChatTemplate gives parts to a template that knows only parts") {
  const auto parsed = ChatTemplate::parse(
      TemplateLanguage::kJinja,
      "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}");
  RenderInput input;
  input.messages = {message("user", "Hi")};
  CHECK(parsed->render(input) == "Hi");
}

TEST_CASE("A template's raise_exception is told apart and keeps its words") {
  const auto parsed = ChatTemplate::parse(TemplateLanguage::kJinja,
                                          "{{ raise_exception('Roles must alternate!') }}");
  RenderInput input;
  input.messages = {message("user", "x")};
  try {
    parsed->render(input);
    FAIL("no error");
  } catch (const RaisedError& error) {
    CHECK(std::string(error.what()) == "Roles must alternate!");
  }
}

TEST_CASE("ChatTemplate errors carry line and column") {
  CHECK_THROWS_WITH(ChatTemplate::parse(TemplateLanguage::kJinja, "a\n  {% if %}"),
                    "template:2:9: expected an expression, got end of statement block");
  const auto parsed = ChatTemplate::parse(TemplateLanguage::kJinja, "a\n{{ 1 + 'x' }}");
  CHECK_THROWS_WITH(parsed->render({}),
                    "template:2:6: unsupported operand type(s) for +: 'int' and 'str'");
}

namespace {

/// The built-in template for a vocabulary with these tokens, rendered.
std::string builtin_text(std::string_view architecture, std::vector<std::string_view> tokens,
                         bool with_answer = false) {
  const auto source = ChatTemplate::builtin(architecture, [&](std::string_view token) {
    return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
  });
  if (!source) return "none";
  RenderInput input;
  input.messages = {message("system", "S"), message("user", "U")};
  if (with_answer) {
    input.messages.push_back(message("assistant", "A"));
    input.messages.push_back(message("user", "V"));
  }
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  return ChatTemplate::parse(TemplateLanguage::kJinja, *source)->render(input);
}

}  // namespace

TEST_CASE("Built-in templates follow the control tokens of the vocabulary") {
  CHECK(builtin_text("qwen2", {"<|im_start|>", "<|im_end|>"}) ==
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n");
  CHECK(builtin_text("llama", {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, true) ==
        "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");
  CHECK(builtin_text("gemma3", {"<start_of_turn>", "<end_of_turn>"}, true) ==
        "<s><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
        "<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n");
  CHECK(builtin_text("deepseek2", {"<｜User｜>", "<｜Assistant｜>"}, true) ==
        "<s>S<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>V<｜Assistant｜>");
  CHECK(builtin_text("phi3", {"<|im_start|>", "<|im_sep|>", "<|im_end|>"}) ==
        "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>U<|im_end|>"
        "<|im_start|>assistant<|im_sep|>");
  CHECK(builtin_text("phi3", {"<|user|>", "<|assistant|>", "<|end|>"}) ==
        "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n");
  CHECK(builtin_text("llama", {"[INST]", "[/INST]"}, true) ==
        "<s>[INST] S\n\nU [/INST] A</s>[INST] V [/INST]");
  // A Qwen distilled by DeepSeek has both; the chat tokens of its teacher count.
  CHECK(builtin_text("qwen2", {"<|im_start|>", "<|im_end|>", "<｜User｜>", "<｜Assistant｜>"}) ==
        "<s>S<｜User｜>U<｜Assistant｜>");
  CHECK(builtin_text("phi3",
                     {"<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|end|>"}) ==
        "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n");
  CHECK(builtin_text("llama", {}) == "none");
  CHECK(builtin_text("qwen2", {"<|endoftext|>"}) == "none");
}

}  // namespace dsctl::templates
