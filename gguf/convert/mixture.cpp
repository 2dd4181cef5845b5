#include "gguf/convert/mixture.h"

#include <cstring>
#include <map>
#include <string>

#include "gguf/gguf_file.h"
#include "gguf/quantize.h"

namespace dsctl::gguf::convert {

std::vector<MixtureChoice> choose_mixture(const MetadataList& metadata,
                                          const std::vector<ConvertedTensor>& tensors,
                                          const FileType& file_type) {
  GgufWriter writer;
  metadata.write_to(writer);
  std::map<std::string, size_t, std::less<>> idx_of;
  for (size_t i = 0; i < tensors.size(); ++i) {
    writer.declare_tensor(tensors[i].name, tensors[i].dtype, tensors[i].dims);
    idx_of.emplace(tensors[i].name, i);
  }
  const GgufLayout layout = writer.layout();
  PartialFile header{.path = "the converted file", .prefix = {}, .size_bytes = layout.size_bytes};
  header.prefix.resize(layout.header.size());
  std::memcpy(header.prefix.data(), layout.header.data(), layout.header.size());
  const GgufFile file = GgufFile::open_headers({std::move(header)});
  QuantizeOptions options;
  options.file_type = file_type;
  std::vector<MixtureChoice> choices;
  for (const QuantizeStep& step : plan_quantize(file, options).steps)
    choices.push_back({idx_of.find(step.source.name)->second, step.choice.dtype});
  return choices;
}

}  // namespace dsctl::gguf::convert
