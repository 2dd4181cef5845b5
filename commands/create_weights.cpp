#include "commands/create_weights.h"

#include <vector>

#include "commands/convert.h"
#include "commands/error.h"
#include "commands/model_info.h"
#include "commands/quantize.h"
#include "gguf/gguf_file.h"
#include "gguf/quantize.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using registry::CreateSpec;
using registry::WeightSource;

/// What of the parent `spec` inherits with its weights, as sources of its own.
void take_over(CreateSpec& spec, const registry::Registry& registry) {
  if (!spec.from || !spec.weights.empty()) return;
  const auto parent = registry.find(*spec.from);
  if (!parent) throw Error("model \"" + spec.from->short_form() + "\" not found");
  const auto sources_of = [&](std::string_view media_type) {
    std::vector<WeightSource> sources;
    for (const registry::Layer& layer : parent->manifest.layers_of(media_type)) {
      WeightSource& source = sources.emplace_back();
      source.source = layer.digest;
      source.media_type = media_type;
    }
    return sources;
  };
  spec.weights = sources_of(registry::media_type::kModel);
  for (WeightSource& projector : sources_of(registry::media_type::kProjector))
    spec.weights.push_back(std::move(projector));
  if (spec.adapters.empty()) spec.adapters = sources_of(registry::media_type::kAdapter);
}

fs::path path_of(const WeightSource& weight, const registry::Registry& registry) {
  if (const auto* digest = std::get_if<registry::Digest>(&weight.source))
    return registry.blobs().path_of(*digest);
  return std::get<fs::path>(weight.source);
}

}  // namespace

fs::path MadeWeights::new_path(const char* name) {
  staging_.emplace(registry_.blobs(), [this](std::string_view line) { console_.note(line); });
  return staging_->dir() / name;
}

fs::path MadeWeights::convert(const fs::path& checkpoint) {
  if (staging_) throw Error("more than one directory of safetensors given; expected one model");
  ConvertOptions options;
  options.dir = checkpoint;
  options.quantize = quantize_;
  const gguf::convert::Conversion conversion = plan_conversion(options);
  fs::path path = new_path("converted.gguf");
  write_conversion(conversion, path, console_);
  return path;
}

void MadeWeights::quantize(CreateSpec& spec, Requantize requantize) {
  gguf::QuantizeOptions options;
  options.file_type = parse_file_type(quantize_);
  options.allow_requantize = requantize == Requantize::kYes;
  take_over(spec, registry_);
  std::vector<fs::path> shards;
  std::vector<WeightSource> weights(1);
  for (WeightSource& weight : spec.weights) {
    if (weight.media_type == registry::media_type::kModel) {
      shards.push_back(path_of(weight, registry_));
    } else {
      weights.push_back(std::move(weight));
    }
  }
  if (shards.empty()) throw Error("--quantize: FROM names no weights in GGUF form");
  const gguf::GgufFile file = gguf::GgufFile::open_shards(shards);
  const gguf::QuantizePlan plan = gguf::plan_quantize(file, options);
  const fs::path path = new_path("quantized.gguf");
  write_quantized(file, plan, path, 0, console_);
  weights[0].source = path;
  weights[0].media_type = registry::media_type::kModel;
  spec.weights = std::move(weights);
  spec.config = to_config(read_model_info(gguf::GgufFile::open(path)));
}

}  // namespace dsctl::commands
