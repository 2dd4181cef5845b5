#include "templates/go/parser.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "templates/error.h"
#include "templates/go/lexer.h"

namespace dsctl::templates::go {
namespace {

// Deeper nesting than any template has; the parser and the executor recurse.
constexpr int kMaxDepth = 200;

using TokenKind = Token::Kind;

class Parser {
 public:
  Parser(std::string_view source, const std::function<bool(std::string_view)>& is_function)
      : source_(source), is_function_(is_function), tokens_(tokenize(source)) {
    tree_.source = std::string(source);
  }

  Tree run() {
    NodeList main = list(Until::kEndOfInput);
    tree_.templates[""] = std::move(main);
    return std::move(tree_);
  }

 private:
  enum class Until { kEndOfInput, kEndOrElse, kEnd };

  [[noreturn]] void fail(Position position, const std::string& message) const {
    throw Error(where(source_, position) + message);
  }

  const Token& peek() const { return tokens_[at_]; }
  const Token& next() { return tokens_[at_ < tokens_.size() - 1 ? at_++ : at_]; }
  void skip_space() {
    while (peek().kind == TokenKind::kSpace)
      ++at_;
  }
  const Token& next_non_space() {
    skip_space();
    return next();
  }
  const Token& peek_non_space() {
    skip_space();
    return peek();
  }

  void close_action(const char* context) {
    const Token& token = next_non_space();
    if (token.kind != TokenKind::kRight) {
      fail(token.position, std::string("unexpected text in ") + context + ", expected \"}}\"");
    }
  }

  struct Depth {
    explicit Depth(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) {
        parser_.fail(parser_.peek().position,
                     "nested deeper than " + std::to_string(kMaxDepth) + " levels");
      }
    }
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    Parser& parser_;
  };

  /// Nodes up to {{end}} or {{else}}, whose keyword is consumed and left in `stop_`.
  NodeList list(Until until) {
    const Depth depth(*this);
    NodeList nodes;
    while (true) {
      const Token token = next();
      if (token.kind == TokenKind::kEnd) {
        if (until != Until::kEndOfInput) fail(token.position, "unexpected end of template");
        return nodes;
      }
      if (token.kind == TokenKind::kText) {
        Node node;
        node.kind = Node::Kind::kText;
        node.position = token.position;
        node.text = token.text;
        nodes.push_back(std::move(node));
        continue;
      }
      const Token& word = peek_non_space();
      if (word.kind == TokenKind::kIdentifier && (word.text == "end" || word.text == "else")) {
        stop_ = word.text;
        if (until == Until::kEndOfInput || (stop_ == "else" && until == Until::kEnd)) {
          fail(word.position, "unexpected {{" + stop_ + "}}");
        }
        next();
        return nodes;
      }
      action(token.position, nodes);
    }
  }

  void action(Position left, NodeList& nodes) {
    const Token word = peek_non_space();
    if (word.kind == TokenKind::kIdentifier) {
      if (word.text == "if") return branch(Node::Kind::kIf, nodes);
      if (word.text == "range") return branch(Node::Kind::kRange, nodes);
      if (word.text == "with") return branch(Node::Kind::kWith, nodes);
      if (word.text == "define") return define(left);
      if (word.text == "block") return block(nodes);
      if (word.text == "template") return invoke(nodes);
      if (word.text == "break" || word.text == "continue") return loop_control(nodes);
    }
    Node node;
    node.kind = Node::Kind::kAction;
    node.position = word.position;
    node.pipeline = std::make_shared<const Pipeline>(pipeline("command", TokenKind::kRight));
    nodes.push_back(std::move(node));
  }

