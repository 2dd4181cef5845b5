// `dsctl show NAME`: what the registry knows of a model.
#pragma once

#include <string>

#include "commands/console.h"
#include "commands/settings.h"
#include "registry/registry.h"

namespace dsctl::commands {

struct ShowOptions {
  /// One part of the model as it is stored, ready to be piped; kSummary is the overview.
  enum class Part { kSummary, kModelfile, kParameters, kTemplate, kSystem, kLicense };

  std::string model;  // a file's path shows the file, as show_file does
  Part part = Part::kSummary;
  bool json = false;      // Ollama's /api/show object
  bool metadata = false;  // also every key; in JSON: long arrays too
  bool tensors = false;   // also every tensor
};

/// Shows a model, or a file: what ends in ".gguf", or contains a '/' and exists. Returns the exit
/// code; throws Error when there is no such model.
int show(const Settings& settings, const ShowOptions& options, Console& console);

/// A Modelfile that makes the same model again. FROM names the blobs.
std::string modelfile_of(const registry::StoredModel& model);

/// What `show_json` adds to the facts.
struct ShowDetail {
  bool long_arrays = false;  // of the metadata, in full
  bool tensors = false;
};

/// The object of Ollama's /api/show. Opens the weights.
std::string show_json(const registry::StoredModel& model, const ShowDetail& detail);

}  // namespace dsctl::commands
