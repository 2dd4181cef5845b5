#include "commands/serve/openai_fields.h"

#include <charconv>
#include <utility>

#include "commands/error.h"
#include "commands/serve/grammar_fields.h"
#include "commands/serve/option_fields.h"

namespace dsctl::commands::serve {
namespace {

constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxBiases = 1024;

void set_number(const Fields& fields, const char* name, double min, double max,
                GenerationRequest& request) {
  if (const auto value = fields.number(name, min, max)) request.options[name] = *value;
}

void parse_stop(const Fields& fields, GenerationRequest& request) {
  const Json* stop = fields.any("stop");
  if (!stop) return;
  std::vector<std::string> texts;
  if (stop->is_string()) {
    texts.push_back(stop->get<std::string>());
  } else if (stop->is_array() && stop->size() <= kMaxStopStrings) {
    for (const Json& item : *stop) {
      if (!item.is_string()) fields.fail("stop", "a string or an array of strings", item);
      texts.push_back(item.get<std::string>());
    }
  } else {
    fields.fail("stop",
                "a string or an array of at most " + std::to_string(kMaxStopStrings) + " strings",
                *stop);
  }
  try {
    request.options["stop"] = check_option("stop", texts);
  } catch (const Error& error) {
    throw ApiError(400, error.what(), "stop");
  }
}

void parse_logit_bias(const Fields& fields, GenerationRequest& request) {
  const Json* biases = fields.object("logit_bias");
  if (!biases) return;
  if (biases->size() > kMaxBiases) {
    throw ApiError(400, "field \"logit_bias\": more than " + std::to_string(kMaxBiases) + " tokens",
                   "logit_bias");
  }
  for (const auto& [name, value] : biases->items()) {
    int32_t token = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), token);
    if (error != std::errc() || end != name.data() + name.size() || token < 0) {
      throw ApiError(400, "field \"logit_bias\": key \"" + name + "\", expected a token id",
                     "logit_bias");
    }
    if (!value.is_number() || value.get<double>() < -100.0 || value.get<double>() > 100.0) {
      throw ApiError(400, "field \"logit_bias." + name + "\": expected a number from -100 to 100",
                     "logit_bias." + name);
    }
    request.logit_bias.emplace_back(token, value.get<float>());
  }
}

}  // namespace

void openai_not_supported(const std::string& field, const std::string& what) {
  throw ApiError(400, "field \"" + field + "\": " + what + " is not supported yet", field,
                 "unsupported_parameter");
}

void set_openai_integer(const Fields& fields, const char* name, int64_t min, int64_t max,
                        GenerationRequest& request, const char* option) {
  if (const auto value = fields.integer(name, min, max)) {
    request.options[option ? option : name] = *value;
  }
}

void parse_openai_common(const Fields& fields, OpenAiGenerate& parsed) {
  GenerationRequest& request = parsed.request;
  request.model = fields.required_text("model");
  request.defaults.temperature = 1.0f;
  request.defaults.top_p = 1.0f;
  request.defaults.penalize_prompt = false;
  request.overlong = Overlong::kRefuse;
  parsed.stream = fields.flag("stream").value_or(false);
  if (const Json* options = fields.object("stream_options")) {
    if (!parsed.stream) {
      throw ApiError(400, "field \"stream_options\": only allowed when \"stream\" is true",
                     "stream_options");
    }
    parsed.include_usage = Fields(*options, "stream_options").flag("include_usage").value_or(false);
  }
  set_number(fields, "temperature", 0.0, 2.0, request);
  set_number(fields, "top_p", 0.0, 1.0, request);
  set_number(fields, "min_p", 0.0, 1.0, request);
  set_number(fields, "presence_penalty", -2.0, 2.0, request);
  set_number(fields, "frequency_penalty", -2.0, 2.0, request);
  set_openai_integer(fields, "top_k", -1, kMaxOpenAiInt, request);
  set_openai_integer(fields, "min_tokens", 0, kMaxOpenAiInt, request);
  set_openai_integer(fields, "num_ctx", 4, 1 << 24, request);
  set_openai_integer(fields, "seed", std::numeric_limits<int64_t>::min() / 2,
                     std::numeric_limits<int64_t>::max() / 2, request);
  if (const auto penalty = fields.number("repetition_penalty", 0.0, 1e6)) {
    request.options["repeat_penalty"] = *penalty;
  }
  if (const auto ignore = fields.flag("ignore_eos")) request.options["ignore_eos"] = *ignore;
  request.n = static_cast<int>(fields.integer("n", 1, kMaxOpenAiAnswers).value_or(1));
  parse_stop(fields, request);
  parse_logit_bias(fields, request);
  request.keep_alive = parse_keep_alive_field(fields);
  request.grammar = parse_grammar_fields(fields);
  fields.refuse({"stop_token_ids"});
}

}  // namespace dsctl::commands::serve