  void branch(Node::Kind kind, NodeList& nodes) {
    const Depth depth(*this);
    const Token word = next_non_space();
    Node node;
    node.kind = kind;
    const size_t n_variables = variables_.size();
    node.pipeline =
        std::make_shared<const Pipeline>(pipeline(word.text.c_str(), TokenKind::kRight));
    node.position = node.pipeline->position;
    if (kind == Node::Kind::kRange) ++range_depth_;
    const size_t n_body_variables = variables_.size();
    node.body = list(Until::kEndOrElse);
    variables_.resize(n_body_variables);
    if (kind == Node::Kind::kRange) --range_depth_;
    if (stop_ == "else") {
      node.has_else = true;
      const Token& after = peek_non_space();
      const bool chained = after.kind == TokenKind::kIdentifier &&
                           ((kind == Node::Kind::kIf && after.text == "if") ||
                            (kind == Node::Kind::kWith && after.text == "with"));
      if (chained) {
        // {{else if}} is an if inside the else; the one {{end}} closes both.
        branch(kind, node.else_body);
      } else {
        close_action("else");
        node.else_body = list(Until::kEnd);
        close_action("end");
      }
    } else {
      close_action("end");
    }
    variables_.resize(n_variables);
    nodes.push_back(std::move(node));
  }

  std::string template_name(const char* context) {
    const Token& name = next_non_space();
    if (name.kind != TokenKind::kString) {
      fail(name.position, std::string("expected a quoted template name in ") + context);
    }
    return name.text;
  }

  /// The body of a named template: variables of the outside are not seen in it.
  NodeList named_body() {
    std::vector<std::string> outer{"$"};
    std::swap(outer, variables_);
    const int outer_ranges = std::exchange(range_depth_, 0);
    NodeList body = list(Until::kEnd);
    close_action("end");
    std::swap(outer, variables_);
    range_depth_ = outer_ranges;
    return body;
  }

  void add_template(const std::string& name, NodeList body) {
    tree_.templates[name] = std::move(body);
  }

  void define(Position left) {
    next_non_space();
    if (depth_ > 1) fail(left, "unexpected {{define}} inside another action");
    const std::string name = template_name("define");
    close_action("define");
    add_template(name, named_body());
  }

  void block(NodeList& nodes) {
    const Position position = next_non_space().position;
    Node node;
    node.kind = Node::Kind::kTemplate;
    node.position = position;
    node.text = template_name("block");
    node.pipeline = std::make_shared<const Pipeline>(pipeline("block", TokenKind::kRight));
    add_template(node.text, named_body());
    nodes.push_back(std::move(node));
  }

  void invoke(NodeList& nodes) {
    const Position position = next_non_space().position;
    Node node;
    node.kind = Node::Kind::kTemplate;
    node.position = position;
    node.text = template_name("template");
    if (peek_non_space().kind != TokenKind::kRight) {
      node.pipeline = std::make_shared<const Pipeline>(pipeline("template", TokenKind::kRight));
    } else {
      next();
    }
    nodes.push_back(std::move(node));
  }

  void loop_control(NodeList& nodes) {
    const Token word = next_non_space();
    if (range_depth_ == 0) fail(word.position, "{{" + word.text + "}} outside {{range}}");
    close_action(word.text.c_str());
    Node node;
    node.kind = word.text == "break" ? Node::Kind::kBreak : Node::Kind::kContinue;
    node.position = word.position;
    nodes.push_back(std::move(node));
  }

  /// `[$a[, $b] (:=|=)] command | command ...` up to and with `end`.
  Pipeline pipeline(const char* context, TokenKind end) {
    const Depth depth(*this);
    Pipeline pipe;
    pipe.position = peek_non_space().position;
    declarations(context, pipe);
    while (true) {
      const Token& token = peek_non_space();
      if (token.kind == end) {
        if (pipe.commands.empty())
          fail(token.position, std::string("missing value for ") + context);
        next();
        return pipe;
      }
      if (token.kind == TokenKind::kRight || token.kind == TokenKind::kEnd) {
        fail(token.position, "unexpected end of an action");
      }
      pipe.commands.push_back(command());
      check_command_start(pipe);
    }
  }

