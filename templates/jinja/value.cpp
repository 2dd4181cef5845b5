#include "templates/jinja/value.h"

#include <algorithm>

#include "templates/jinja/budget.h"
#include "templates/jinja/operations.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

constexpr size_t kIndexedFrom = 9;  // entries; below, a scan is as fast
constexpr size_t kNotFound = static_cast<size_t>(-1);

int depth_of(const Values& items) {
  int depth = 0;
  for (const Value& item : items)
    depth = std::max(depth, item.depth());
  return depth + 1;
}

Int range_length(Int start, Int stop, Int step) {
  if (step > 0) return start < stop ? (stop - start - 1) / step + 1 : 0;
  return start > stop ? (start - stop - 1) / -step + 1 : 0;
}

}  // namespace

Value Value::undefined(std::string message) {
  Value value;
  value.data_ = std::make_shared<const UndefinedInfo>(UndefinedInfo{std::move(message), false});
  return value;
}

Value Value::forbidden(std::string message) {
  Value value;
  value.data_ = std::make_shared<const UndefinedInfo>(UndefinedInfo{std::move(message), true});
  return value;
}

Value Value::boolean(bool value) {
  Value result;
  result.data_ = value;
  return result;
}

Value Value::integer(Int value) {
  Value result;
  result.data_ = value;
  return result;
}

Value Value::real(double value) {
  Value result;
  result.data_ = value;
  return result;
}

Value Value::string(std::string bytes) {
  Value result;
  const bool ascii = is_ascii(bytes);
  result.data_ = std::make_shared<const Text>(Text{std::move(bytes), ascii, false});
  return result;
}

Value Value::markup(std::string bytes) {
  Value result;
  const bool ascii = is_ascii(bytes);
  result.data_ = std::make_shared<const Text>(Text{std::move(bytes), ascii, true});
  return result;
}

Value Value::object(ObjectPtr object) {
  Value result;
  result.data_ = std::move(object);
  return result;
}

double Value::as_double() const {
  return is_float() ? std::get<double>(data_) : static_cast<double>(as_int());
}

Sequence::Sequence(Type sequence_type, Values values)
    : Object(sequence_type), items(std::move(values)) {
  depth = depth_of(items);
}

const Value* Dict::find(const Value& key, Budget& budget) const {
  const size_t hash = hash_value(key, budget);
  const size_t found = find_index(key, hash, budget);
  return found == kNotFound ? nullptr : &entries_[found].second;
}

const Value* Dict::find(std::string_view key) const {
  const auto matches = [&](const Value& found) {
    return found.is_string() && found.as_string() == key;
  };
  if (entries_.size() < kIndexedFrom) {
    for (const Entry& entry : entries_) {
      if (matches(entry.first)) return &entry.second;
    }
    return nullptr;
  }
  const auto [first, last] = index_.equal_range(hash_string(key));
  for (auto found = first; found != last; ++found) {
    if (matches(entries_[found->second].first)) return &entries_[found->second].second;
  }
  return nullptr;
}

void Dict::set(const Value& key, Value value, Budget& budget) {
  const size_t hash = hash_value(key, budget);
  depth = std::max({depth, key.depth() + 1, value.depth() + 1});
  check_depth(depth);
  if (const size_t found = find_index(key, hash, budget); found != kNotFound) {
    entries_[found].second = std::move(value);
    return;
  }
  budget.charge_items(1);
  entries_.emplace_back(key, std::move(value));
  if (entries_.size() < kIndexedFrom) return;
  if (entries_.size() == kIndexedFrom) {
    for (size_t i = 0; i + 1 < entries_.size(); ++i) {
      index_.emplace(hash_value(entries_[i].first, budget), i);
    }
  }
  index_.emplace(hash, entries_.size() - 1);
}

size_t Dict::find_index(const Value& key, size_t hash, Budget& budget) const {
  if (entries_.size() < kIndexedFrom) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (equals(entries_[i].first, key, budget)) return i;
    }
    return kNotFound;
  }
  const auto [first, last] = index_.equal_range(hash);
  for (auto found = first; found != last; ++found) {
    if (equals(entries_[found->second].first, key, budget)) return found->second;
  }
  return kNotFound;
}

DictView::DictView(std::shared_ptr<const Dict> viewed, Part viewed_part)
    : Object(Type::kDictView), dict(std::move(viewed)), part(viewed_part) {
  depth = dict->depth + 1;
}

Range::Range(Int from, Int to, Int by)
    : Object(Type::kRange), start(from), stop(to), step(by), length(range_length(from, to, by)) {}

Iterator::Iterator(Values values, std::string_view python_type)
    : Object(Type::kIterator), items(std::move(values)), python_name(python_type) {
  depth = depth_of(items);
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void check_depth(int depth) {
  if (depth > kMaxValueDepth) {
    throw JinjaError(ErrorKind::kLimit, "the template nests lists or dicts too deeply");
  }
}

Value make_string(Budget& budget, std::string bytes) {
  budget.charge_string(bytes.size());
  return Value::string(std::move(bytes));
}

Value make_list(Budget& budget, Values items) {
  budget.charge_items(items.size());
  auto list = std::make_shared<Sequence>(Object::Type::kList, std::move(items));
  check_depth(list->depth);
  return Value::object(std::move(list));
}

Value make_tuple(Budget& budget, Values items) {
  budget.charge_items(items.size());
  auto tuple = std::make_shared<Sequence>(Object::Type::kTuple, std::move(items));
  check_depth(tuple->depth);
  return Value::object(std::move(tuple));
}

Value make_iterator(Budget& budget, Values items, std::string_view python_type) {
  budget.charge_items(items.size());
  auto iterator = std::make_shared<Iterator>(std::move(items), python_type);
  check_depth(iterator->depth);
  return Value::object(std::move(iterator));
}

}  // namespace dsctl::templates::jinja
