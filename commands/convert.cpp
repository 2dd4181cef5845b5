#include "commands/convert.h"

#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "commands/pre_tokenizer_name.h"
#include "gguf/dtype.h"
#include "gguf/new_file.h"

namespace dsctl::commands {
namespace {

namespace convert_files = gguf::convert;
namespace fs = std::filesystem;

convert_files::OutType parse_out_type(const std::string& text) {
  if (text == "auto") return convert_files::OutType::kAuto;
  if (text == "f32") return convert_files::OutType::kF32;
  if (text == "f16") return convert_files::OutType::kF16;
  if (text == "bf16") return convert_files::OutType::kBF16;
  if (text == "q8_0") return convert_files::OutType::kQ8_0;
  throw Error("--outtype " + text + ": expected auto, f32, f16, bf16 or q8_0");
}

std::string dims_text(const std::vector<int64_t>& dims) {
  std::string text;
  for (const int64_t dim : dims)
    text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text;
}

void print_json(const convert_files::Conversion& conversion, const fs::path& out,
                Console& console) {
  nlohmann::ordered_json json;
  json["path"] = out.string();
  json["architecture"] = conversion.architecture();
  json["size"] = conversion.data_bytes();
  json["tensors"] = nlohmann::ordered_json::array();
  for (const convert_files::ConvertedTensor& tensor : conversion.tensors()) {
    json["tensors"].push_back({{"name", tensor.name},
                               {"source", tensor.source},
                               {"from", tensor.stored_type},
                               {"type", gguf::dtype_info(tensor.dtype).name},
                               {"dims", tensor.dims},
                               {"size", tensor.size_bytes}});
  }
  console.print(json.dump() + "\n");
}

void print_plan(const convert_files::Conversion& conversion, Console& console) {
  std::string text;
  for (const convert_files::ConvertedTensor& tensor : conversion.tensors()) {
    const std::string_view type = gguf::dtype_info(tensor.dtype).name;
    text += tensor.name + "  " + tensor.stored_type + " -> " + std::string(type) + "  " +
            dims_text(tensor.dims) + "  " + std::to_string(tensor.size_bytes) + " bytes\n";
  }
  text += conversion.architecture() + ", " + std::to_string(conversion.tensors().size()) +
          " tensors, " + std::to_string(conversion.data_bytes()) + " bytes\n";
  console.print(text);
}

}  // namespace

convert_files::Conversion plan_conversion(const ConvertOptions& options) {
  convert_files::ConvertOptions request;
  request.out_type = parse_out_type(options.out_type);
  if (!options.quantize.empty()) {
    request.quantize = gguf::file_type_from_name(options.quantize);
    if (!request.quantize) {
      throw Error("--quantize " + options.quantize +
                  ": no such type; `dsctl quantize --help` has a list");
    }
  }
  request.rounding =
      options.inexact ? convert_files::Rounding::kNearest : convert_files::Rounding::kExact;
  request.name = options.name;
  request.pre_tokenizer = options.pre_tokenizer;
  request.n_threads = options.n_threads;
  request.name_pre_tokenizer = name_pre_tokenizer;
  return convert_files::Conversion::plan(options.dir, request);
}

void write_conversion(const convert_files::Conversion& conversion, const fs::path& path,
                      Console& console) {
  for (const std::string& note : conversion.notes())
    console.note("note: " + note);
  conversion.write(path, [&](int64_t done, int64_t total) {
    if (console.interrupted()) throw Error("interrupted");
    console.progress("converting", done, total);
  });
  console.finish_progress();
}

int convert(const ConvertOptions& options, Console& console) {
  const bool writes = options.dry_run == DryRun::kNo;
  if (writes && options.out.empty()) throw Error("expected the name of the GGUF file to write");
  if (!options.out.empty()) {
    std::vector<fs::path> inputs;
    std::error_code error;
    for (fs::directory_iterator entry(options.dir, error), end; !error && entry != end;
         entry.increment(error))
      inputs.push_back(entry->path());
    gguf::check_out(options.out, inputs,
                    options.force ? gguf::IfExists::kReplace : gguf::IfExists::kFail);
  }
  const convert_files::Conversion conversion = plan_conversion(options);
  if (writes) {
    write_conversion(conversion, options.out, console);
  } else {
    for (const std::string& note : conversion.notes())
      console.note("note: " + note);
  }
  if (options.json) {
    print_json(conversion, options.out, console);
  } else if (writes) {
    console.print("wrote '" + options.out.string() + "'\n");
  } else {
    print_plan(conversion, console);
  }
  return 0;
}

}  // namespace dsctl::commands
