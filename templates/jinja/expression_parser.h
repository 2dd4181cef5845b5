/// Expressions of the Jinja language and the targets of assignments, as recursive descent.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "templates/jinja/ast.h"
#include "templates/jinja/parser.h"
#include "templates/jinja/token_cursor.h"

namespace dsctl::templates::jinja {

class ExpressionParser : protected TokenCursor {
 protected:
  explicit ExpressionParser(TemplateTree& tree) : TokenCursor(tree.source), tree_(tree) {}

  NameId intern(const std::string& name);

  /// One level of recursion of this parser.
  class Nested {
   public:
    explicit Nested(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxParseDepth) parser_.fail("the template is nested too deeply");
    }
    ~Nested() { --parser_.depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    ExpressionParser& parser_;
  };

  /// Hangs a child into a node and keeps count of the depth.
  ExprPtr under(Expr& parent, ExprPtr child) const;

  // --- targets of assignments ---

  struct TargetRules {
    bool namespaces = false;
    std::string_view end = {};
  };
  void check_assignable(const std::string& name, size_t at) const;
  ExprPtr parse_target(const TargetRules& rules);
  ExprPtr parse_target_tuple(const TargetRules& rules, bool in_brackets);
  ExprPtr parse_target_item(const TargetRules& rules);

  // --- expressions, loosest first ---

  struct TupleRules {
    bool conditional = true;
    std::string_view end = {};
    bool in_brackets = false;
  };
  ExprPtr parse_tuple(const TupleRules& rules);
  ExprPtr parse_expression();
  ExprPtr parse_unconditional();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  bool take_comparison(CompareOp& op);
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  bool take_product(Arithmetic& op, uint32_t& at);
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters);

  /// Remembers what a macro or loop around this name must provide.
  void note_name(const std::string& name);
  ExprPtr parse_primary();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr value);
  ExprPtr parse_point(ExprPtr value);
  ExprPtr parse_subscript(ExprPtr value);
  ExprPtr parse_index();
  ExprPtr parse_call(ExprPtr callee);
  void parse_arguments(Expr& parent, CallArguments& arguments);
  /// Filters, tests and calls after a complete operand.
  ExprPtr parse_suffixes(ExprPtr value);
  std::string parse_dotted_name();
  /// |a|b(1): null input for filter blocks. Null when there is no filter.
  ExprPtr parse_filters(ExprPtr value, bool starts_with_name);
  ExprPtr parse_test(ExprPtr value);
  bool starts_operand() const;

  TemplateTree& tree_;
  int depth_ = 0;
  bool soft_ = false;
  std::unordered_map<std::string, NameId> ids_;
  std::vector<ForStatement*> loops_;
  std::vector<Callable*> callables_;
};

}  // namespace dsctl::templates::jinja
