/// What the interpreter changes for the length of a C++ block.
#pragma once

#include "templates/jinja/interpreter.h"
#include "templates/jinja/operations.h"

namespace dsctl::templates::jinja {

class Interpreter::Depth {
 public:
  explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) {
    if (++interpreter_.depth_ > interpreter_.runtime_.budget.limits().max_depth) {
      --interpreter_.depth_;
      throw JinjaError(ErrorKind::kLimit, "the template recurses too deeply");
    }
  }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Interpreter& interpreter_;
};

/// A new scope inside `parent`, which is the current scope unless a macro is called.
class Interpreter::InnerScope {
 public:
  InnerScope(Interpreter& interpreter, const Scope* parent)
      : interpreter_(interpreter), before_(interpreter.scope_) {
    interpreter_.scope_ = std::make_shared<Scope>(parent);
  }
  explicit InnerScope(Interpreter& interpreter)
      : InnerScope(interpreter, interpreter.scope_.get()) {}
  ~InnerScope() { interpreter_.scope_ = before_; }
  InnerScope(const InnerScope&) = delete;
  InnerScope& operator=(const InnerScope&) = delete;

 private:
  Interpreter& interpreter_;
  ScopePtr before_;
};

/// Sends what is written to a text of its own.
class Interpreter::Capture {
 public:
  explicit Capture(Interpreter& interpreter)
      : interpreter_(interpreter), before_(interpreter.out_) {
    interpreter_.out_ = &text_;
  }
  ~Capture() { interpreter_.out_ = before_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  Value take() { return Value::string(std::move(text_)); }

 private:
  Interpreter& interpreter_;
  std::string* before_;
  std::string text_;
};

}  // namespace dsctl::templates::jinja
