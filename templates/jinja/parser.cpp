#include "templates/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <unordered_map>

#include "templates/jinja/lexer.h"

namespace dsctl::templates::jinja {
namespace {

using Words = std::initializer_list<std::string_view>;

std::string describe(const Token& token) {
  switch (token.type) {
    case TokenType::kText:
      return "template text";
    case TokenType::kVariableBegin:
      return "'{{'";
    case TokenType::kVariableEnd:
      return "end of print statement";
    case TokenType::kBlockBegin:
      return "'{%'";
    case TokenType::kBlockEnd:
      return "end of statement block";
    case TokenType::kEnd:
      return "end of template";
    case TokenType::kString:
      return "a string";
    case TokenType::kName:
    case TokenType::kInt:
    case TokenType::kFloat:
    case TokenType::kOperator:
      return "'" + token.text + "'";
  }
  return "";
}

class Parser {
 public:
  explicit Parser(TemplateTree& tree) : tree_(tree), tokens_(tokenize(tree.source)) {
    for (const char* name : {"loop", "caller", "varargs", "kwargs"})
      intern(name);
  }

  void run() {
    tree_.body = parse_body({});
    if (current().type != TokenType::kEnd) fail("unexpected " + describe(current()));
  }

 private:
  // --- tokens ---

  const Token& current() const { return tokens_[pos_]; }
  const Token& look() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = tokens_[pos_];
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return token;
  }

  bool is_name(std::string_view name) const {
    return current().type == TokenType::kName && current().text == name;
  }
  bool is_name(Words names) const {
    return current().type == TokenType::kName &&
           std::find(names.begin(), names.end(), current().text) != names.end();
  }
  bool is_op(std::string_view op) const { return is_op(current(), op); }
  static bool is_op(const Token& token, std::string_view op) {
    return token.type == TokenType::kOperator && token.text == op;
  }

  bool skip_name(std::string_view name) {
    if (!is_name(name)) return false;
    next();
    return true;
  }
  bool skip_op(std::string_view op) {
    if (!is_op(op)) return false;
    next();
    return true;
  }

  [[noreturn]] void fail(const std::string& message) const { fail_at(current().offset, message); }
  [[noreturn]] static void fail_at(size_t offset, const std::string& message) {
    throw SyntaxError{offset, message};
  }

  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail("expected '" + std::string(op) + "', got " + describe(current()));
  }
  std::string expect_name() {
    if (current().type != TokenType::kName) fail("expected a name, got " + describe(current()));
    return next().text;
  }
  void expect_type(TokenType type, std::string_view what) {
    if (current().type != type) {
      fail("expected " + std::string(what) + ", got " + describe(current()));
    }
    next();
  }

  // --- names and limits ---

  NameId intern(const std::string& name) {
    const auto [found, added] = ids_.emplace(name, static_cast<NameId>(tree_.names.size()));
    if (added) tree_.names.push_back(name);
    return found->second;
  }

  /// One level of recursion of this parser.
  class Nested {
   public:
    explicit Nested(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxParseDepth) parser_.fail("the template is nested too deeply");
    }
    ~Nested() { --parser_.depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    Parser& parser_;
  };

