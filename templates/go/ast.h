// The tree of a Go template, as text/template/parse builds it.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "templates/go/value.h"

namespace dsctl::templates::go {

/// Where a node stands: byte offset in the source, turned into line and column for messages.
using Position = size_t;

struct Pipeline;

/// An operand of a command.
struct Operand {
  enum class Kind {
    kDot,       // .
    kConstant,  // number, string, true, nil: `constant`
    kField,     // .A.B: `names`
    kVariable,  // $x.A.B: `text` is the variable, `names` the fields
    kFunction,  // an identifier: `text`
    kPipeline,  // (pipeline).A.B: `pipeline`, `names`
  };
  Kind kind = Kind::kDot;
  Position position = 0;
  std::string text;
  std::vector<std::string> names;
  Value constant;
  bool is_nil = false;  // the word nil
  std::shared_ptr<Pipeline> pipeline;
};

/// A function, field or value with its arguments.
struct Command {
  Position position = 0;
  std::vector<Operand> operands;
};

/// `$i, $x := a | b c`
struct Pipeline {
  Position position = 0;
  std::vector<std::string> variables;
  bool is_assignment = false;  // = rather than :=
  std::vector<Command> commands;
};

struct Node;
using NodeList = std::vector<Node>;

struct Node {
  enum class Kind { kText, kAction, kIf, kRange, kWith, kTemplate, kBreak, kContinue };
  Kind kind = Kind::kText;
  Position position = 0;
  std::string text;  // kText: the text, kTemplate: the name
  std::shared_ptr<const Pipeline> pipeline;
  NodeList body;
  NodeList else_body;
  bool has_else = false;
};

/// A parsed template with its named parts ({{define}}, {{block}}); the main one is "".
struct Tree {
  std::string source;
  std::map<std::string, NodeList> templates;
};

/// "template:LINE:COLUMN: ", both from 1.
std::string where(std::string_view source, Position position);

}  // namespace dsctl::templates::go
