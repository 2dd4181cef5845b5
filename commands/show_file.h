// `dsctl show FILE.gguf`: what a model file holds, for people or as JSON. Also the pieces that
// showing a model of the registry needs: its sections.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "commands/console.h"
#include "gguf/gguf_file.h"

namespace dsctl::commands {

struct ShowFileOptions {
  std::filesystem::path path;  // any shard of a split shows the whole model
  bool json = false;           // instead of text
  bool metadata = false;       // every key; in JSON: long arrays too
  bool tensors = false;        // every tensor; JSON has them always
};

/// A titled table of text: "  Model" and indented rows whose cells are aligned.
struct Section {
  std::string title;
  std::vector<std::vector<std::string>> rows;
};

/// The sections as text, with an empty line between them. A last cell that would pass `width`
/// columns is cut; 0 does not cut.
std::string render(const std::vector<Section>& sections, int width);

/// Section `Model` as Ollama prints it, with name, blocks and vocabulary after its rows.
Section model_section(const gguf::GgufFile& file);
Section metadata_section(const gguf::GgufFile& file);
Section tensors_section(const gguf::GgufFile& file);

/// The metadata as one JSON object in file order; arrays of more than 64 elements are null unless
/// wanted in full.
enum class LongArrays { kNull, kFull };
std::string metadata_json_text(const gguf::GgufFile& file, LongArrays long_arrays);

/// Shows the file. Returns the exit code; throws gguf::Error when it is no sound model file.
///
/// The JSON is one object:
///   path, format {name "gguf", version}, size_bytes, shards [{path, size_bytes}],
///   architecture, name, license, quantization, parameter_count, context_length,
///   embedding_length, block_count, vocab_size, expert_count, expert_used_count,
///   expert_shared_count (each null when the file does not say),
///   tensor_types [{type, count, size_bytes}] by size,
///   metadata {key: value} in file order; arrays of more than 64 elements are null unless
///     --metadata is given; not-a-number is null; invalid UTF-8 becomes U+FFFD,
///   tensors [{name, type, shape [row length first], size_bytes, shard, offset_bytes}] where shard
///     counts from 0 and offset_bytes from the start of that shard's file.
int show_file(const ShowFileOptions& options, Console& console);

}  // namespace dsctl::commands
