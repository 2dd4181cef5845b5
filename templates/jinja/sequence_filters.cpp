// The filters over lists, dicts and other iterables.
#include <algorithm>

#include "templates/jinja/filters.h"
#include "templates/jinja/operations.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

/// A path such as "function.name" or "0.x", or an integer; nothing stands for the item itself.
std::vector<Value> attribute_path(const Value& attribute) {
  if (attribute.is_none()) return {};
  if (!attribute.is_string()) return {attribute};
  std::vector<Value> path;
  std::string_view rest = attribute.as_string();
  while (true) {
    const size_t dot = std::min(rest.find('.'), rest.size());
    const std::string part(rest.substr(0, dot));
    const bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    const std::optional<Int> index = digits ? parse_int(part, 10) : std::nullopt;
    path.push_back(index ? Value::integer(*index) : Value::string(part));
    if (dot == rest.size()) return path;
    rest.remove_prefix(dot + 1);
  }
}

Value follow(const std::vector<Value>& path, Value item, const Value& fallback, Budget& budget) {
  for (const Value& part : path) {
    item = get_item(item, part, budget);
    if (item.is_undefined() && !fallback.is_none()) item = fallback;
  }
  return item;
}

/// What sorting and grouping compare: strings without case unless asked for.
Value sort_key(const std::vector<Value>& path, const Value& item, bool case_sensitive,
               Budget& budget, const Value& fallback = Value()) {
  Value key = follow(path, item, fallback, budget);
  if (case_sensitive || !key.is_string()) return key;
  return make_string(budget, to_lower(key.as_string()));
}

struct Keyed {
  std::vector<Value> keys;
  Value item;
  bool is_list = true;  // keys compare as a list: the first unequal pair decides
};

bool less(const Keyed& left, const Keyed& right, Budget& budget) {
  if (!left.is_list) return compare(Ordering::kLess, left.keys[0], right.keys[0], budget);
  for (size_t i = 0; i < left.keys.size(); ++i) {
    if (equals(left.keys[i], right.keys[i], budget)) continue;
    return compare(Ordering::kLess, left.keys[i], right.keys[i], budget);
  }
  return false;
}

/// Merge sort: stable, and safe with keys that don't order (NaN) or comparisons that throw.
void stable_sort(std::vector<Keyed>& items, bool reverse, Budget& budget) {
  // A reversed stable sort keeps the order of equals: sort the mirror image.
  if (reverse) std::reverse(items.begin(), items.end());
  std::vector<Keyed> merged(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t start = 0; start < items.size(); start += 2 * width) {
      const size_t middle = std::min(start + width, items.size());
      const size_t end = std::min(start + 2 * width, items.size());
      size_t left = start;
      size_t right = middle;
      for (size_t out = start; out < end; ++out) {
        const bool take_right =
            left == middle || (right < end && less(items[right], items[left], budget));
        merged[out] = std::move(items[take_right ? right++ : left++]);
      }
    }
    std::swap(items, merged);
  }
  if (reverse) std::reverse(items.begin(), items.end());
}

Value filter_sort(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("sort", arguments, {"reverse", "case_sensitive", "attribute"}, 0);
  Budget& budget = runtime.budget;
  const Value attribute = bound.value_or(2, Value());
  std::vector<std::vector<Value>> paths;
  if (attribute.is_string()) {
    std::string_view rest = attribute.as_string();
    while (true) {
      const size_t comma = std::min(rest.find(','), rest.size());
      paths.push_back(attribute_path(Value::string(std::string(rest.substr(0, comma)))));
      if (comma == rest.size()) break;
      rest.remove_prefix(comma + 1);
    }
  } else {
    paths.push_back(attribute_path(attribute));
  }
  std::vector<Keyed> items;
  for (Value& item : iterate(value, budget)) {
    Keyed keyed;
    for (const auto& path : paths) {
      keyed.keys.push_back(sort_key(path, item, bound.bool_or(1, false), budget));
    }
    keyed.item = std::move(item);
    items.push_back(std::move(keyed));
  }
  stable_sort(items, bound.bool_or(0, false), budget);
  Values sorted;
  for (Keyed& keyed : items)
    sorted.push_back(std::move(keyed.item));
  return make_list(budget, std::move(sorted));
}

