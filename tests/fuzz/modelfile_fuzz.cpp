// What people and other programs write into a store: Modelfiles, manifests, configs, names. The
// first byte chooses the parser, so that one corpus serves all.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "registry/error.h"
#include "registry/manifest.h"
#include "registry/model_name.h"
#include "registry/modelfile.h"

namespace {

using dsctl::registry::Error;
using dsctl::registry::Manifest;
using dsctl::registry::ModelConfig;
using dsctl::registry::Modelfile;
using dsctl::registry::ModelName;

void require(bool holds) {
  if (!holds) std::abort();
}

void check_modelfile(std::string_view text) {
  const Modelfile first = Modelfile::parse(text);
  const Modelfile second = Modelfile::parse(first.print());
  require(first.commands().size() == second.commands().size());
  for (size_t i = 0; i < first.commands().size(); ++i) {
    require(first.commands()[i].instruction == second.commands()[i].instruction);
    require(first.commands()[i].key == second.commands()[i].key);
    require(first.commands()[i].value == second.commands()[i].value);
  }
  require(first.parameters_json() == second.parameters_json());
  require(first.print() == second.print());
}

void check_manifest(std::string_view text) {
  const Manifest manifest = Manifest::parse(text);
  const std::string printed = manifest.to_json();
  require(Manifest::parse(printed).to_json() == printed);
  require(manifest.size_bytes() >= 0);
}

void check_config(std::string_view text) {
  const std::string printed = ModelConfig::parse(text).to_json({});
  require(ModelConfig::parse(printed).to_json({}) == printed);
}

void check_name(std::string_view text) {
  const ModelName name = ModelName::parse(text);
  require(ModelName::parse(name.full_form()) == name);
  require(ModelName::parse(name.short_form()).same_as(name));
  for (const auto& part : name.relative_path())
    require(part != ".." && part != "." && !part.is_absolute());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        check_modelfile(text);
        break;
      case 1:
        check_manifest(text);
        break;
      case 2:
        check_config(text);
        break;
      case 3:
        check_name(text);
        break;
    }
  } catch (const Error&) {
    // refused with a message: what is expected of broken input
  }
  return 0;
}
