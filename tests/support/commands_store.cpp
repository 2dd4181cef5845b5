#include "tests/support/commands_store.h"

#include <fstream>
#include <stdexcept>

#include "commands/create.h"

namespace dsctl::tests {

namespace fs = std::filesystem;

gguf::GgufWriter small_model(std::string_view architecture) {
  gguf::GgufWriter writer;
  const std::string prefix(architecture);
  writer.add("general.architecture", architecture);
  writer.add("general.file_type", uint32_t{15});
  writer.add(prefix + ".context_length", uint32_t{2048});
  writer.add(prefix + ".embedding_length", uint32_t{64});
  writer.add("tokenizer.chat_template", "{{ messages[0].content }}");
  writer.add_strings("tokenizer.ggml.tokens", std::vector<std::string>(100, "tok"));
  for (int i = 0; i < 18; ++i) {
    writer.add_tensor("blk." + std::to_string(i) + ".weight", {64},
                      std::vector<float>(64, static_cast<float>(i)));
  }
  return writer;
}

fs::path ModelStore::write(const std::string& name, const std::string& content) const {
  const fs::path path = dir.path() / name;
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

fs::path ModelStore::write_model(const std::string& name) const {
  const fs::path path = dir.path() / name;
  fs::create_directories(path.parent_path());
  small_model().write(path);
  return path;
}

std::string ModelStore::create(const std::string& name, const std::string& modelfile) {
  commands::CreateOptions options;
  options.name = name;
  options.file = write("Modelfile", modelfile);
  console.printed.clear();
  if (commands::create(settings, options, console) != 0) throw std::runtime_error("create failed");
  return console.printed;
}

}  // namespace dsctl::tests
