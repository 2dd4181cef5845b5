#include "templates/jinja/expression_parser.h"

#include <algorithm>

namespace dsctl::templates::jinja {

NameId ExpressionParser::intern(const std::string& name) {
  const auto [found, added] = ids_.emplace(name, static_cast<NameId>(tree_.names.size()));
  if (added) tree_.names.push_back(name);
  return found->second;
}

ExprPtr ExpressionParser::under(Expr& parent, ExprPtr child) const {
  if (!child) return child;
  parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > kMaxTreeDepth) fail_at(parent.offset, "the expression is too long");
  return child;
}

void ExpressionParser::check_assignable(const std::string& name, size_t at) const {
  for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) fail_at(at, "can't assign to '" + name + "'");
  }
}

ExprPtr ExpressionParser::parse_target(const TargetRules& rules) {
  ExprPtr target = parse_target_tuple(rules, false);
  return target;
}

ExprPtr ExpressionParser::parse_target_tuple(const TargetRules& rules, bool in_brackets) {
  const Nested nested(*this);
  const uint32_t at = current().offset;
  auto tuple = std::make_unique<ItemsExpr>(ExprKind::kTuple, at);
  bool is_tuple = false;
  while (true) {
    if (!tuple->items.empty()) expect_op(",");
    const bool end = current().type == TokenType::kBlockEnd || is_op(")") || is_op("=") ||
                     (!rules.end.empty() && is_name(rules.end));
    if (end) break;
    tuple->items.push_back(under(*tuple, parse_target_item(rules)));
    if (!is_op(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return tuple;
  if (tuple->items.size() == 1) return std::move(tuple->items[0]);
  if (in_brackets) return tuple;
  fail("expected a name to assign to, got " + describe(current()));
}

ExprPtr ExpressionParser::parse_target_item(const TargetRules& rules) {
  if (skip_op("(")) {
    ExprPtr inner = parse_target_tuple({.namespaces = rules.namespaces}, true);
    expect_op(")");
    return inner;
  }
  const uint32_t at = current().offset;
  if (current().type != TokenType::kName) {
    fail("can't assign to " + describe(current()));
  }
  const std::string name = next().text;
  if (rules.namespaces && skip_op(".")) {
    note_name(name);
    return std::make_unique<NamespaceRefExpr>(at, intern(name), expect_name());
  }
  check_assignable(name, at);
  return std::make_unique<NameExpr>(at, intern(name));
}

ExprPtr ExpressionParser::parse_tuple(const TupleRules& rules) {
  const uint32_t at = current().offset;
  auto tuple = std::make_unique<ItemsExpr>(ExprKind::kTuple, at);
  bool is_tuple = false;
  while (true) {
    if (!tuple->items.empty()) expect_op(",");
    const bool end = current().type == TokenType::kVariableEnd ||
                     current().type == TokenType::kBlockEnd || is_op(")") ||
                     (!rules.end.empty() && is_name(rules.end));
    if (end) break;
    tuple->items.push_back(
        under(*tuple, rules.conditional ? parse_expression() : parse_unconditional()));
    if (!is_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && tuple->items.size() == 1) return std::move(tuple->items[0]);
  if (!is_tuple && !rules.in_brackets) {
    fail("expected an expression, got " + describe(current()));
  }
  return tuple;
}

ExprPtr ExpressionParser::parse_expression() {
  const Nested nested(*this);
  const uint32_t at = current().offset;
  const bool before = soft_;
  ExprPtr value = parse_or();
  while (skip_name("if")) {
    auto node = std::make_unique<ConditionalExpr>(at);
    soft_ = true;
    node->condition = under(*node, parse_or());
    node->then = under(*node, std::move(value));
    if (skip_name("else")) node->otherwise = under(*node, parse_expression());
    value = std::move(node);
  }
  soft_ = before;
  return value;
}

ExprPtr ExpressionParser::parse_unconditional() {
  const Nested nested(*this);
  return parse_or();
}

ExprPtr ExpressionParser::parse_or() {
  ExprPtr left = parse_and();
  while (is_name("or")) {
    auto node = std::make_unique<LogicExpr>(ExprKind::kOr, next().offset);
    node->left = under(*node, std::move(left));
    node->right = under(*node, parse_and());
    left = std::move(node);
  }
  return left;
}

ExprPtr ExpressionParser::parse_and() {
  ExprPtr left = parse_not();
  while (is_name("and")) {
    auto node = std::make_unique<LogicExpr>(ExprKind::kAnd, next().offset);
    node->left = under(*node, std::move(left));
    node->right = under(*node, parse_not());
    left = std::move(node);
  }
  return left;
}

ExprPtr ExpressionParser::parse_not() {
  if (!is_name("not")) return parse_compare();
  const Nested nested(*this);
  auto node = std::make_unique<UnaryExpr>(ExprKind::kNot, next().offset);
  node->operand = under(*node, parse_not());
  return node;
}

bool ExpressionParser::take_comparison(CompareOp& op) {
  constexpr std::pair<std::string_view, CompareOp> kOps[] = {
      {"==", CompareOp::kEqual},  {"!=", CompareOp::kNotEqual},
      {"<", CompareOp::kLess},    {"<=", CompareOp::kLessEqual},
      {">", CompareOp::kGreater}, {">=", CompareOp::kGreaterEqual}};
  for (const auto& [symbol, found] : kOps) {
    if (!skip_op(symbol)) continue;
    op = found;
    return true;
  }
  if (skip_name("in")) {
    op = CompareOp::kIn;
    return true;
  }
  if (is_name("not") && look().type == TokenType::kName && look().text == "in") {
    next();
    next();
    op = CompareOp::kNotIn;
    return true;
  }
  return false;
}

ExprPtr ExpressionParser::parse_compare() {
  const uint32_t at = current().offset;
  ExprPtr first = parse_sum();
  CompareOp op = CompareOp::kEqual;
  uint32_t op_at = current().offset;
  if (!take_comparison(op)) return first;
  auto node = std::make_unique<CompareExpr>(at == op_at ? at : op_at);
  node->first = under(*node, std::move(first));
  do {
    node->rest.emplace_back(op, under(*node, parse_sum()));
  } while (take_comparison(op));
  return node;
}

ExprPtr ExpressionParser::parse_sum() {
  ExprPtr left = parse_concat();
  while (is_op("+") || is_op("-")) {
    const Token& op = next();
    auto node = std::make_unique<ArithmeticExpr>(
        op.offset, op.text == "+" ? Arithmetic::kAdd : Arithmetic::kSubtract);
    node->left = under(*node, std::move(left));
    node->right = under(*node, parse_concat());
    left = std::move(node);
  }
  return left;
}

ExprPtr ExpressionParser::parse_concat() {
  const uint32_t at = current().offset;
  ExprPtr first = parse_product();
  if (!is_op("~")) return first;
  auto node = std::make_unique<ItemsExpr>(ExprKind::kConcat, at);
  node->items.push_back(under(*node, std::move(first)));
  while (skip_op("~"))
    node->items.push_back(under(*node, parse_product()));
  return node;
}

bool ExpressionParser::take_product(Arithmetic& op, uint32_t& at) {
  constexpr std::pair<std::string_view, Arithmetic> kOps[] = {{"*", Arithmetic::kMultiply},
                                                              {"/", Arithmetic::kDivide},
                                                              {"//", Arithmetic::kFloorDivide},
                                                              {"%", Arithmetic::kModulo}};
  for (const auto& [symbol, found] : kOps) {
    if (!is_op(symbol)) continue;
    at = next().offset;
    op = found;
    return true;
  }
  return false;
}

ExprPtr ExpressionParser::parse_product() {
  ExprPtr left = parse_power();
  Arithmetic op = Arithmetic::kMultiply;
  uint32_t at = 0;
  while (take_product(op, at)) {
    auto node = std::make_unique<ArithmeticExpr>(at, op);
    node->left = under(*node, std::move(left));
    node->right = under(*node, parse_power());
    left = std::move(node);
  }
  return left;
}

ExprPtr ExpressionParser::parse_power() {
  ExprPtr left = parse_unary(true);
  while (is_op("**")) {
    auto node = std::make_unique<ArithmeticExpr>(next().offset, Arithmetic::kPower);
    node->left = under(*node, std::move(left));
    node->right = under(*node, parse_unary(true));
    left = std::move(node);
  }
  return left;
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  ExprPtr value;
  if (is_op("-") || is_op("+")) {
    const Nested nested(*this);
    const Token& op = next();
    auto node = std::make_unique<UnaryExpr>(
        op.text == "-" ? ExprKind::kNegate : ExprKind::kPositive, op.offset);
    node->operand = under(*node, parse_unary(false));
    value = std::move(node);
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  return with_filters ? parse_suffixes(std::move(value)) : std::move(value);
}

void ExpressionParser::note_name(const std::string& name) {
  if (name == "loop") {
    for (ForStatement* loop : loops_)
      loop->uses_loop = true;
  }
  for (Callable* callable : callables_) {
    callable->uses_caller |= name == "caller";
    callable->uses_varargs |= name == "varargs";
    callable->uses_kwargs |= name == "kwargs";
  }
}

ExprPtr ExpressionParser::parse_primary() {
  const Token& token = current();
  switch (token.type) {
    case TokenType::kName:
      next();
      if (token.text == "true" || token.text == "True") {
        return std::make_unique<ConstantExpr>(token.offset, Value::boolean(true));
      }
      if (token.text == "false" || token.text == "False") {
        return std::make_unique<ConstantExpr>(token.offset, Value::boolean(false));
      }
      if (token.text == "none" || token.text == "None") {
        return std::make_unique<ConstantExpr>(token.offset, Value());
      }
      note_name(token.text);
      return std::make_unique<NameExpr>(token.offset, intern(token.text));
    case TokenType::kString: {
      std::string text;
      while (current().type == TokenType::kString)
        text += next().text;
      tree_.literals.push_back(text);
      return std::make_unique<ConstantExpr>(token.offset, Value::string(std::move(text)));
    }
    case TokenType::kInt:
      next();
      return std::make_unique<ConstantExpr>(token.offset, Value::integer(token.integer));
    case TokenType::kFloat:
      next();
      return std::make_unique<ConstantExpr>(token.offset, Value::real(token.real));
    case TokenType::kOperator:
      if (skip_op("(")) {
        const Nested nested(*this);
        ExprPtr inner = parse_tuple({.in_brackets = true});
        expect_op(")");
        return inner;
      }
      if (is_op("[")) return parse_list();
      if (is_op("{")) return parse_dict();
      break;
    default:
      break;
  }
  fail("unexpected " + describe(token));
}

ExprPtr ExpressionParser::parse_list() {
  const Nested nested(*this);
  auto list = std::make_unique<ItemsExpr>(ExprKind::kList, next().offset);
  while (!is_op("]")) {
    if (!list->items.empty()) expect_op(",");
    if (is_op("]")) break;
    list->items.push_back(under(*list, parse_expression()));
  }
  expect_op("]");
  return list;
}

ExprPtr ExpressionParser::parse_dict() {
  const Nested nested(*this);
  auto dict = std::make_unique<DictExpr>(next().offset);
  while (!is_op("}")) {
    if (!dict->entries.empty()) expect_op(",");
    if (is_op("}")) break;
    ExprPtr key = under(*dict, parse_expression());
    expect_op(":");
    dict->entries.emplace_back(std::move(key), under(*dict, parse_expression()));
  }
  expect_op("}");
  return dict;
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr value) {
  while (true) {
    if (is_op(".")) {
      value = parse_point(std::move(value));
    } else if (is_op("[")) {
      value = parse_subscript(std::move(value));
    } else if (is_op("(")) {
      value = parse_call(std::move(value));
    } else {
      return value;
    }
  }
}

ExprPtr ExpressionParser::parse_point(ExprPtr value) {
  const uint32_t at = next().offset;
  if (current().type == TokenType::kName) {
    auto node = std::make_unique<AttributeExpr>(at);
    node->object = under(*node, std::move(value));
    node->name = next().text;
    return node;
  }
  if (current().type != TokenType::kInt) {
    fail("expected name or number, got " + describe(current()));
  }
  auto node = std::make_unique<ItemExpr>(at);
  node->object = under(*node, std::move(value));
  node->index = under(*node, std::make_unique<ConstantExpr>(at, Value::integer(next().integer)));
  return node;
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr value) {
  const Nested nested(*this);
  auto node = std::make_unique<ItemExpr>(next().offset);
  node->object = under(*node, std::move(value));
  auto tuple = std::make_unique<ItemsExpr>(ExprKind::kTuple, node->offset);
  while (!is_op("]")) {
    if (!tuple->items.empty()) expect_op(",");
    tuple->items.push_back(under(*tuple, parse_index()));
  }
  expect_op("]");
  node->index = under(
      *node, tuple->items.size() == 1 ? std::move(tuple->items[0]) : ExprPtr(std::move(tuple)));
  return node;
}

ExprPtr ExpressionParser::parse_index() {
  const uint32_t at = current().offset;
  ExprPtr start;
  if (!is_op(":")) {
    start = parse_expression();
    if (!is_op(":")) return start;
  }
  expect_op(":");
  auto slice = std::make_unique<SliceExpr>(at);
  slice->start = under(*slice, std::move(start));
  const auto ends = [&] { return is_op("]") || is_op(","); };
  if (!is_op(":") && !ends()) slice->stop = under(*slice, parse_expression());
  if (skip_op(":") && !ends()) slice->step = under(*slice, parse_expression());
  return slice;
}

ExprPtr ExpressionParser::parse_call(ExprPtr callee) {
  auto node = std::make_unique<CallExpr>(current().offset);
  node->callee = under(*node, std::move(callee));
  parse_arguments(*node, node->arguments);
  return node;
}

void ExpressionParser::parse_arguments(Expr& parent, CallArguments& arguments) {
  const Nested nested(*this);
  const uint32_t at = current().offset;
  expect_op("(");
  const auto ensure = [&](bool allowed) {
    if (!allowed) fail_at(at, "invalid syntax for function call expression");
  };
  bool first = true;
  while (!is_op(")")) {
    if (!first) expect_op(",");
    if (!first && is_op(")")) break;
    first = false;
    if (skip_op("*")) {
      ensure(!arguments.more_positional && !arguments.more_keywords);
      arguments.more_positional = under(parent, parse_expression());
    } else if (skip_op("**")) {
      ensure(!arguments.more_keywords);
      arguments.more_keywords = under(parent, parse_expression());
    } else if (current().type == TokenType::kName && is_op(look(), "=")) {
      ensure(!arguments.more_keywords);
      const std::string name = next().text;
      next();
      for (const auto& keyword : arguments.keywords) {
        if (keyword.first == name) fail_at(at, "keyword argument repeated: " + name);
      }
      arguments.keywords.emplace_back(name, under(parent, parse_expression()));
    } else {
      ensure(!arguments.more_positional && !arguments.more_keywords && arguments.keywords.empty());
      arguments.positional.push_back(under(parent, parse_expression()));
    }
  }
  expect_op(")");
}

ExprPtr ExpressionParser::parse_suffixes(ExprPtr value) {
  while (true) {
    if (is_op("|")) {
      value = parse_filters(std::move(value), false);
    } else if (is_name("is")) {
      value = parse_test(std::move(value));
    } else if (is_op("(")) {
      value = parse_call(std::move(value));
    } else {
      return value;
    }
  }
}

std::string ExpressionParser::parse_dotted_name() {
  std::string name = expect_name();
  while (skip_op("."))
    name += "." + expect_name();
  return name;
}

ExprPtr ExpressionParser::parse_filters(ExprPtr value, bool starts_with_name) {
  while (is_op("|") || starts_with_name) {
    if (!starts_with_name) next();
    starts_with_name = false;
    auto node = std::make_unique<FilterExpr>(current().offset);
    node->name = parse_dotted_name();
    node->body = find_filter(node->name);
    if (!node->body && !soft_) {
      fail_at(node->offset, "no filter named '" + node->name + "'");
    }
    if (is_op("(")) parse_arguments(*node, node->arguments);
    node->input = under(*node, std::move(value));
    value = std::move(node);
  }
  return value;
}

ExprPtr ExpressionParser::parse_test(ExprPtr value) {
  next();
  const uint32_t at = current().offset;
  const bool negated = skip_name("not");
  auto node = std::make_unique<TestExpr>(current().offset);
  node->name = parse_dotted_name();
  node->body = find_test(node->name);
  if (!node->body && !soft_) fail_at(node->offset, "no test named '" + node->name + "'");
  node->input = under(*node, std::move(value));
  if (is_op("(")) {
    parse_arguments(*node, node->arguments);
  } else if (starts_operand() && !is_name({"else", "or", "and"})) {
    if (is_name("is")) fail("you cannot chain multiple tests with is");
    const Nested nested(*this);
    node->arguments.positional.push_back(under(*node, parse_postfix(parse_primary())));
  }
  if (!negated) return node;
  auto negation = std::make_unique<UnaryExpr>(ExprKind::kNot, at);
  negation->operand = under(*negation, std::move(node));
  return negation;
}

bool ExpressionParser::starts_operand() const {
  switch (current().type) {
    case TokenType::kName:
    case TokenType::kString:
    case TokenType::kInt:
    case TokenType::kFloat:
      return true;
    case TokenType::kOperator:
      return is_op("[") || is_op("{");
    default:
      return false;
  }
}

}  // namespace dsctl::templates::jinja
