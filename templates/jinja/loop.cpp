#include "templates/jinja/loop.h"

#include <algorithm>

#include "templates/jinja/operations.h"

namespace dsctl::templates::jinja {
namespace {

/// loop.cycle and loop.changed.
struct LoopMethod : Helper {
  LoopMethod(std::shared_ptr<LoopObject> owner, bool cycles)
      : loop(std::move(owner)), is_cycle(cycles) {
    depth = loop->depth + 1;
  }
  std::string_view python_name() const override { return "method"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override {
    if (!arguments.keywords.empty()) fail_type("the method takes no keyword arguments");
    return is_cycle ? loop->cycle(arguments) : loop->changed(runtime, arguments);
  }

  const std::shared_ptr<LoopObject> loop;
  const bool is_cycle;
};

}  // namespace

LoopObject::LoopObject(Interpreter& interpreter, const ForStatement& node, Values items,
                       const ScopePtr& outer, Int loop_depth)
    : interpreter_(interpreter),
      node_(node),
      items_(std::move(items)),
      outer_(outer),
      depth_in_loops_(loop_depth) {
  for (const Value& item : items_)
    depth = std::max(depth, item.depth() + 1);
  check_depth(depth + 1);
}

std::optional<Value> LoopObject::pull() {
  if (finished_) return std::nullopt;
  while (next_ < items_.size()) {
    const Value& item = items_[next_++];
    if (!node_.condition) return item;
    const ScopePtr outer = outer_.lock();
    if (!outer) return std::nullopt;
    if (auto accepted = interpreter_.filter_item(node_, outer.get(), item)) return accepted;
  }
  return std::nullopt;
}

std::optional<Value> LoopObject::advance() {
  std::optional<Value> item;
  if (!ahead_.empty()) {
    item = ahead_.front();
    ahead_.pop_front();
  } else {
    item = pull();
  }
  if (!item) return std::nullopt;
  if (index_ >= 0) previous_ = current_;
  current_ = *item;
  ++index_;
  return item;
}

void LoopObject::finish() {
  finished_ = true;
  last_changed_.reset();
}

bool LoopObject::has_next() {
  if (ahead_.empty()) {
    if (std::optional<Value> item = pull()) ahead_.push_back(std::move(*item));
  }
  return !ahead_.empty();
}

Int LoopObject::length() {
  if (!node_.condition) return static_cast<Int>(items_.size());
  while (std::optional<Value> item = pull())
    ahead_.push_back(std::move(*item));
  return index_ + 1 + static_cast<Int>(ahead_.size());
}

std::string LoopObject::describe() const {
  return "<LoopContext " + format_int(index_ + 1) + "/" +
         format_int(static_cast<Int>(items_.size())) + ">";
}

Value LoopObject::call(Runtime& /*runtime*/, const Arguments& arguments) {
  const BoundArguments bound("loop", arguments, {"iterable"}, 1);
  if (!node_.recursive) {
    fail_type("The loop must have the 'recursive' marker to be called recursively.");
  }
  return interpreter_.call_loop(node_, outer_, *bound.get(0), depth_in_loops_ + 1);
}

std::optional<Value> LoopObject::attribute(std::string_view name) {
  if (name == "index") return Value::integer(index_ + 1);
  if (name == "index0") return Value::integer(index_);
  if (name == "first") return Value::boolean(index_ == 0);
  if (name == "last") return Value::boolean(!has_next());
  if (name == "length") return Value::integer(length());
  if (name == "revindex") return Value::integer(length() - index_);
  if (name == "revindex0") return Value::integer(length() - index_ - 1);
  if (name == "depth") return Value::integer(depth_in_loops_ + 1);
  if (name == "depth0") return Value::integer(depth_in_loops_);
  if (name == "previtem") {
    return previous_ ? *previous_ : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return has_next() ? ahead_.front() : Value::undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") {
    return Value::object(std::make_shared<LoopMethod>(shared_from_this(), name == "cycle"));
  }
  return std::nullopt;
}

Value LoopObject::cycle(const Arguments& arguments) const {
  if (arguments.positional.empty()) fail_type("no items for cycling given");
  const Int count = static_cast<Int>(arguments.positional.size());
  return arguments.positional[static_cast<size_t>(std::max<Int>(index_, 0) % count)];
}

Value LoopObject::changed(Runtime& runtime, const Arguments& arguments) {
  bool same = last_changed_ && last_changed_->size() == arguments.positional.size();
  for (size_t i = 0; same && i < arguments.positional.size(); ++i) {
    same = equals((*last_changed_)[i], arguments.positional[i], runtime.budget);
  }
  // After the end nothing is kept: the values could hold this very object.
  if (!same && !finished_) last_changed_ = arguments.positional;
  return Value::boolean(!same);
}

}  // namespace dsctl::templates::jinja
