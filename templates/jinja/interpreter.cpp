#include "templates/jinja/interpreter.h"

#include <algorithm>

#include "templates/jinja/interpreter_guards.h"
#include "templates/jinja/json.h"
#include "templates/jinja/loop.h"
#include "templates/jinja/operations.h"

namespace dsctl::templates::jinja {
namespace {

/// A macro, or the body of a call block under the name `caller`.
struct MacroObject : Helper {
  MacroObject(Interpreter& owner, const Callable& definition, std::weak_ptr<Scope> scope)
      : interpreter(owner), callable(definition), closure(std::move(scope)) {}
  std::string_view python_name() const override { return "Macro"; }
  std::string describe() const override { return "<Macro " + repr_string(callable.name) + ">"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& /*runtime*/, const Arguments& arguments) override {
    return interpreter.call_macro(callable, closure, arguments);
  }
  std::optional<Value> attribute(std::string_view name) override {
    if (name == "name") return Value::string(callable.name);
    if (name == "caller") return Value::boolean(callable.uses_caller);
    if (name == "catch_kwargs") return Value::boolean(callable.uses_kwargs);
    if (name == "catch_varargs") return Value::boolean(callable.uses_varargs);
    if (name != "arguments") return std::nullopt;
    Values names;
    for (const std::string& parameter : callable.parameter_names) {
      names.push_back(Value::string(parameter));
    }
    return Value::object(std::make_shared<Sequence>(Object::Type::kTuple, std::move(names)));
  }

