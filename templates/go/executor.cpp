#include "templates/go/executor.h"

#include <optional>
#include <utility>
#include <vector>

#include "templates/error.h"

namespace dsctl::templates::go {
namespace {

class Executor {
 public:
  Executor(const Tree& tree, const FunctionMap& functions, const Limits& limits)
      : tree_(tree), functions_(functions), limits_(limits) {}

  std::string run(const NodeList& root, const Value& data) {
    variables_.emplace_back("$", data);
    walk(root, data);
    return std::move(out_);
  }

 private:
  enum class Flow { kNext, kBreak, kContinue };

  [[noreturn]] void fail(Position position, const std::string& message) const {
    throw Error(where(tree_.source, position) + message);
  }

  void step(Position position) {
    if (++n_steps_ > limits_.max_steps) {
      fail(position,
           "the template runs longer than " + std::to_string(limits_.max_steps) + " steps");
    }
  }

  void write(Position position, const std::string& text) {
    if (text.size() > limits_.max_output_bytes - out_.size()) {
      fail(position,
           "the template writes more than " + std::to_string(limits_.max_output_bytes) + " bytes");
    }
    out_ += text;
  }

  Flow walk(const NodeList& nodes, const Value& dot) {
    for (const Node& node : nodes) {
      const Flow flow = walk(node, dot);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow walk(const Node& node, const Value& dot) {
    step(node.position);
    switch (node.kind) {
      case Node::Kind::kText:
        write(node.position, node.text);
        return Flow::kNext;
      case Node::Kind::kAction: {
        const Value value = evaluate(*node.pipeline, dot);
        if (node.pipeline->variables.empty()) write(node.position, print_value(value));
        return Flow::kNext;
      }
      case Node::Kind::kIf:
      case Node::Kind::kWith:
        return branch(node, dot);
      case Node::Kind::kRange:
        return range(node, dot);
      case Node::Kind::kTemplate:
        invoke(node, dot);
        return Flow::kNext;
      case Node::Kind::kBreak:
        return Flow::kBreak;
      case Node::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  Flow branch(const Node& node, const Value& dot) {
    const size_t n_variables = variables_.size();
    const Value value = evaluate(*node.pipeline, dot);
    Flow flow = Flow::kNext;
    if (value.truth()) {
      flow = walk(node.body, node.kind == Node::Kind::kWith ? value : dot);
    } else {
      flow = walk(node.else_body, dot);
    }
    variables_.resize(n_variables);
    return flow;
  }

  Flow range(const Node& node, const Value& dot) {
    const size_t n_variables = variables_.size();
    const Pipeline& pipe = *node.pipeline;
    const Value collection = evaluate(pipe, dot);
    bool any = false;
    Flow result = Flow::kNext;
    // Returns false when the loop is over.
    const auto once = [&](const Value& key, const Value& element) {
      any = true;
      const size_t n_loop_variables = variables_.size();
      if (pipe.variables.size() == 1) set_loop_variable(pipe, 0, element);
      if (pipe.variables.size() == 2) {
        set_loop_variable(pipe, 0, key);
        set_loop_variable(pipe, 1, element);
      }
      const Flow flow = walk(node.body, element);
      variables_.resize(n_loop_variables);
      return flow != Flow::kBreak;
    };
    if (const List* list = collection.as_list()) {
      for (size_t i = 0; i < list->items.size(); ++i) {
        if (!once(Value(static_cast<int64_t>(i)), list->items[i])) break;
      }
    } else if (const Map* map = collection.as_map()) {
      for (const auto& [key, element] : map->items) {
        if (!once(Value(key), element)) break;
      }
    } else if (!collection.is_nil()) {
      fail(pipe.position, "range can't iterate over " + print_value(collection));
    }
    if (!any) result = walk(node.else_body, dot);
    variables_.resize(n_variables);
    return result;
  }

  /// The pipeline of a range leaves its collection in the variables; each turn overwrites them.
  void set_loop_variable(const Pipeline& pipe, size_t i, const Value& value) {
    find_variable(pipe.variables[i]) = value;
  }

  void invoke(const Node& node, const Value& dot) {
    const auto found = tree_.templates.find(node.text);
    if (found == tree_.templates.end()) {
      fail(node.position, "template \"" + node.text + "\" not defined");
    }
    if (++template_depth_ > limits_.max_template_depth) {
      fail(node.position, "templates nested deeper than " +
                              std::to_string(limits_.max_template_depth) + " levels");
    }
    const Value data = node.pipeline ? evaluate(*node.pipeline, dot) : Value();
    std::vector<std::pair<std::string, Value>> outer{{"$", data}};
    std::swap(outer, variables_);
    walk(found->second, data);
    std::swap(outer, variables_);
    --template_depth_;
  }

  Value& find_variable(const std::string& name) {
    for (size_t i = variables_.size(); i-- > 0;) {
      if (variables_[i].first == name) return variables_[i].second;
    }
    // The parser has refused unknown names; what is left is a bug.
    throw Error("undefined variable " + name);
  }

  Value evaluate(const Pipeline& pipe, const Value& dot) {
    step(pipe.position);
    std::optional<Value> value;
    for (const Command& command : pipe.commands)
      value = evaluate(command, dot, value);
    for (const std::string& name : pipe.variables) {
      if (pipe.is_assignment) {
        find_variable(name) = *value;
      } else {
        variables_.emplace_back(name, *value);
      }
    }
    return *value;
  }

  /// `final` is the value piped in, the last argument.
  Value evaluate(const Command& command, const Value& dot, const std::optional<Value>& final) {
    const Operand& first = command.operands.front();
    if (first.kind == Operand::Kind::kFunction) return call(command, dot, final);
    if (command.operands.size() > 1 || final) {
      fail(first.position, "can't give argument to something that is not a function");
    }
    if (first.is_nil) fail(first.position, "nil is not a command");
    return evaluate(first, dot);
  }

  Value evaluate(const Operand& operand, const Value& dot) {
    step(operand.position);
    switch (operand.kind) {
      case Operand::Kind::kDot:
        return dot;
      case Operand::Kind::kConstant:
        return operand.constant;
      case Operand::Kind::kField:
        return fields(operand, dot);
      case Operand::Kind::kVariable:
        return fields(operand, find_variable(operand.text));
      case Operand::Kind::kFunction:
        return call({operand.position, {operand}}, dot, std::nullopt);
      case Operand::Kind::kPipeline: {
        const size_t n_variables = variables_.size();
        const Value value = evaluate(*operand.pipeline, dot);
        variables_.resize(n_variables);
        return fields(operand, value);
      }
    }
    return Value();
  }

  Value fields(const Operand& operand, Value value) {
    for (const std::string& name : operand.names)
      value = field(operand, name, value);
    return value;
  }

  Value field(const Operand& operand, const std::string& name, const Value& value) const {
    if (const Struct* record = value.as_struct()) {
      if (const Value* found = record->find(name)) return *found;
      fail(operand.position, "can't evaluate field " + name + " in type " + record->type_name);
    }
    if (const Map* map = value.as_map()) {
      const auto found = map->items.find(name);
      return found == map->items.end() ? Value() : found->second;
    }
    if (value.is_nil()) {
      fail(operand.position, "nil pointer evaluating interface {}." + name);
    }
    fail(operand.position, "can't evaluate field " + name + " in type " + value.type_name());
  }

  Value call(const Command& command, const Value& dot, const std::optional<Value>& final) {
    const std::string& name = command.operands.front().text;
    if (name == "and" || name == "or") return short_circuit(command, dot, final, name == "or");
    std::vector<Value> arguments;
    for (size_t i = 1; i < command.operands.size(); ++i) {
      arguments.push_back(evaluate(command.operands[i], dot));
    }
    if (final) arguments.push_back(*final);
    const auto function = functions_.find(name);
    if (function == functions_.end()) {
      fail(command.position, "function \"" + name + "\" not defined");
    }
    try {
      return function->second(arguments);
    } catch (const Error& error) {
      fail(command.position, "error calling " + name + ": " + error.what());
    }
  }

  /// `and` gives its first false argument, `or` its first true one, else the last; the rest is not
  /// evaluated.
  Value short_circuit(const Command& command, const Value& dot, const std::optional<Value>& final,
                      bool stop_at) {
    const size_t n = command.operands.size() - 1 + (final ? 1 : 0);
    if (n == 0) {
      fail(command.position,
           "wrong number of args for " + command.operands.front().text + ": want at least 1 got 0");
    }
    Value value;
    for (size_t i = 1; i < command.operands.size(); ++i) {
      value = evaluate(command.operands[i], dot);
      if (value.truth() == stop_at) return value;
    }
    return final ? *final : value;
  }

  const Tree& tree_;
  const FunctionMap& functions_;
  const Limits& limits_;
  std::string out_;
  size_t n_steps_ = 0;
  int template_depth_ = 0;
  std::vector<std::pair<std::string, Value>> variables_;
};

}  // namespace

std::string execute(const Tree& tree, const NodeList& root, const FunctionMap& functions,
                    const Value& data, const Limits& limits) {
  return Executor(tree, functions, limits).run(root, data);
}

std::string execute(const Tree& tree, const FunctionMap& functions, const Value& data,
                    const Limits& limits) {
  return execute(tree, tree.templates.at(""), functions, data, limits);
}

}  // namespace dsctl::templates::go
