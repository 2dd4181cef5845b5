// TextModels: models for what needs their tokenizer and template only. Their weights are not
// loaded, and no other model has to go for them.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "commands/serve/model_host.h"

namespace dsctl::commands::serve {

/// Thread-safe. Keeps the last few models, without their files: a deleted model's room is free.
class TextModels {
 public:
  /// `source` must outlive it.
  explicit TextModels(ModelSource& source) : source_(source) {}

  /// The model that a client calls `name`. Throws ApiError 404 when there is none, or the reason
  /// why it can't be read. May take as long as reading a vocabulary does.
  std::shared_ptr<const LoadedModel> get(const std::string& name);

 private:
  struct Entry {
    ModelId id;
    std::shared_ptr<const LoadedModel> model;
  };
  static constexpr size_t kMaxEntries = 4;

  ModelSource& source_;
  std::mutex mutex_;
  std::deque<Entry> entries_;  // the one used last in front
};

}  // namespace dsctl::commands::serve
