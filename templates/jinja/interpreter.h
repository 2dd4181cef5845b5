// Walks the syntax tree of a template and writes its text: one object per render.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "templates/jinja/ast.h"
#include "templates/jinja/template.h"

namespace dsctl::templates::jinja {

class LoopObject;

/// The variables of one block. Blocks inside see those outside, by the place in the source.
struct Scope {
  explicit Scope(const Scope* outer) : parent(outer) {}
  const Scope* const parent;  // outlives this one: it belongs to an enclosing block
  std::vector<std::pair<NameId, Value>> variables;
};

using ScopePtr = std::shared_ptr<Scope>;

class Interpreter {
 public:
  Interpreter(const TemplateTree& tree, const RenderOptions& options);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  /// The whole template's text. Throws JinjaError without position; offset() is where.
  std::string run(const Json& variables);
  size_t offset() const { return offset_; }

  /// For macros, caller bodies and recursive loops, called back from values.
  Value call_macro(const Callable& callable, const std::weak_ptr<Scope>& closure,
                   const Arguments& arguments);
  Value call_loop(const ForStatement& loop, const std::weak_ptr<Scope>& outer,
                  const Value& iterable, Int depth);
  /// The item as the loop's condition lets it through, or nothing. An unpacked item comes back as
  /// a tuple of its parts.
  std::optional<Value> filter_item(const ForStatement& loop, const Scope* outer, const Value& item);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  class Depth;
  class InnerScope;
  class Capture;

  Flow run_body(const Body& body);
  Flow run_statement(const Statement& statement);
  Flow run_if(const IfStatement& node);
  Flow run_for(const ForStatement& node);
  void run_loop(const ForStatement& node, const Value& iterable, const ScopePtr& outer, Int depth);
  Flow run_iteration(const ForStatement& node, const Value& item,
                     const std::shared_ptr<LoopObject>& loop, const Scope* outer);
  Flow run_set_block(const SetBlockStatement& node);
  void run_macro(const MacroStatement& node);
  void run_call_block(const CallBlockStatement& node);
  Flow run_filter_block(const FilterBlockStatement& node);
  Flow run_with(const WithStatement& node);

  Value eval(const Expr& expr);
  Value eval_items(const ItemsExpr& node);
  Value eval_dict(const DictExpr& node);
  Value eval_compare(const CompareExpr& node);
  bool eval_comparison(CompareOp op, const Value& left, const Value& right);
  Value eval_concat(const ItemsExpr& node);
  Value eval_conditional(const ConditionalExpr& node);
  Value eval_item(const ItemExpr& node);
  Value eval_call(const CallExpr& node, const Value* caller = nullptr);
  Value eval_filter(const FilterExpr& node);
  Value eval_test(const TestExpr& node);
  Arguments eval_arguments(const CallArguments& node);
  void charge_call(const Value& value, const Arguments& arguments);

  Value lookup(NameId id) const;
  void assign(const Expr& target, const Value& value);
  Value read_target(const Expr& target);
  void assign_name(NameId id, Value value);
  void assign_attribute(const NamespaceRefExpr& target, const Value& value);
  void bind_parameters(const Callable& callable, const Arguments& arguments);

  void write(std::string_view text);
  void write_value(const Value& value);

  const TemplateTree& tree_;
  Runtime runtime_;
  std::vector<std::optional<Value>> globals_;  // by NameId: the caller's variables and functions
  ScopePtr scope_;
  std::string* out_ = nullptr;
  Values block_texts_;  // what the innermost filter blocks filter
  size_t offset_ = 0;
  int depth_ = 0;
};

}  // namespace dsctl::templates::jinja