  Interpreter& interpreter;
  const Callable& callable;
  // Weak: the scope holds the macro. A macro lives as long as the block that defines it.
  const std::weak_ptr<Scope> closure;
};

ScopePtr lock_scope(const std::weak_ptr<Scope>& scope) {
  ScopePtr locked = scope.lock();
  if (!locked) fail_value("the macro or loop was called after the end of its block");
  return locked;
}

}  // namespace

Interpreter::Interpreter(const TemplateTree& tree, const RenderOptions& options)
    : tree_(tree), runtime_{Budget(options.limits), options.local_time, {}} {}

Interpreter::~Interpreter() {
  // A namespace can be part of its own value: break every such ring.
  for (const auto& names : runtime_.namespaces)
    names->attributes.clear();
}

std::string Interpreter::run(const Json& variables) {
  // Only what the template names is converted.
  for (const std::string& name : tree_.names) {
    const auto found = variables.find(name);
    globals_.push_back(found != variables.end() ? from_json(*found, runtime_.budget)
                                                : global_function(name));
  }
  scope_ = std::make_shared<Scope>(nullptr);
  std::string text;
  out_ = &text;
  run_body(tree_.body);
  return text;
}

// --- statements ---

Interpreter::Flow Interpreter::run_body(const Body& body) {
  const Depth depth(*this);
  for (const StatementPtr& statement : body) {
    runtime_.budget.charge_steps(1);
    const Flow flow = run_statement(*statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement) {
  offset_ = statement.offset;
  switch (statement.kind) {
    case StatementKind::kText:
      write(static_cast<const TextStatement&>(statement).text);
      return Flow::kNext;
    case StatementKind::kOutput:
      for (const ExprPtr& value : static_cast<const OutputStatement&>(statement).values) {
        write_value(eval(*value));
      }
      return Flow::kNext;
    case StatementKind::kIf:
      return run_if(static_cast<const IfStatement&>(statement));
    case StatementKind::kFor:
      return run_for(static_cast<const ForStatement&>(statement));
    case StatementKind::kSet: {
      const auto& node = static_cast<const SetStatement&>(statement);
      assign(*node.target, eval(*node.value));
      return Flow::kNext;
    }
    case StatementKind::kSetBlock:
      return run_set_block(static_cast<const SetBlockStatement&>(statement));
    case StatementKind::kMacro:
      run_macro(static_cast<const MacroStatement&>(statement));
      return Flow::kNext;
    case StatementKind::kCallBlock:
      run_call_block(static_cast<const CallBlockStatement&>(statement));
      return Flow::kNext;
    case StatementKind::kFilterBlock:
      return run_filter_block(static_cast<const FilterBlockStatement&>(statement));
    case StatementKind::kWith:
      return run_with(static_cast<const WithStatement&>(statement));
    case StatementKind::kScope: {
      const InnerScope inner(*this);
      return run_body(static_cast<const ScopeStatement&>(statement).body);
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_if(const IfStatement& node) {
  for (const auto& [condition, body] : node.branches) {
    if (truthy(eval(*condition))) return run_body(body);
  }
  return run_body(node.otherwise);
}

Interpreter::Flow Interpreter::run_for(const ForStatement& node) {
  const Value iterable = eval(*node.iterable);
  offset_ = node.iterable->offset;
  run_loop(node, iterable, scope_, 0);
  return Flow::kNext;
}

void Interpreter::run_loop(const ForStatement& node, const Value& iterable, const ScopePtr& outer,
                           Int depth) {
  auto loop =
      std::make_shared<LoopObject>(*this, node, iterate(iterable, runtime_.budget), outer, depth);
  // Jinja counts an iteration when it comes to its end: a loop of nothing but `continue` takes the
  // else branch too.
  bool any_completed = false;
  while (const std::optional<Value> item = loop->advance()) {
    const Flow flow = run_iteration(node, *item, loop, outer.get());
    if (flow == Flow::kBreak) break;
    any_completed |= flow == Flow::kNext;
  }
  loop->finish();
  if (!any_completed) {
    const InnerScope inner(*this, outer.get());
    run_body(node.otherwise);
  }
}

Interpreter::Flow Interpreter::run_iteration(const ForStatement& node, const Value& item,
                                             const std::shared_ptr<LoopObject>& loop,
                                             const Scope* outer) {
  runtime_.budget.charge_steps(1);
  const InnerScope inner(*this, outer);
  if (node.uses_loop || node.recursive) assign_name(kLoopName, Value::object(loop));
  offset_ = node.target->offset;
  assign(*node.target, item);
  return run_body(node.body);
}

std::optional<Value> Interpreter::filter_item(const ForStatement& loop, const Scope* outer,
                                              const Value& item) {
  runtime_.budget.charge_steps(1);
  const InnerScope inner(*this, outer);
  assign(*loop.target, item);
  if (!truthy(eval(*loop.condition))) return std::nullopt;
  return read_target(*loop.target);
}

Value Interpreter::call_loop(const ForStatement& loop, const std::weak_ptr<Scope>& outer,
                             const Value& iterable, Int depth) {
  const Depth guard(*this);
  const ScopePtr scope = lock_scope(outer);
  Capture capture(*this);
  run_loop(loop, iterable, scope, depth);
  return capture.take();
}

Interpreter::Flow Interpreter::run_set_block(const SetBlockStatement& node) {
  Value text;
  {
    const InnerScope inner(*this);
    Capture capture(*this);
    if (const Flow flow = run_body(node.body); flow != Flow::kNext) return flow;
    text = capture.take();
    if (node.filter) {
      block_texts_.push_back(text);
      text = eval(*node.filter);
      block_texts_.pop_back();
    }
  }
  assign(*node.target, text);
  return Flow::kNext;
}

void Interpreter::run_macro(const MacroStatement& node) {
  assign_name(node.id, Value::object(std::make_shared<MacroObject>(*this, node.macro, scope_)));
}

void Interpreter::run_call_block(const CallBlockStatement& node) {
  const Value caller = Value::object(std::make_shared<MacroObject>(*this, node.caller, scope_));
  write_value(eval_call(static_cast<const CallExpr&>(*node.call), &caller));
}

Interpreter::Flow Interpreter::run_filter_block(const FilterBlockStatement& node) {
  const InnerScope inner(*this);
  Value text;
  {
    Capture capture(*this);
    if (const Flow flow = run_body(node.body); flow != Flow::kNext) return flow;
    text = capture.take();
  }
  block_texts_.push_back(text);
  const Value filtered = eval(*node.filter);
  block_texts_.pop_back();
  write_value(filtered);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_with(const WithStatement& node) {
  // All values are evaluated outside, before any of the names exists.
  Values values;
  for (const auto& assignment : node.assignments)
    values.push_back(eval(*assignment.second));
  const InnerScope inner(*this);
  for (size_t i = 0; i < values.size(); ++i)
    assign(*node.assignments[i].first, values[i]);
  return run_body(node.body);
}

// --- macros ---

void Interpreter::bind_parameters(const Callable& callable, const Arguments& arguments) {
  const size_t n_parameters = callable.parameters.size();
  std::vector<bool> used(arguments.keywords.size(), false);
  const auto keyword = [&](std::string_view name) -> const Value* {
    for (size_t i = 0; i < arguments.keywords.size(); ++i) {
      if (used[i] || arguments.keywords[i].first != name) continue;
      used[i] = true;
      return &arguments.keywords[i].second;
    }
    return nullptr;
  };
  std::vector<const Value*> given(n_parameters, nullptr);
  bool has_caller_parameter = false;
  for (size_t i = 0; i < n_parameters; ++i) {
    const bool positional = i < arguments.positional.size();
    given[i] = positional ? &arguments.positional[i] : keyword(callable.parameter_names[i]);
    has_caller_parameter |= callable.parameters[i] == kCallerName;
  }
  if (callable.uses_caller && !has_caller_parameter) {
    const Value* caller = keyword("caller");
    assign_name(kCallerName, caller ? *caller : Value::undefined("No caller defined"));
  }
  auto rest = std::make_shared<Dict>();
  for (size_t i = 0; i < arguments.keywords.size(); ++i) {
    if (used[i]) continue;
    const auto& [name, value] = arguments.keywords[i];
    if (!callable.uses_kwargs) {
      fail_type("macro '" + callable.name + "' takes no keyword argument '" + name + "'");
    }
    rest->set(Value::string(name), value, runtime_.budget);
  }
  if (callable.uses_kwargs) assign_name(kKwargsName, Value::object(std::move(rest)));
  const size_t n_positional = arguments.positional.size();
  if (n_positional > n_parameters && !callable.uses_varargs) {
    fail_type("macro '" + callable.name + "' takes not more than " + std::to_string(n_parameters) +
              " argument(s)");
  }
  if (callable.uses_varargs) {
    const auto first =
        arguments.positional.begin() + static_cast<ptrdiff_t>(std::min(n_parameters, n_positional));
    assign_name(kVarargsName,
                make_tuple(runtime_.budget, Values(first, arguments.positional.end())));
  }
  const size_t n_required = n_parameters - callable.defaults.size();
  for (size_t i = 0; i < n_parameters; ++i) {
    Value value;
    if (given[i]) {
      value = *given[i];
    } else if (i >= n_required) {
      value = eval(*callable.defaults[i - n_required]);
    } else {
      value = Value::undefined("parameter '" + callable.parameter_names[i] + "' was not provided");
    }
    assign_name(callable.parameters[i], std::move(value));
  }
}

Value Interpreter::call_macro(const Callable& callable, const std::weak_ptr<Scope>& closure,
                              const Arguments& arguments) {
  const Depth guard(*this);
  const ScopePtr defined_in = lock_scope(closure);
  const InnerScope inner(*this, defined_in.get());
  bind_parameters(callable, arguments);
  Capture capture(*this);
  run_body(callable.body);
  return capture.take();
}

// --- variables ---

Value Interpreter::lookup(NameId id) const {
  for (const Scope* scope = scope_.get(); scope; scope = scope->parent) {
    for (const auto& [name, value] : scope->variables) {
      if (name == id) return value;
    }
  }
  if (const auto& global = globals_[static_cast<size_t>(id)]) return *global;
  return Value::undefined("'" + tree_.names[static_cast<size_t>(id)] + "' is undefined");
}

void Interpreter::assign_name(NameId id, Value value) {
  for (auto& [name, old_value] : scope_->variables) {
    if (name != id) continue;
    old_value = std::move(value);
    return;
  }
  scope_->variables.emplace_back(id, std::move(value));
}

void Interpreter::assign_attribute(const NamespaceRefExpr& target, const Value& value) {
  const Value owner = lookup(target.id);
  offset_ = target.offset;
  if (!owner.is(Object::Type::kNamespace)) {
    fail_value("cannot assign attribute on non-namespace object");
  }
  if (target.attribute.starts_with("_")) {
    throw JinjaError(ErrorKind::kSecurity,
                     "a namespace can't hold names with an underscore in front, but got " +
                         repr_string(target.attribute));
  }
  auto& names = *static_cast<Namespace*>(owner.as_object());
  for (auto& [name, old_value] : names.attributes) {
    if (name != target.attribute) continue;
    old_value = value;
    return;
  }
  names.attributes.emplace_back(target.attribute, value);
}

void Interpreter::assign(const Expr& target, const Value& value) {
  switch (target.kind) {
    case ExprKind::kName:
      assign_name(static_cast<const NameExpr&>(target).id, value);
      return;
    case ExprKind::kNamespaceRef:
      assign_attribute(static_cast<const NamespaceRefExpr&>(target), value);
      return;
    default:
      break;
  }
  const auto& targets = static_cast<const ItemsExpr&>(target).items;
  if (!is_iterable(value)) {
    fail_type("cannot unpack non-iterable " + type_name(value) + " object");
  }
  const Values items = iterate(value, runtime_.budget);
  if (items.size() > targets.size()) {
    fail_value("too many values to unpack (expected " + std::to_string(targets.size()) + ")");
  }
  if (items.size() < targets.size()) {
    fail_value("not enough values to unpack (expected " + std::to_string(targets.size()) +
               ", got " + std::to_string(items.size()) + ")");
  }
  for (size_t i = 0; i < items.size(); ++i)
    assign(*targets[i], items[i]);
}

Value Interpreter::read_target(const Expr& target) {
  if (target.kind == ExprKind::kName) return lookup(static_cast<const NameExpr&>(target).id);
  Values parts;
  for (const ExprPtr& item : static_cast<const ItemsExpr&>(target).items) {
    parts.push_back(read_target(*item));
  }
  return make_tuple(runtime_.budget, std::move(parts));
}

// --- expressions ---

void Interpreter::write(std::string_view text) {
  runtime_.budget.charge_string(text.size());
  if (out_->size() + text.size() > runtime_.budget.limits().max_output_bytes) {
    throw JinjaError(ErrorKind::kLimit, "the template writes too much text");
  }
  *out_ += text;
}

void Interpreter::write_value(const Value& value) {
  if (value.is_string()) {
    write(value.as_string());
  } else {
    write(to_str(value, runtime_.budget));
  }
}

}  // namespace dsctl::templates::jinja
