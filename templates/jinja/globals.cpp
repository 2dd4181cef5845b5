// The functions that every chat template finds: range, dict, namespace, raise_exception, ...
#include <algorithm>
#include <ctime>

#include "templates/jinja/callable.h"
#include "templates/jinja/operations.h"

namespace dsctl::templates::jinja {
namespace {

constexpr Int kMaxRange = 100'000;  // Jinja's sandbox has the same limit
constexpr size_t kMaxTimeFormat = 1000;

Value make_range(Runtime& runtime, const Arguments& arguments) {
  const BoundArguments bound("range", arguments, {"start", "stop", "step"}, 1);
  runtime.budget.charge_steps(1);
  const bool one = !bound.get(1);
  const Int start = one ? 0 : bound.int_or(0, 0);
  const Int stop = one ? bound.int_or(0, 0) : bound.int_or(1, 0);
  const Int step = bound.int_or(2, 1);
  if (step == 0) fail_value("range() arg 3 must not be zero");
  auto range = std::make_shared<Range>(start, stop, step);
  if (range->length > kMaxRange) {
    fail_value("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  }
  return Value::object(std::move(range));
}

/// dict(mapping or pairs, **keywords), also the start of namespace().
std::shared_ptr<Dict> build_dict(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.size() > 1) {
    fail_type("dict expected at most 1 argument, got " +
              std::to_string(arguments.positional.size()));
  }
  auto dict = std::make_shared<Dict>();
  Budget& budget = runtime.budget;
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Object::Type::kDict)) {
      for (const auto& [key, value] : static_cast<const Dict*>(source.as_object())->entries()) {
        dict->set(key, value, budget);
      }
    } else {
      for (const Value& pair : iterate(source, budget)) {
        const Values parts = iterate(pair, budget);
        if (parts.size() != 2) {
          fail_value("dictionary update sequence element has length " +
                     std::to_string(parts.size()) + "; 2 is required");
        }
        dict->set(parts[0], parts[1], budget);
      }
    }
  }
  for (const auto& [name, value] : arguments.keywords) {
    dict->set(Value::string(name), value, budget);
  }
  return dict;
}

Value make_dict(Runtime& runtime, const Arguments& arguments) {
  return Value::object(build_dict(runtime, arguments));
}

Value make_namespace(Runtime& runtime, const Arguments& arguments) {
  // Namespaces live until the render is over: their number counts.
  runtime.budget.charge_steps(100);
  auto names = std::make_shared<Namespace>();
  const std::shared_ptr<Dict> given = build_dict(runtime, arguments);
  for (const auto& [key, value] : given->entries()) {
    if (!key.is_string()) fail_type("attribute names must be strings");
    if (key.as_string().starts_with("_")) {
      throw JinjaError(ErrorKind::kSecurity,
                       "a namespace can't hold names with an underscore in front, but got " +
                           repr_string(key.as_string()));
    }
    names->attributes.emplace_back(key.as_string(), value);
  }
  runtime.namespaces.push_back(names);
  return Value::object(std::move(names));
}

Value raise_exception(Runtime& runtime, const Arguments& arguments) {
  const BoundArguments bound("raise_exception", arguments, {"message"}, 1);
  throw RaisedError(to_str(*bound.get(0), runtime.budget));
}

Value format_time_now(Runtime& runtime, const Arguments& arguments) {
  const BoundArguments bound("strftime_now", arguments, {"format"}, 1);
  const std::string format = bound.string_or(0, "");
  if (format.size() > kMaxTimeFormat) fail_value("the time format is too long");
  // Local time without a zone, as Python's datetime.now() gives it.
  std::string zoneless;
  for (size_t i = 0; i < format.size() && format[i] != '\0'; ++i) {
    if (format[i] != '%' || i + 1 >= format.size()) {
      zoneless += format[i];
      continue;
    }
    ++i;
    if (format[i] == 'f') {
      zoneless += "000000";
    } else if (format[i] != 'z' && format[i] != 'Z') {
      zoneless += '%';
      zoneless += format[i];
    }
  }
  if (zoneless.empty()) return Value::string("");
  const std::tm now = runtime.local_time();
  std::string text(zoneless.size() * 64 + 64, '\0');
  text.resize(std::strftime(text.data(), text.size(), zoneless.c_str(), &now));
  return make_string(runtime.budget, std::move(text));
}