  void declarations(const char* context, Pipeline& pipe) {
    if (peek_non_space().kind != TokenKind::kVariable) return;
    const size_t start = at_;
    std::vector<std::string> names{next().text};
    const bool is_range = std::string_view(context) == "range";
    if (is_range && peek_non_space().kind == TokenKind::kComma) {
      next();
      const Token& second = next_non_space();
      if (second.kind != TokenKind::kVariable) {
        fail(second.position, "range can only initialize variables");
      }
      names.push_back(second.text);
    }
    const TokenKind kind = peek_non_space().kind;
    if (kind != TokenKind::kDeclare && kind != TokenKind::kAssign) {
      if (names.size() == 2) fail(peek().position, "expected := after the variables of range");
      at_ = start;  // the variable is an operand
      return;
    }
    next();
    pipe.is_assignment = kind == TokenKind::kAssign;
    for (const std::string& name : names) {
      if (pipe.is_assignment) {
        check_variable(name, pipe.position);
      } else {
        pending_.push_back(name);
      }
    }
    pipe.variables = std::move(names);
    if (!pipe.is_assignment) {
      // Visible from here on, as in Go.
      for (std::string& name : pending_)
        variables_.push_back(std::move(name));
      pending_.clear();
    }
  }

  void check_variable(const std::string& name, Position position) const {
    for (const std::string& known : variables_) {
      if (known == name) return;
    }
    fail(position, "undefined variable \"" + name + "\"");
  }

  void check_command_start(const Pipeline& pipe) const {
    if (pipe.commands.size() < 2) return;
    const Operand& first = pipe.commands.back().operands.front();
    if (first.kind == Operand::Kind::kConstant || first.kind == Operand::Kind::kDot) {
      fail(first.position,
           "non executable command in pipeline stage " + std::to_string(pipe.commands.size()));
    }
  }

  Command command() {
    Command result;
    result.position = peek_non_space().position;
    while (true) {
      skip_space();
      if (auto operand = take_operand()) result.operands.push_back(std::move(*operand));
      const Token& token = peek();
      if (token.kind == TokenKind::kSpace) {
        next();
        continue;
      }
      if (token.kind == TokenKind::kPipe) {
        next();
        const TokenKind after = peek_non_space().kind;
        if (after == TokenKind::kRight || after == TokenKind::kRightParen) {
          fail(token.position, "missing command after |");
        }
        break;
      }
      if (token.kind == TokenKind::kRight || token.kind == TokenKind::kRightParen) break;
      if (token.kind == TokenKind::kEnd) fail(token.position, "unexpected end of template");
      fail(token.position, "unexpected text in an operand");
    }
    if (result.operands.empty()) fail(result.position, "empty command");
    return result;
  }

  std::optional<Operand> take_operand() {
    const Token& token = peek();
    Operand operand;
    operand.position = token.position;
    switch (token.kind) {
      case TokenKind::kDot:
        operand.kind = Operand::Kind::kDot;
        break;
      case TokenKind::kField:
        operand.kind = Operand::Kind::kField;
        operand.names.push_back(token.text);
        break;
      case TokenKind::kVariable:
        operand.kind = Operand::Kind::kVariable;
        operand.text = token.text;
        check_variable(token.text, token.position);
        break;
      case TokenKind::kString:
        operand.kind = Operand::Kind::kConstant;
        operand.constant = Value(token.text);
        break;
      case TokenKind::kChar:
        operand.kind = Operand::Kind::kConstant;
        operand.constant = Value(decode_character(token));
        break;
      case TokenKind::kNumber:
        operand.kind = Operand::Kind::kConstant;
        operand.constant = parse_number(token);
        break;
      case TokenKind::kIdentifier:
        identifier(token, operand);
        break;
      case TokenKind::kLeftParen:
        next();
        operand.kind = Operand::Kind::kPipeline;
        operand.pipeline =
            std::make_shared<Pipeline>(pipeline("parenthesized pipeline", TokenKind::kRightParen));
        --at_;  // the ) is consumed below, like every operand's last token
        break;
      default:
        return std::nullopt;
    }
    next();
    while (peek().kind == TokenKind::kField) {
      if (operand.kind == Operand::Kind::kConstant) {
        fail(peek().position, "unexpected . after a constant");
      }
      if (operand.kind == Operand::Kind::kDot) operand.kind = Operand::Kind::kField;
      if (operand.kind == Operand::Kind::kFunction) {
        // f.A means the field A of f's result.
        auto inner = std::make_shared<Pipeline>();
        inner->position = operand.position;
        inner->commands.push_back({operand.position, {operand}});
        operand = Operand{};
        operand.kind = Operand::Kind::kPipeline;
        operand.position = inner->position;
        operand.pipeline = std::move(inner);
      }
      operand.names.push_back(next().text);
    }
    return operand;
  }

