// The syntax tree of a Jinja template. Plain data: the parser fills it, the interpreter walks it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "templates/jinja/callable.h"
#include "templates/jinja/operations.h"
#include "templates/jinja/value.h"

namespace dsctl::templates::jinja {

/// Names are numbers: variables are looked up by comparing integers.
using NameId = int;

enum class ExprKind {
  kConstant,
  kName,
  kList,
  kTuple,
  kDict,
  kNot,
  kNegate,
  kPositive,
  kAnd,
  kOr,
  kArithmetic,
  kCompare,
  kConcat,
  kConditional,
  kAttribute,
  kItem,
  kSlice,
  kCall,
  kFilter,
  kTest,
  kNamespaceRef,
};

struct Expr {
  Expr(ExprKind expr_kind, uint32_t source_offset) : kind(expr_kind), offset(source_offset) {}
  virtual ~Expr() = default;
  Expr(const Expr&) = delete;
  Expr& operator=(const Expr&) = delete;

  const ExprKind kind;
  const uint32_t offset;
  int depth = 1;  // of the tree below; bounded by the parser, so that walking it is safe
};

using ExprPtr = std::unique_ptr<Expr>;

struct ConstantExpr : Expr {
  ConstantExpr(uint32_t at, Value constant)
      : Expr(ExprKind::kConstant, at), value(std::move(constant)) {}
  Value value;
};

struct NameExpr : Expr {
  NameExpr(uint32_t at, NameId name_id) : Expr(ExprKind::kName, at), id(name_id) {}
  NameId id;
};

/// `ns.attribute` as the target of an assignment.
struct NamespaceRefExpr : Expr {
  NamespaceRefExpr(uint32_t at, NameId name_id, std::string name)
      : Expr(ExprKind::kNamespaceRef, at), id(name_id), attribute(std::move(name)) {}
  NameId id;
  std::string attribute;
};

/// A list, a tuple, or the parts of a ~ b ~ c.
struct ItemsExpr : Expr {
  using Expr::Expr;
  std::vector<ExprPtr> items;
};

struct DictExpr : Expr {
  explicit DictExpr(uint32_t at) : Expr(ExprKind::kDict, at) {}
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};

/// not, - and +.
struct UnaryExpr : Expr {
  using Expr::Expr;
  ExprPtr operand;
};

/// and, or.
struct LogicExpr : Expr {
  using Expr::Expr;
  ExprPtr left;
  ExprPtr right;
};

struct ArithmeticExpr : Expr {
  ArithmeticExpr(uint32_t at, Arithmetic arithmetic_op)
      : Expr(ExprKind::kArithmetic, at), op(arithmetic_op) {}
  Arithmetic op;
  ExprPtr left;
  ExprPtr right;
};

enum class CompareOp { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

/// a < b < c: each pair must hold.
struct CompareExpr : Expr {
  explicit CompareExpr(uint32_t at) : Expr(ExprKind::kCompare, at) {}
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};

struct ConditionalExpr : Expr {
  explicit ConditionalExpr(uint32_t at) : Expr(ExprKind::kConditional, at) {}
  ExprPtr condition;
  ExprPtr then;
  ExprPtr otherwise;  // may be null
};

struct AttributeExpr : Expr {
  explicit AttributeExpr(uint32_t at) : Expr(ExprKind::kAttribute, at) {}
  ExprPtr object;
  std::string name;
};

struct ItemExpr : Expr {
  explicit ItemExpr(uint32_t at) : Expr(ExprKind::kItem, at) {}
  ExprPtr object;
  ExprPtr index;
};

/// Any of the three may be null.
struct SliceExpr : Expr {
  explicit SliceExpr(uint32_t at) : Expr(ExprKind::kSlice, at) {}
  ExprPtr start;
  ExprPtr stop;
  ExprPtr step;
};

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  ExprPtr more_positional;  // *list
  ExprPtr more_keywords;    // **dict
};

struct CallExpr : Expr {
  explicit CallExpr(uint32_t at) : Expr(ExprKind::kCall, at) {}
  ExprPtr callee;
  CallArguments arguments;
};

struct FilterExpr : Expr {
  explicit FilterExpr(uint32_t at) : Expr(ExprKind::kFilter, at) {}
  ExprPtr input;  // null in filter blocks: the text of the block
  std::string name;
  FilterBody body = nullptr;  // null for an unknown one inside an if: fails when reached
  CallArguments arguments;
};

struct TestExpr : Expr {
  explicit TestExpr(uint32_t at) : Expr(ExprKind::kTest, at) {}
  ExprPtr input;
  std::string name;
  TestBody body = nullptr;
  CallArguments arguments;
};

enum class StatementKind {
  kText,
  kOutput,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kScope,
  kBreak,
  kContinue,
};

struct Statement {
  Statement(StatementKind statement_kind, uint32_t source_offset)
      : kind(statement_kind), offset(source_offset) {}
  virtual ~Statement() = default;
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  const StatementKind kind;
  const uint32_t offset;
};

using StatementPtr = std::unique_ptr<Statement>;
using Body = std::vector<StatementPtr>;

struct TextStatement : Statement {
  TextStatement(uint32_t at, std::string data)
      : Statement(StatementKind::kText, at), text(std::move(data)) {}
  std::string text;
};

struct OutputStatement : Statement {
  explicit OutputStatement(uint32_t at) : Statement(StatementKind::kOutput, at) {}
  std::vector<ExprPtr> values;
};

struct IfStatement : Statement {
  explicit IfStatement(uint32_t at) : Statement(StatementKind::kIf, at) {}
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};

struct ForStatement : Statement {
  explicit ForStatement(uint32_t at) : Statement(StatementKind::kFor, at) {}
  ExprPtr target;
  ExprPtr iterable;
  ExprPtr condition;  // may be null
  bool recursive = false;
  bool uses_loop = false;
  Body body;
  Body otherwise;
};

struct SetStatement : Statement {
  explicit SetStatement(uint32_t at) : Statement(StatementKind::kSet, at) {}
  ExprPtr target;
  ExprPtr value;
};

struct SetBlockStatement : Statement {
  explicit SetBlockStatement(uint32_t at) : Statement(StatementKind::kSetBlock, at) {}
  ExprPtr target;
  ExprPtr filter;  // may be null
  Body body;
};

/// What can be called: a macro, or the body of a call block.
struct Callable {
  std::string name;
  std::vector<NameId> parameters;
  std::vector<std::string> parameter_names;
  std::vector<ExprPtr> defaults;  // of the last parameters
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
  Body body;
};

struct MacroStatement : Statement {
  explicit MacroStatement(uint32_t at) : Statement(StatementKind::kMacro, at) {}
  NameId id = 0;
  Callable macro;
};

struct CallBlockStatement : Statement {
  explicit CallBlockStatement(uint32_t at) : Statement(StatementKind::kCallBlock, at) {}
  ExprPtr call;  // a CallExpr
  Callable caller;
};

struct FilterBlockStatement : Statement {
  explicit FilterBlockStatement(uint32_t at) : Statement(StatementKind::kFilterBlock, at) {}
  ExprPtr filter;
  Body body;
};

struct WithStatement : Statement {
  explicit WithStatement(uint32_t at) : Statement(StatementKind::kWith, at) {}
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments;
  Body body;
};

/// {% generation %}: only a scope of its own.
struct ScopeStatement : Statement {
  explicit ScopeStatement(uint32_t at) : Statement(StatementKind::kScope, at) {}
  Body body;
};

struct BreakStatement : Statement {
  explicit BreakStatement(uint32_t at) : Statement(StatementKind::kBreak, at) {}
};

struct ContinueStatement : Statement {
  explicit ContinueStatement(uint32_t at) : Statement(StatementKind::kContinue, at) {}
};

/// Ids of names the interpreter itself sets.
constexpr NameId kLoopName = 0;
constexpr NameId kCallerName = 1;
constexpr NameId kVarargsName = 2;
constexpr NameId kKwargsName = 3;

struct TemplateTree {
  std::string source;              // normalised
  std::vector<std::string> names;  // by NameId
  Body body;
  std::vector<std::string> literals;  // text and string constants, for telling what it supports
};

}  // namespace dsctl::templates::jinja