  /// Hangs a child into a node and keeps count of the depth.
  ExprPtr under(Expr& parent, ExprPtr child) const {
    if (!child) return child;
    parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > kMaxTreeDepth) fail_at(parent.offset, "the expression is too long");
    return child;
  }

  // --- statements ---

  /// Statements up to a block tag whose name is one of `ends`, which is left as the current token.
  Body parse_body(Words ends) {
    const Nested nested(*this);
    Body body;
    while (true) {
      const Token& token = current();
      switch (token.type) {
        case TokenType::kText:
          tree_.literals.push_back(token.text);
          body.push_back(std::make_unique<TextStatement>(token.offset, token.text));
          next();
          break;
        case TokenType::kVariableBegin: {
          next();
          auto output = std::make_unique<OutputStatement>(token.offset);
          output->values.push_back(parse_tuple({}));
          expect_type(TokenType::kVariableEnd, "end of print statement");
          body.push_back(std::move(output));
          break;
        }
        case TokenType::kBlockBegin:
          next();
          if (is_name(ends)) return body;
          body.push_back(parse_statement());
          expect_type(TokenType::kBlockEnd, "end of statement block");
          break;
        default:
          if (ends.size() > 0) fail_unclosed(ends);
          return body;
      }
    }
  }

  [[noreturn]] void fail_unclosed(Words ends) const {
    std::string wanted;
    for (const std::string_view end : ends) {
      wanted += (wanted.empty() ? "'" : " or '") + std::string(end) + "'";
    }
    fail("unexpected end of template, expected " + wanted + " for the block '" +
         open_tags_.back().first + "' of " + place(open_tags_.back().second));
  }

  std::string place(size_t offset) const {
    const std::string prefix = position_prefix(tree_.source, offset);
    return prefix.substr(0, prefix.size() - 2);
  }

  /// The end of the tag that opens a block, and its body. The end tag's name is current after.
  Body parse_block(Words ends) {
    skip_op(":");
    expect_type(TokenType::kBlockEnd, "end of statement block");
    return parse_body(ends);
  }

  StatementPtr parse_statement() {
    if (current().type != TokenType::kName) fail("tag name expected");
    const uint32_t at = current().offset;
    const std::string tag = current().text;
    next();
    open_tags_.emplace_back(tag, at);
    StatementPtr statement = parse_tag(tag, at);
    open_tags_.pop_back();
    return statement;
  }

  StatementPtr parse_tag(const std::string& tag, uint32_t at) {
    if (tag == "if") return parse_if(at);
    if (tag == "for") return parse_for(at);
    if (tag == "set") return parse_set(at);
    if (tag == "macro") return parse_macro(at);
    if (tag == "call") return parse_call_block(at);
    if (tag == "filter") return parse_filter_block(at);
    if (tag == "with") return parse_with(at);
    if (tag == "print") return parse_print(at);
    if (tag == "generation") return parse_generation(at);
    if (tag == "break" || tag == "continue") {
      if (loop_depth_ == 0) fail_at(at, "'" + tag + "' outside loop");
      if (tag == "break") return std::make_unique<BreakStatement>(at);
      return std::make_unique<ContinueStatement>(at);
    }
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends" ||
        tag == "block") {
      fail_at(at, "'" + tag + "' is not available in chat templates");
    }
    std::string message = "encountered unknown tag '" + tag + "'";
    if (open_tags_.size() > 1) {
      const auto& [open, open_at] = open_tags_[open_tags_.size() - 2];
      message += "; the innermost open block is '" + open + "' of " + place(open_at);
    }
    fail_at(at, message);
  }

  StatementPtr parse_if(uint32_t at) {
    auto node = std::make_unique<IfStatement>(at);
    // Inside a branch an unknown filter only fails when it is reached.
    while (true) {
      ExprPtr condition = parse_tuple({.conditional = false});
      Body body = parse_soft_block({"elif", "else", "endif"});
      node->branches.emplace_back(std::move(condition), std::move(body));
      if (skip_name("elif")) continue;
      if (skip_name("else")) node->otherwise = parse_soft_block({"endif"});
      skip_name("endif");
      return node;
    }
  }

  Body parse_soft_block(Words ends) {
    const bool before = soft_;
    soft_ = true;
    Body body = parse_block(ends);
    soft_ = before;
    return body;
  }

  /// A block with a scope of its own, where unknown filters fail at once.
  Body parse_scoped_block(Words ends) {
    const bool before = soft_;
    soft_ = false;
    Body body = parse_block(ends);
    soft_ = before;
    return body;
  }

  StatementPtr parse_for(uint32_t at) {
    auto node = std::make_unique<ForStatement>(at);
    node->target = parse_target({.end = "in"});
    if (!skip_name("in")) fail("expected 'in', got " + describe(current()));
    node->iterable = parse_tuple({.conditional = false, .end = "recursive"});
    if (skip_name("if")) node->condition = parse_expression();
    node->recursive = skip_name("recursive");
    loops_.push_back(node.get());
    ++loop_depth_;
    node->body = parse_scoped_block({"endfor", "else"});
    --loop_depth_;
    loops_.pop_back();
    if (skip_name("else")) node->otherwise = parse_scoped_block({"endfor"});
    skip_name("endfor");
    return node;
  }

  StatementPtr parse_set(uint32_t at) {
    ExprPtr target = parse_target({.namespaces = true});
    if (skip_op("=")) {
      auto node = std::make_unique<SetStatement>(at);
      node->target = std::move(target);
      node->value = parse_tuple({});
      return node;
    }
    auto node = std::make_unique<SetBlockStatement>(at);
    node->target = std::move(target);
    node->filter = parse_filters(nullptr, false);
    node->body = parse_scoped_block({"endset"});
    next();
    return node;
  }

  void parse_signature(Callable& callable) {
    expect_op("(");
    while (!is_op(")")) {
      if (!callable.parameters.empty()) expect_op(",");
      const Token& token = current();
      const std::string name = expect_name();
      check_assignable(name, token.offset);
      const NameId id = intern(name);
      if (std::find(callable.parameters.begin(), callable.parameters.end(), id) !=
          callable.parameters.end()) {
        fail_at(token.offset, "duplicate argument '" + name + "'");
      }
      callable.parameters.push_back(id);
      callable.parameter_names.push_back(name);
      if (skip_op("=")) {
        callable.defaults.push_back(parse_expression());
      } else if (!callable.defaults.empty()) {
        fail("non-default argument follows default argument");
      }
    }
    expect_op(")");
  }

  /// The body of a macro or call block: loops outside can't be left from here.
  void parse_callable_body(Callable& callable, std::string_view end) {
    const int outer_loops = loop_depth_;
    loop_depth_ = 0;
    callables_.push_back(&callable);
    callable.body = parse_scoped_block({end});
    callables_.pop_back();
    loop_depth_ = outer_loops;
    next();
  }

  StatementPtr parse_macro(uint32_t at) {
    auto node = std::make_unique<MacroStatement>(at);
    const uint32_t name_at = current().offset;
    node->macro.name = expect_name();
    check_assignable(node->macro.name, name_at);
    node->id = intern(node->macro.name);
    parse_signature(node->macro);
    parse_callable_body(node->macro, "endmacro");
    return node;
  }

  StatementPtr parse_call_block(uint32_t at) {
    auto node = std::make_unique<CallBlockStatement>(at);
    node->caller.name = "caller";
    if (is_op("(")) parse_signature(node->caller);
    node->call = parse_expression();
    if (node->call->kind != ExprKind::kCall) fail_at(at, "expected call");
    parse_callable_body(node->caller, "endcall");
    return node;
  }

  StatementPtr parse_filter_block(uint32_t at) {
    auto node = std::make_unique<FilterBlockStatement>(at);
    node->filter = parse_filters(nullptr, true);
    node->body = parse_scoped_block({"endfilter"});
    next();
    return node;
  }

  StatementPtr parse_with(uint32_t at) {
    auto node = std::make_unique<WithStatement>(at);
    while (current().type != TokenType::kBlockEnd) {
      if (!node->assignments.empty()) expect_op(",");
      ExprPtr target = parse_target({});
      expect_op("=");
      node->assignments.emplace_back(std::move(target), parse_expression());
    }
    node->body = parse_scoped_block({"endwith"});
    next();
    return node;
  }

  StatementPtr parse_print(uint32_t at) {
    auto node = std::make_unique<OutputStatement>(at);
    while (current().type != TokenType::kBlockEnd) {
      if (!node->values.empty()) expect_op(",");
      node->values.push_back(parse_expression());
    }
    return node;
  }

  StatementPtr parse_generation(uint32_t at) {
    auto node = std::make_unique<ScopeStatement>(at);
    node->body = parse_scoped_block({"endgeneration"});
    next();
    return node;
  }

  // --- targets of assignments ---

  struct TargetRules {
    bool namespaces = false;
    std::string_view end = {};
  };

  void check_assignable(const std::string& name, size_t at) const {
    for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
      if (name == constant) fail_at(at, "can't assign to '" + name + "'");
    }
  }

  ExprPtr parse_target(const TargetRules& rules) {
    ExprPtr target = parse_target_tuple(rules, false);
    return target;
  }

  ExprPtr parse_target_tuple(const TargetRules& rules, bool in_brackets) {
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

  ExprPtr parse_target_item(const TargetRules& rules) {
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

  // --- expressions, loosest first ---

  struct TupleRules {
    bool conditional = true;
    std::string_view end = {};
    bool in_brackets = false;
  };

  ExprPtr parse_tuple(const TupleRules& rules) {
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

  ExprPtr parse_expression() {
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

  ExprPtr parse_unconditional() {
    const Nested nested(*this);
    return parse_or();
  }

  ExprPtr parse_or() {
    ExprPtr left = parse_and();
    while (is_name("or")) {
      auto node = std::make_unique<LogicExpr>(ExprKind::kOr, next().offset);
      node->left = under(*node, std::move(left));
      node->right = under(*node, parse_and());
      left = std::move(node);
    }
    return left;
  }

  ExprPtr parse_and() {
    ExprPtr left = parse_not();
    while (is_name("and")) {
      auto node = std::make_unique<LogicExpr>(ExprKind::kAnd, next().offset);
      node->left = under(*node, std::move(left));
      node->right = under(*node, parse_not());
      left = std::move(node);
    }
    return left;
  }

  ExprPtr parse_not() {
    if (!is_name("not")) return parse_compare();
    const Nested nested(*this);
    auto node = std::make_unique<UnaryExpr>(ExprKind::kNot, next().offset);
    node->operand = under(*node, parse_not());
    return node;
  }

  bool take_comparison(CompareOp& op) {
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

  ExprPtr parse_compare() {
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

  ExprPtr parse_sum() {
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

  ExprPtr parse_concat() {
    const uint32_t at = current().offset;
    ExprPtr first = parse_product();
    if (!is_op("~")) return first;
    auto node = std::make_unique<ItemsExpr>(ExprKind::kConcat, at);
    node->items.push_back(under(*node, std::move(first)));
    while (skip_op("~"))
      node->items.push_back(under(*node, parse_product()));
    return node;
  }

  bool take_product(Arithmetic& op, uint32_t& at) {
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

  ExprPtr parse_product() {
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

  ExprPtr parse_power() {
    ExprPtr left = parse_unary(true);
    while (is_op("**")) {
      auto node = std::make_unique<ArithmeticExpr>(next().offset, Arithmetic::kPower);
      node->left = under(*node, std::move(left));
      node->right = under(*node, parse_unary(true));
      left = std::move(node);
    }
    return left;
  }

  ExprPtr parse_unary(bool with_filters) {
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

  /// Remembers what a macro or loop around this name must provide.
  void note_name(const std::string& name) {
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

  ExprPtr parse_primary() {
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

  ExprPtr parse_list() {
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

  ExprPtr parse_dict() {
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

  ExprPtr parse_postfix(ExprPtr value) {
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

  ExprPtr parse_point(ExprPtr value) {
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

  ExprPtr parse_subscript(ExprPtr value) {
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

  ExprPtr parse_index() {
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

  ExprPtr parse_call(ExprPtr callee) {
    auto node = std::make_unique<CallExpr>(current().offset);
    node->callee = under(*node, std::move(callee));
    parse_arguments(*node, node->arguments);
    return node;
  }

  void parse_arguments(Expr& parent, CallArguments& arguments) {
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
        ensure(!arguments.more_positional && !arguments.more_keywords &&
               arguments.keywords.empty());
        arguments.positional.push_back(under(parent, parse_expression()));
      }
    }
    expect_op(")");
  }

  /// Filters, tests and calls after a complete operand.
  ExprPtr parse_suffixes(ExprPtr value) {
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

  std::string parse_dotted_name() {
    std::string name = expect_name();
    while (skip_op("."))
      name += "." + expect_name();
    return name;
  }

  /// |a|b(1): null input for filter blocks. Null when there is no filter.
  ExprPtr parse_filters(ExprPtr value, bool starts_with_name) {
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

  ExprPtr parse_test(ExprPtr value) {
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

  bool starts_operand() const {
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

  TemplateTree& tree_;
  const std::vector<Token> tokens_;
  size_t pos_ = 0;
  int depth_ = 0;
  int loop_depth_ = 0;
  bool soft_ = false;
  std::unordered_map<std::string, NameId> ids_;
  std::vector<std::pair<std::string, size_t>> open_tags_;
  std::vector<ForStatement*> loops_;
  std::vector<Callable*> callables_;
};

}  // namespace

TemplateTree parse_template(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    throw JinjaError(ErrorKind::kLimit, "template:1:1: the template is larger than " +
                                            std::to_string(kMaxSourceBytes) + " bytes");
  }
  TemplateTree tree;
  tree.source = normalise_source(source);
  try {
    Parser(tree).run();
  } catch (const SyntaxError& error) {
    throw JinjaError(ErrorKind::kSyntax,
                     position_prefix(tree.source, error.offset) + error.message);
  }
  return tree;
}

}  // namespace dsctl::templates::jinja