  void identifier(const Token& token, Operand& operand) const {
    if (token.text == "true" || token.text == "false") {
      operand.kind = Operand::Kind::kConstant;
      operand.constant = Value(token.text == "true");
    } else if (token.text == "nil") {
      operand.kind = Operand::Kind::kConstant;
      operand.is_nil = true;
    } else {
      if (!is_function_(token.text)) {
        fail(token.position, "function \"" + token.text + "\" not defined");
      }
      operand.kind = Operand::Kind::kFunction;
      operand.text = token.text;
    }
  }

  int64_t decode_character(const Token& token) const {
    const std::string& text = token.text;
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    if (text.size() == 1 && byte(0) < 0x80) return byte(0);
    if (text.size() == 2 && byte(0) >= 0xC2) return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    if (text.size() == 3 && byte(0) >= 0xE0) {
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    }
    if (text.size() == 4 && byte(0) >= 0xF0) {
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
             (byte(3) & 0x3F);
    }
    fail(token.position, "malformed character constant");
  }

  Value parse_number(const Token& token) const {
    std::string text;
    for (const char c : token.text) {
      if (c != '_') text += c;
    }
    const bool negative = text.front() == '-';
    if (text.front() == '-' || text.front() == '+') text.erase(0, 1);
    const auto radix = [&](char letter) {
      return text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == letter;
    };
    int base = radix('x') ? 16 : radix('o') ? 8 : radix('b') ? 2 : 10;
    std::string_view digits = text;
    if (base != 10) {
      digits.remove_prefix(2);
    } else if (text.size() > 1 && text[0] == '0' &&
               text.find_first_not_of("01234567") == std::string::npos) {
      base = 8;
    }
    uint64_t magnitude = 0;
    const auto whole =
        std::from_chars(digits.data(), digits.data() + digits.size(), magnitude, base);
    const uint64_t limit = uint64_t{1} << 63;
    if (whole.ec == std::errc() && whole.ptr == digits.data() + digits.size() &&
        magnitude < limit + (negative ? 1 : 0)) {
      return Value(static_cast<int64_t>(negative ? 0 - magnitude : magnitude));
    }
    double value = 0.0;
    const auto real = std::from_chars(text.data(), text.data() + text.size(), value);
    if (base != 10 && base != 8) fail(token.position, "bad number \"" + token.text + "\"");
    if (real.ec != std::errc() || real.ptr != text.data() + text.size()) {
      fail(token.position, "bad number \"" + token.text + "\"");
    }
    return Value(negative ? -value : value);
  }

  std::string_view source_;
  const std::function<bool(std::string_view)>& is_function_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int range_depth_ = 0;
  std::string stop_;
  std::vector<std::string> variables_{"$"};
  std::vector<std::string> pending_;
  Tree tree_;
};

}  // namespace

Tree parse(std::string_view source, const std::function<bool(std::string_view)>& is_function) {
  return Parser(source, is_function).run();
}

}  // namespace dsctl::templates::go
