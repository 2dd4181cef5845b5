#include "registry/sources/variants.h"

#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace dsctl::registry {
namespace {

std::vector<RemoteFile> files_of(const std::vector<std::pair<std::string, int64_t>>& list) {
  std::vector<RemoteFile> files;
  for (const auto& [path, size] : list) {
    RemoteFile file;
    file.path = path;
    file.size_bytes = size;
    files.push_back(file);
  }
  return files;
}

std::vector<std::string> labels_of(const GroupedFiles& grouped) {
  std::vector<std::string> labels;
  for (const RemoteVariant& variant : grouped.variants)
    labels.push_back(variant.label);
  return labels;
}

TEST_CASE("quant_label finds the quant in a file's name") {
  for (const auto& [stem, label] : std::vector<std::pair<std::string, std::string>>{
           {"DeepSeek-R1-Q4_K_M", "Q4_K_M"},
           {"DeepSeek-R1-UD-IQ1_S", "UD-IQ1_S"},
           {"SmolLM2-135M-Instruct.Q4_1", "Q4_1"},
           {"model-q4_k_m", "Q4_K_M"},
           {"llama_3_Q5_K_S", "Q5_K_S"},
           {"qwen2.5-7b-instruct-fp16", "FP16"},
           {"x.BF16", "BF16"},
           {"gpt-oss-20b-mxfp4", "MXFP4"},
           {"gpt-oss-20b-UD-Q4_K_XL", "UD-Q4_K_XL"},
           {"x-IQ3_XXS", "IQ3_XXS"},
           {"x-TQ1_0", "TQ1_0"},
           {"x-Q4_0_4_8", "Q4_0_4_8"},
           {"Q8_0", "Q8_0"},
           {"Qwen3-0.6B", ""},
           {"model", ""},
           {"", ""},
       }) {
    CAPTURE(stem);
    CHECK(quant_label(stem) == label);
  }
}

TEST_CASE("group_files makes one variant of all shards, smallest first") {
  const auto files = files_of({
      {"README.md", 10},
      {"R1-Q4_K_M/R1-Q4_K_M-00002-of-00002.gguf", 40},
      {"R1-Q4_K_M/R1-Q4_K_M-00001-of-00002.gguf", 60},
      {"R1-UD-IQ1_S/R1-UD-IQ1_S-00001-of-00001.gguf", 30},
      {"BF16/R1-00001-of-00003.gguf", 100},
      {"BF16/R1-00003-of-00003.gguf", 100},
      {"mmproj-R1-BF16.gguf", 5},
      {"mmproj-R1-F16.GGUF", 6},
      {"imatrix.gguf", 1},
      {".gguf", 1},
  });
  const GroupedFiles grouped = group_files(files);
  REQUIRE(labels_of(grouped) == std::vector<std::string>{"UD-IQ1_S", "Q4_K_M", "BF16"});
  CHECK(grouped.variants[1].file_idxs == std::vector<size_t>{2, 1});
  CHECK(grouped.variants[1].size_bytes == 100);
  CHECK(grouped.variants[1].problem.empty());
  CHECK(grouped.variants[2].problem == "shard 2 of 3 is missing");
  CHECK(grouped.projector_idxs == std::vector<size_t>{6, 7});
  CHECK(choose_projector(grouped.projector_idxs, files) == 7u);
}

TEST_CASE("group_files tells models with the same quant apart by their names") {
  const auto files = files_of({{"a-Q4_0.gguf", 1}, {"b-Q4_0.gguf", 2}, {"c/b-Q4_0.gguf", 3}});
  const GroupedFiles grouped = group_files(files);
  CHECK(labels_of(grouped) == std::vector<std::string>{"a-Q4_0", "b-Q4_0", "c/b-Q4_0"});
}

TEST_CASE("group_files is not led astray by hostile shard numbers") {
  const auto files = files_of({{"x-00000-of-00002.gguf", 1},
                               {"x-00001-of-00002.gguf", 1},
                               {"y-00001-of-99999.gguf", 1},
                               {"z-00001-of-00000.gguf", 1},
                               {"w-00003-of-00002.gguf", 1}});
  for (const RemoteVariant& variant : group_files(files).variants) {
    CAPTURE(variant.label);
    // 1 of 0 is no shard at all: the file is taken as it is.
    CHECK(variant.problem.empty() == (variant.label == "z"));
  }
}

TEST_CASE("find_variant takes labels, file names and a label's only ending") {
  const auto files = files_of({{"R1-Q4_K_M.gguf", 4},
                               {"R1-Q2_K.gguf", 2},
                               {"R1-UD-Q2_K_XL.gguf", 3},
                               {"R1-UD-IQ1_S.gguf", 1}});
  const GroupedFiles grouped = group_files(files);
  const auto label = [&](const char* selector) -> std::string {
    const auto found = find_variant(grouped.variants, files, selector);
    return found ? grouped.variants[*found].label : "";
  };
  CHECK(label("Q4_K_M") == "Q4_K_M");
  CHECK(label("q4_k_m") == "Q4_K_M");
  CHECK(label("Q2_K") == "Q2_K");
  CHECK(label("Q2_K_XL") == "UD-Q2_K_XL");
  CHECK(label("R1-Q2_K.gguf") == "Q2_K");
  CHECK(label("r1-q2_k") == "Q2_K");
  CHECK(label("Q3_K").empty());
  CHECK(label("K").empty());
  CHECK(label("").empty());
}

}  // namespace
}  // namespace dsctl::registry
