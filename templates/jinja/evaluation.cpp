// The interpreter's expressions.
#include "templates/jinja/interpreter_guards.h"
#include "templates/jinja/loop.h"
#include "templates/jinja/operations.h"

namespace dsctl::templates::jinja {

Value Interpreter::eval(const Expr& expr) {
  const Depth depth(*this);
  runtime_.budget.charge_steps(1);
  switch (expr.kind) {
    case ExprKind::kConstant:
      return static_cast<const ConstantExpr&>(expr).value;
    case ExprKind::kName:
      return lookup(static_cast<const NameExpr&>(expr).id);
    case ExprKind::kNamespaceRef:
      return {};
    case ExprKind::kList:
    case ExprKind::kTuple:
      return eval_items(static_cast<const ItemsExpr&>(expr));
    case ExprKind::kDict:
      return eval_dict(static_cast<const DictExpr&>(expr));
    case ExprKind::kNot:
      return Value::boolean(!truthy(eval(*static_cast<const UnaryExpr&>(expr).operand)));
    case ExprKind::kNegate:
    case ExprKind::kPositive: {
      const Value operand = eval(*static_cast<const UnaryExpr&>(expr).operand);
      offset_ = expr.offset;
      return expr.kind == ExprKind::kNegate ? negate(operand) : positive(operand);
    }
    case ExprKind::kAnd:
    case ExprKind::kOr: {
      const auto& node = static_cast<const LogicExpr&>(expr);
      Value left = eval(*node.left);
      return truthy(left) == (expr.kind == ExprKind::kOr) ? left : eval(*node.right);
    }
    case ExprKind::kArithmetic: {
      const auto& node = static_cast<const ArithmeticExpr&>(expr);
      const Value left = eval(*node.left);
      const Value right = eval(*node.right);
      offset_ = expr.offset;
      return arithmetic(node.op, left, right, runtime_.budget);
    }
    case ExprKind::kCompare:
      return eval_compare(static_cast<const CompareExpr&>(expr));
    case ExprKind::kConcat:
      return eval_concat(static_cast<const ItemsExpr&>(expr));
    case ExprKind::kConditional:
      return eval_conditional(static_cast<const ConditionalExpr&>(expr));
    case ExprKind::kAttribute: {
      const auto& node = static_cast<const AttributeExpr&>(expr);
      const Value object = eval(*node.object);
      offset_ = expr.offset;
      return get_attribute(object, node.name, runtime_.budget);
    }
    case ExprKind::kItem:
      return eval_item(static_cast<const ItemExpr&>(expr));
    case ExprKind::kSlice:
      // Only reached inside a tuple of subscripts, which nothing understands.
      return Value::object(std::make_shared<SliceObject>());
    case ExprKind::kCall:
      return eval_call(static_cast<const CallExpr&>(expr));
    case ExprKind::kFilter:
      return eval_filter(static_cast<const FilterExpr&>(expr));
    case ExprKind::kTest:
      return eval_test(static_cast<const TestExpr&>(expr));
  }
  return {};
}

Value Interpreter::eval_items(const ItemsExpr& node) {
  Values items;
  items.reserve(node.items.size());
  for (const ExprPtr& item : node.items)
    items.push_back(eval(*item));
  offset_ = node.offset;
  return node.kind == ExprKind::kList ? make_list(runtime_.budget, std::move(items))
                                      : make_tuple(runtime_.budget, std::move(items));
}

Value Interpreter::eval_dict(const DictExpr& node) {
  auto dict = std::make_shared<Dict>();
  for (const auto& [key_expr, value_expr] : node.entries) {
    const Value key = eval(*key_expr);
    Value value = eval(*value_expr);
    offset_ = key_expr->offset;
    dict->set(key, std::move(value), runtime_.budget);
  }
  return Value::object(std::move(dict));
}

bool Interpreter::eval_comparison(CompareOp op, const Value& left, const Value& right) {
  Budget& budget = runtime_.budget;
  switch (op) {
    case CompareOp::kEqual:
      return equals(left, right, budget);
    case CompareOp::kNotEqual:
      return !equals(left, right, budget);
    case CompareOp::kLess:
      return compare(Ordering::kLess, left, right, budget);
    case CompareOp::kLessEqual:
      return compare(Ordering::kLessEqual, left, right, budget);
    case CompareOp::kGreater:
      return compare(Ordering::kGreater, left, right, budget);
    case CompareOp::kGreaterEqual:
      return compare(Ordering::kGreaterEqual, left, right, budget);
    case CompareOp::kIn:
      return contains(right, left, budget);
    case CompareOp::kNotIn:
      return !contains(right, left, budget);
  }
  return false;
}

Value Interpreter::eval_compare(const CompareExpr& node) {
  Value left = eval(*node.first);
  for (const auto& [op, operand] : node.rest) {
    Value right = eval(*operand);
    offset_ = node.offset;
    if (!eval_comparison(op, left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::eval_concat(const ItemsExpr& node) {
  std::string joined;
  for (const ExprPtr& item : node.items) {
    const Value value = eval(*item);
    if (value.is_string()) {
      joined += value.as_string();
    } else {
      joined += to_str(value, runtime_.budget);
    }
    if (joined.size() > runtime_.budget.limits().max_string_bytes) break;
  }
  offset_ = node.offset;
  return make_string(runtime_.budget, std::move(joined));
}

Value Interpreter::eval_conditional(const ConditionalExpr& node) {
  if (truthy(eval(*node.condition))) return eval(*node.then);
  if (node.otherwise) return eval(*node.otherwise);
  return Value::undefined(
      "the inline if-expression evaluated to false and no else section was "
      "defined");
}

Value Interpreter::eval_item(const ItemExpr& node) {
  const Value object = eval(*node.object);
  if (node.index->kind != ExprKind::kSlice) {
    const Value index = eval(*node.index);
    offset_ = node.offset;
    return get_item(object, index, runtime_.budget);
  }
  const auto& bounds = static_cast<const SliceExpr&>(*node.index);
  const Value start = bounds.start ? eval(*bounds.start) : Value();
  const Value stop = bounds.stop ? eval(*bounds.stop) : Value();
  const Value step = bounds.step ? eval(*bounds.step) : Value();
  offset_ = node.offset;
  return slice(object, start, stop, step, runtime_.budget);
}

Arguments Interpreter::eval_arguments(const CallArguments& node) {
  Arguments arguments;
  for (const ExprPtr& argument : node.positional)
    arguments.positional.push_back(eval(*argument));
  for (const auto& [name, argument] : node.keywords) {
    arguments.keywords.emplace_back(name, eval(*argument));
  }
  if (node.more_positional) {
    for (Value& argument : iterate(eval(*node.more_positional), runtime_.budget)) {
      arguments.positional.push_back(std::move(argument));
    }
  }
  if (node.more_keywords) {
    const Value more = eval(*node.more_keywords);
    offset_ = node.more_keywords->offset;
    if (!more.is(Object::Type::kDict)) fail_type("argument after ** must be a mapping");
    for (const auto& [key, argument] : static_cast<const Dict*>(more.as_object())->entries()) {
      if (!key.is_string()) fail_type("keywords must be strings");
      for (const auto& keyword : arguments.keywords) {
        if (keyword.first == key.as_string()) {
          fail_type("got multiple values for keyword argument '" + keyword.first + "'");
        }
      }
      runtime_.budget.charge_steps(arguments.keywords.size());
      arguments.keywords.emplace_back(key.as_string(), argument);
    }
  }
  return arguments;
}

/// Functions may look at every byte of the strings they get.
void Interpreter::charge_call(const Value& value, const Arguments& arguments) {
  const auto charge = [&](const Value& text) {
    if (text.is_string()) runtime_.budget.charge_steps(text.as_string().size() / 64);
  };
  charge(value);
  for (const Value& argument : arguments.positional)
    charge(argument);
  for (const auto& keyword : arguments.keywords)
    charge(keyword.second);
}

Value Interpreter::eval_call(const CallExpr& node, const Value* caller) {
  Value self;
  Value callee;
  const std::string* method = nullptr;
  // A method is called directly, without an object for "the method of this value".
  if (node.callee->kind == ExprKind::kAttribute) {
    const auto& attribute = static_cast<const AttributeExpr&>(*node.callee);
    self = eval(*attribute.object);
    offset_ = attribute.offset;
    if (has_method(self, attribute.name)) {
      method = &attribute.name;
    } else {
      callee = get_attribute(self, attribute.name, runtime_.budget);
    }
  } else {
    callee = eval(*node.callee);
  }
  Arguments arguments = eval_arguments(node.arguments);
  if (caller) arguments.keywords.emplace_back("caller", *caller);
  offset_ = node.offset;
  charge_call(self, arguments);
  return method ? call_method(runtime_, self, *method, arguments)
                : call_value(runtime_, callee, arguments);
}

Value Interpreter::eval_filter(const FilterExpr& node) {
  const Value input = node.input ? eval(*node.input) : block_texts_.back();
  const Arguments arguments = eval_arguments(node.arguments);
  offset_ = node.offset;
  if (!node.body) throw JinjaError(ErrorKind::kSyntax, "no filter named '" + node.name + "'");
  charge_call(input, arguments);
  return node.body(runtime_, input, arguments);
}

Value Interpreter::eval_test(const TestExpr& node) {
  const Value input = eval(*node.input);
  const Arguments arguments = eval_arguments(node.arguments);
  offset_ = node.offset;
  if (!node.body) throw JinjaError(ErrorKind::kSyntax, "no test named '" + node.name + "'");
  charge_call(input, arguments);
  return Value::boolean(node.body(runtime_, input, arguments));
}

// --- output ---

}  // namespace dsctl::templates::jinja
