// The `loop` variable of a for block.
#pragma once

#include <deque>
#include <memory>
#include <optional>

#include "templates/jinja/interpreter.h"

namespace dsctl::templates::jinja {

/// Gives out the items of a loop one by one, looks ahead when the template asks what comes, and is
/// the object named `loop`. A filter (`for x in y if z`) runs as late as possible, as in Jinja:
/// its condition may depend on what earlier iterations did.
class LoopObject : public Helper, public std::enable_shared_from_this<LoopObject> {
 public:
  LoopObject(Interpreter& interpreter, const ForStatement& node, Values items,
             const ScopePtr& outer, Int loop_depth);

  /// The next accepted item, which becomes the current one.
  std::optional<Value> advance();
  /// After the last iteration: nothing more is looked up.
  void finish();

  std::string_view python_name() const override { return "LoopContext"; }
  std::string describe() const override;
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override;
  std::optional<Value> attribute(std::string_view name) override;

  Value cycle(const Arguments& arguments) const;
  Value changed(Runtime& runtime, const Arguments& arguments);

 private:
  std::optional<Value> pull();
  bool has_next();
  Int length();

  Interpreter& interpreter_;
  const ForStatement& node_;
  const Values items_;
  const std::weak_ptr<Scope> outer_;
  const Int depth_in_loops_;
  size_t next_ = 0;
  std::deque<Value> ahead_;
  Int index_ = -1;
  std::optional<Value> previous_;
  Value current_;
  std::optional<Values> last_changed_;
  bool finished_ = false;
};

}  // namespace dsctl::templates::jinja