Value filter_dict_sort(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("dictsort", arguments, {"case_sensitive", "by", "reverse"}, 0);
  const std::string by = bound.string_or(1, "key");
  if (by != "key" && by != "value") fail_value("You can only sort by either \"key\" or \"value\"");
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is(Object::Type::kDict)) {
    fail_type("'" + type_name(value) + "' object has no attribute 'items'");
  }
  Budget& budget = runtime.budget;
  std::vector<Keyed> items;
  for (const auto& [key, item] : static_cast<const Dict*>(value.as_object())->entries()) {
    Keyed keyed;
    keyed.is_list = false;
    keyed.keys.push_back(sort_key({}, by == "key" ? key : item, bound.bool_or(0, false), budget));
    keyed.item = make_tuple(budget, {key, item});
    items.push_back(std::move(keyed));
  }
  stable_sort(items, bound.bool_or(2, false), budget);
  Values sorted;
  for (Keyed& keyed : items)
    sorted.push_back(std::move(keyed.item));
  return make_list(budget, std::move(sorted));
}

Value filter_group_by(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  Budget& budget = runtime.budget;
  const std::vector<Value> path = attribute_path(*bound.get(0));
  const Value fallback = bound.value_or(1, Value());
  const bool case_sensitive = bound.bool_or(2, false);
  std::vector<Keyed> items;
  for (Value& item : iterate(value, budget)) {
    Value key = sort_key(path, item, case_sensitive, budget, fallback);
    items.push_back({{std::move(key)}, std::move(item), false});
  }
  stable_sort(items, false, budget);
  Values groups;
  for (size_t start = 0; start < items.size();) {
    size_t end = start;
    Values members;
    while (end < items.size() && equals(items[end].keys[0], items[start].keys[0], budget)) {
      members.push_back(items[end++].item);
    }
    // NaN equals nothing, itself included: it still makes a group.
    if (end == start) members.push_back(items[end++].item);
    const Value key = follow(path, members[0], fallback, budget);
    auto group = std::make_shared<Sequence>(Object::Type::kTuple,
                                            Values{key, make_list(budget, std::move(members))});
    check_depth(group->depth);
    group->is_group = true;
    groups.push_back(Value::object(std::move(group)));
    start = end;
  }
  return make_list(budget, std::move(groups));
}

Value filter_unique(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("unique", arguments, {"case_sensitive", "attribute"}, 0);
  Budget& budget = runtime.budget;
  const std::vector<Value> path = attribute_path(bound.value_or(1, Value()));
  Dict seen;
  Values kept;
  for (const Value& item : iterate(value, budget)) {
    const Value key = sort_key(path, item, bound.bool_or(0, false), budget);
    if (seen.find(key, budget)) continue;
    seen.set(key, Value(), budget);
    kept.push_back(item);
  }
  return make_iterator(budget, std::move(kept));
}