/// cycler("odd", "even"): .next(), .current, .reset().
struct Cycler : Helper {
  struct Action : Helper {
    Action(std::shared_ptr<Cycler> owner, bool resets)
        : cycler(std::move(owner)), is_reset(resets) {
      depth = cycler->depth + 1;
    }
    std::string_view python_name() const override { return "method"; }
    bool is_callable() const override { return true; }
    Value call(Runtime& /*runtime*/, const Arguments& arguments) override {
      const BoundArguments none("next", arguments, {}, 0);
      if (is_reset) {
        cycler->position = 0;
        return {};
      }
      Value current = cycler->items[cycler->position];
      cycler->position = (cycler->position + 1) % cycler->items.size();
      return current;
    }
    const std::shared_ptr<Cycler> cycler;
    const bool is_reset;
  };

  explicit Cycler(Values values) : items(std::move(values)) {
    for (const Value& item : items)
      depth = std::max(depth, item.depth() + 1);
  }
  std::string_view python_name() const override { return "Cycler"; }
  std::optional<Value> attribute(std::string_view name) override {
    if (name == "current") return items[position];
    if (name == "pos") return Value::integer(static_cast<Int>(position));
    if (name != "next" && name != "reset") return std::nullopt;
    return Value::object(std::make_shared<Action>(self.lock(), name == "reset"));
  }

  Values items;
  size_t position = 0;
  std::weak_ptr<Cycler> self;
};

Value make_cycler(Runtime& runtime, const Arguments& arguments) {
  if (!arguments.keywords.empty()) fail_type("cycler() takes no keyword arguments");
  if (arguments.positional.empty()) fail_value("at least one item has to be provided");
  runtime.budget.charge_items(arguments.positional.size());
  auto cycler = std::make_shared<Cycler>(arguments.positional);
  check_depth(cycler->depth);
  cycler->self = cycler;
  return Value::object(std::move(cycler));
}

/// joiner(", "): nothing at the first call, the separator afterwards.
struct Joiner : Helper {
  explicit Joiner(Value between) : separator(std::move(between)) { depth = separator.depth() + 1; }
  std::string_view python_name() const override { return "Joiner"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& /*runtime*/, const Arguments& arguments) override {
    const BoundArguments none("joiner", arguments, {}, 0);
    if (used) return separator;
    used = true;
    return Value::string("");
  }

  Value separator;
  bool used = false;
};

Value make_joiner(Runtime& runtime, const Arguments& arguments) {
  const BoundArguments bound("joiner", arguments, {"sep"}, 0);
  runtime.budget.charge_steps(1);
  auto joiner = std::make_shared<Joiner>(bound.value_or(0, Value::string(", ")));
  check_depth(joiner->depth);
  return Value::object(std::move(joiner));
}

struct Function {
  std::string_view name;
  BuiltinFunction::Body body;
};

constexpr Function kFunctions[] = {
    {"range", make_range},
    {"dict", make_dict},
    {"namespace", make_namespace},
    {"raise_exception", raise_exception},
    {"strftime_now", format_time_now},
    {"cycler", make_cycler},
    {"joiner", make_joiner},
};

}  // namespace

std::optional<Value> global_function(std::string_view name) {
  for (const Function& function : kFunctions) {
    if (function.name == name) {
      return Value::object(std::make_shared<BuiltinFunction>(function.name, function.body));
    }
  }
  return std::nullopt;
}

}  // namespace dsctl::templates::jinja
