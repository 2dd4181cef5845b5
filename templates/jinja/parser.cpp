#include "templates/jinja/parser.h"

#include "templates/jinja/expression_parser.h"

namespace dsctl::templates::jinja {
namespace {

class Parser : ExpressionParser {
 public:
  explicit Parser(TemplateTree& tree) : ExpressionParser(tree) {
    for (const char* name : {"loop", "caller", "varargs", "kwargs"})
      intern(name);
  }

  void run() {
    tree_.body = parse_body({});
    if (current().type != TokenType::kEnd) fail("unexpected " + describe(current()));
  }

 private:
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

  int loop_depth_ = 0;
  std::vector<std::pair<std::string, size_t>> open_tags_;
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