Value min_or_max(Runtime& runtime, const Value& value, const Arguments& arguments,
                 Ordering wanted) {
  const BoundArguments bound("min", arguments, {"case_sensitive", "attribute"}, 0);
  Budget& budget = runtime.budget;
  const std::vector<Value> path = attribute_path(bound.value_or(1, Value()));
  const Values items = iterate(value, budget);
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const bool case_sensitive = bound.bool_or(0, false);
  size_t best = 0;
  Value best_key = sort_key(path, items[0], case_sensitive, budget);
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = sort_key(path, items[i], case_sensitive, budget);
    if (!compare(wanted, key, best_key, budget)) continue;
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

Value filter_min(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return min_or_max(runtime, value, arguments, Ordering::kLess);
}

Value filter_max(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return min_or_max(runtime, value, arguments, Ordering::kGreater);
}

Value filter_sum(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("sum", arguments, {"attribute", "start"}, 0);
  const std::vector<Value> path = attribute_path(bound.value_or(0, Value()));
  Value sum = bound.value_or(1, Value::integer(0));
  if (sum.is_string()) fail_type("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : iterate(value, runtime.budget)) {
    sum = arithmetic(Arithmetic::kAdd, sum, follow(path, item, Value(), runtime.budget),
                     runtime.budget);
  }
  return sum;
}

Value filter_join(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("join", arguments, {"d", "attribute"}, 0);
  Budget& budget = runtime.budget;
  const std::string separator = bound.get(0) ? to_str(*bound.get(0), budget) : "";
  const std::vector<Value> path = attribute_path(bound.value_or(1, Value()));
  std::string joined;
  bool first = true;
  for (const Value& item : iterate(value, budget)) {
    if (!first) joined += separator;
    first = false;
    joined += to_str(follow(path, item, Value(), budget), budget);
    if (joined.size() > budget.limits().max_string_bytes) budget.charge_string(joined.size());
  }
  return make_string(budget, std::move(joined));
}

Value filter_first(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("first", arguments, {}, 0);
  if (value.is(Object::Type::kIterator)) {
    auto& iterator = *static_cast<Iterator*>(value.as_object());
    if (iterator.next < iterator.items.size()) return iterator.items[iterator.next++];
    if (iterator.failure) throw *iterator.failure;
    return Value::undefined("No first item, sequence was empty.");
  }
  const Values items = iterate(value, runtime.budget);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value filter_last(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("last", arguments, {}, 0);
  if (!is_iterable(value) || value.is(Object::Type::kIterator)) {
    fail_type("'" + type_name(value) + "' object is not reversible");
  }
  const Values items = iterate(value, runtime.budget);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value filter_length(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("length", arguments, {}, 0);
  if (value.is_string()) runtime.budget.charge_steps(value.as_string().size() / 64);
  return Value::integer(length_of(value));
}

Value filter_list(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("list", arguments, {}, 0);
  return make_list(runtime.budget, iterate(value, runtime.budget));
}

Value filter_items(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("items", arguments, {}, 0);
  if (value.is_undefined()) return make_iterator(runtime.budget, {});
  if (!value.is(Object::Type::kDict)) fail_type("Can only get item pairs from a mapping.");
  Values pairs;
  for (const auto& [key, item] : static_cast<const Dict*>(value.as_object())->entries()) {
    pairs.push_back(make_tuple(runtime.budget, {key, item}));
  }
  return make_iterator(runtime.budget, std::move(pairs));
}

Value filter_reverse(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("reverse", arguments, {}, 0);
  if (value.is_string()) {
    return slice(value, Value(), Value(), Value::integer(-1), runtime.budget);
  }
  if (!is_iterable(value)) fail_value("argument must be iterable");
  Values items = iterate(value, runtime.budget);
  std::reverse(items.begin(), items.end());
  // reversed() of a generator doesn't exist: Jinja makes a list then.
  if (value.is(Object::Type::kIterator)) {
    return make_list(runtime.budget, std::move(items));
  }
  return make_iterator(runtime.budget, std::move(items), "list_reverseiterator");
}

Value filter_batch(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("batch", arguments, {"linecount", "fill_with"}, 1);
  Budget& budget = runtime.budget;
  const Int size = bound.int_or(0, 1);
  const Value fill = bound.value_or(1, Value());
  Values batches;
  Values batch;
  for (Value& item : iterate(value, budget)) {
    if (static_cast<Int>(batch.size()) == size) {
      batches.push_back(make_list(budget, std::move(batch)));
      batch = {};
    }
    batch.push_back(std::move(item));
  }
  if (!batch.empty()) {
    if (!fill.is_none() && static_cast<Int>(batch.size()) < size) {
      const Int limit = static_cast<Int>(budget.limits().max_items) + 1;
      budget.charge_items(static_cast<size_t>(std::min(size, limit)));
      batch.resize(static_cast<size_t>(size), fill);
    }
    batches.push_back(make_list(budget, std::move(batch)));
  }
  return make_iterator(budget, std::move(batches));
}

Value filter_slice(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("slice", arguments, {"slices", "fill_with"}, 1);
  Budget& budget = runtime.budget;
  const Int n_slices = bound.int_or(0, 1);
  const Values items = iterate(value, budget);
  const Int length = static_cast<Int>(items.size());
  if (n_slices == 0) fail_value("integer division or modulo by zero");
  Values slices;
  if (n_slices > 0) {
    const Int limit = static_cast<Int>(budget.limits().max_items) + 1;
    budget.charge_items(static_cast<size_t>(std::min(n_slices, limit)));
    const Value fill = bound.value_or(1, Value());
    Int start = 0;
    for (Int i = 0; i < n_slices; ++i) {
      const bool longer = i < length % n_slices;
      const Int end = start + length / n_slices + (longer ? 1 : 0);
      Values part(items.begin() + static_cast<ptrdiff_t>(start),
                  items.begin() + static_cast<ptrdiff_t>(end));
      if (!fill.is_none() && !longer) part.push_back(fill);
      slices.push_back(make_list(budget, std::move(part)));
      start = end;
    }
  }
  return make_iterator(budget, std::move(slices));
}

Arguments rest_of(const Arguments& arguments, size_t n_taken) {
  Arguments rest;
  rest.positional.assign(arguments.positional.begin() + static_cast<ptrdiff_t>(n_taken),
                         arguments.positional.end());
  rest.keywords = arguments.keywords;
  return rest;
}

/// Collects what `add` makes of each item. Jinja's generators work when they are used: an error
/// waits in the iterator until somebody comes to it, and never shows if nobody does.
template <typename Add>
Value generate(Budget& budget, const Value& value, Add add) {
  Values made;
  std::optional<JinjaError> failure;
  try {
    for (const Value& item : iterate(value, budget)) {
      budget.charge_steps(1);
      add(item, made);
    }
  } catch (const JinjaError& error) {
    if (error.kind() == ErrorKind::kLimit) throw;
    failure = error;
  }
  Value iterator = make_iterator(budget, std::move(made));
  static_cast<Iterator*>(iterator.as_object())->failure = std::move(failure);
  return iterator;
}

/// The generator itself; a wrong argument also waits until it is used. As in Jinja, an empty value
/// is not even looked at.
template <typename Make>
Value lazily(Runtime& runtime, const Value& value, Make make) {
  if (!truthy(value)) return make_iterator(runtime.budget, {});
  try {
    return make();
  } catch (const JinjaError& error) {
    if (error.kind() == ErrorKind::kLimit) throw;
    Value iterator = make_iterator(runtime.budget, {});
    static_cast<Iterator*>(iterator.as_object())->failure = error;
    return iterator;
  }
}

Value map_attribute(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("map", arguments, {"attribute", "default"}, 1);
  const std::vector<Value> path = attribute_path(*bound.get(0));
  const Value fallback = bound.value_or(1, Value());
  return generate(runtime.budget, value, [&](const Value& item, Values& made) {
    made.push_back(follow(path, item, fallback, runtime.budget));
  });
}

Value map_filter(Runtime& runtime, const Value& value, const Arguments& arguments) {
  if (arguments.positional.empty()) fail_type("map requires a filter argument");
  const Value& name = arguments.positional[0];
  const FilterBody filter = name.is_string() ? find_filter(name.as_string()) : nullptr;
  if (!filter) {
    throw JinjaError(ErrorKind::kSyntax, "no filter named " + repr(name, runtime.budget));
  }
  const Arguments rest = rest_of(arguments, 1);
  return generate(runtime.budget, value, [&](const Value& item, Values& made) {
    made.push_back(filter(runtime, item, rest));
  });
}

Value filter_map(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const bool by_attribute =
      arguments.positional.empty() &&
      std::any_of(arguments.keywords.begin(), arguments.keywords.end(),
                  [](const auto& keyword) { return keyword.first == "attribute"; });
  return lazily(runtime, value, [&] {
    return by_attribute ? map_attribute(runtime, value, arguments)
                        : map_filter(runtime, value, arguments);
  });
}

enum class Subject { kItem, kAttribute };
enum class Keep { kMatches, kOthers };

Value select_checked(Runtime& runtime, const Value& value, const Arguments& arguments,
                     Subject subject, Keep keep) {
  Budget& budget = runtime.budget;
  size_t n_taken = 0;
  std::vector<Value> path;
  if (subject == Subject::kAttribute) {
    if (arguments.positional.empty()) fail_type("Missing parameter for attribute name");
    path = attribute_path(arguments.positional[n_taken++]);
  }
  TestBody test = nullptr;
  if (arguments.positional.size() > n_taken) {
    const Value& name = arguments.positional[n_taken++];
    test = name.is_string() ? find_test(name.as_string()) : nullptr;
    if (!test) throw JinjaError(ErrorKind::kSyntax, "no test named " + repr(name, budget));
  }
  const Arguments rest = rest_of(arguments, n_taken);
  return generate(budget, value, [&](const Value& item, Values& kept) {
    const Value tested = follow(path, item, Value(), budget);
    const bool matches = test ? test(runtime, tested, rest) : truthy(tested);
    if (matches == (keep == Keep::kMatches)) kept.push_back(item);
  });
}

/// select, reject, selectattr, rejectattr.
template <Subject kSubject, Keep kKeep>
Value filter_selection(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return lazily(runtime, value,
                [&] { return select_checked(runtime, value, arguments, kSubject, kKeep); });
}

constexpr NamedFilter kFilters[] = {
    {"batch", filter_batch},
    {"count", filter_length},
    {"dictsort", filter_dict_sort},
    {"first", filter_first},
    {"groupby", filter_group_by},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"reject", filter_selection<Subject::kItem, Keep::kOthers>},
    {"rejectattr", filter_selection<Subject::kAttribute, Keep::kOthers>},
    {"reverse", filter_reverse},
    {"select", filter_selection<Subject::kItem, Keep::kMatches>},
    {"selectattr", filter_selection<Subject::kAttribute, Keep::kMatches>},
    {"slice", filter_slice},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};

}  // namespace

std::span<const NamedFilter> sequence_filters() {
  return kFilters;
}

}  // namespace dsctl::templates::jinja
