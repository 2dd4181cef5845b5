#include "commands/serve/text_models.h"

#include <algorithm>
#include <utility>

#include "commands/serve/api_error.h"

namespace dsctl::commands::serve {

std::shared_ptr<const LoadedModel> TextModels::get(const std::string& name) {
  const auto id = source_.find(name);
  if (!id) throw ApiError(404, "model '" + name + "' not found", "model", "model_not_found");
  {
    const std::lock_guard lock(mutex_);
    const auto it = std::find_if(entries_.begin(), entries_.end(),
                                 [&](const Entry& entry) { return entry.id == *id; });
    if (it != entries_.end()) {
      std::rotate(entries_.begin(), it, it + 1);
      return entries_.front().model;
    }
  }
  // Outside the lock: reading a large vocabulary takes a while. Two who read the same at once both
  // get theirs.
  auto model = std::make_shared<LoadedModel>(*source_.load(*id));
  model->file.reset();
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.id.name == id->name; });
  entries_.push_front({*id, model});
  if (entries_.size() > kMaxEntries) entries_.pop_back();
  return model;
}

}  // namespace dsctl::commands::serve
