// The splitter of thoughts and answer: the same result however the text is cut.
#include "templates/thinking_parser.h"
#include "tests/support/catch.h"

namespace dsctl::templates {
namespace {

using Start = ThinkingParser::Start;

struct Split {
  std::string thinking;
  std::string content;
};

Split split(std::string_view text, size_t piece_size, Start start, std::string open = "<think>",
            std::string close = "</think>") {
  ThinkingParser parser(std::move(open), std::move(close), start);
  Split all;
  for (size_t pos = 0; pos < text.size(); pos += piece_size) {
    const auto piece = parser.feed(text.substr(pos, piece_size));
    all.thinking += piece.thinking;
    all.content += piece.content;
  }
  const auto last = parser.finish();
  return {all.thinking + last.thinking, all.content + last.content};
}

struct Case {
  const char* text;
  Start start;
  const char* thinking;
  const char* content;
};

const Case kCases[] = {
    {"<think>\nadd them\n</think>\n\n2", Start::kBeforeTag, "add them", "2"},
    {"  \n<think>a</think>b", Start::kBeforeTag, "a", "b"},
    {"add them\n</think>\n\n2", Start::kInside, "add them", "2"},
    {"<think>\nadd\n</think>2", Start::kInside, "add", "2"},
    {"<think></think>answer", Start::kBeforeTag, "", "answer"},
    {"<think>\n\n</think>\n\nanswer", Start::kBeforeTag, "", "answer"},
    {"no tags here", Start::kBeforeTag, "", "no tags here"},
    {"  leading space kept", Start::kBeforeTag, "", "  leading space kept"},
    {"x <think>late</think> y", Start::kBeforeTag, "", "x <think>late</think> y"},
    {"<thin", Start::kBeforeTag, "", "<thin"},
    {" <thinker> is a word", Start::kBeforeTag, "", " <thinker> is a word"},
    {"<think>never closed </thi", Start::kBeforeTag, "never closed </thi", ""},
    {"<think>a < b </ c </thinx> d  </think>\tz  ", Start::kBeforeTag, "a < b </ c </thinx> d",
     "z  "},
    {"<think>a</think>b</think>c", Start::kBeforeTag, "a", "b</think>c"},
    {"<think>a </think> <think>b</think>", Start::kBeforeTag, "a", "<think>b</think>"},
    {"<think>  keep  inner \n\n lines </think>", Start::kBeforeTag, "keep  inner \n\n lines", ""},
    {"", Start::kBeforeTag, "", ""},
    {"<think>你好 🦙</think>é", Start::kBeforeTag, "你好 🦙", "é"},
    {"</think>at once", Start::kInside, "", "at once"},
    {"<think>a<</think>b", Start::kBeforeTag, "a<", "b"},
};

}  // namespace

TEST_CASE("ThinkingParser splits the same way however the text is cut") {
  for (const Case& test : kCases) {
    INFO(test.text);
    for (size_t piece_size : {1, 2, 3, 7, 10000}) {
      INFO("pieces of " << piece_size);
      const Split got = split(test.text, piece_size, test.start);
      CHECK(got.thinking == test.thinking);
      CHECK(got.content == test.content);
    }
  }
}

TEST_CASE("ThinkingParser takes other tags and no tags") {
  CHECK(
      split("<|channel>x<channel|>y", 1, Start::kBeforeTag, "<|channel>", "<channel|>").thinking ==
      "x");
  CHECK(split("<think>x", 1, Start::kBeforeTag, "", "").content == "<think>x");
}

TEST_CASE("ThinkingParser shows thoughts before the closing tag arrives") {
  ThinkingParser parser("<think>", "</think>", Start::kBeforeTag);
  CHECK(parser.feed("<think>one two").thinking == "one two");
  CHECK(parser.inside());
  CHECK(parser.feed(" \n</thi").thinking.empty());
  CHECK(parser.feed("nk>done").content == "done");
  CHECK_FALSE(parser.inside());
}

TEST_CASE("prompt_opens_thinking looks at the end of the prompt only") {
  const TemplateCapabilities thinks{
      .thinking = true, .think_open = "<think>", .think_close = "</think>"};
  CHECK(prompt_opens_thinking("<|assistant|><think>\n", thinks));
  CHECK(prompt_opens_thinking("<|assistant|><think>", thinks));
  CHECK_FALSE(prompt_opens_thinking("<think>\n\n</think>\n\n", thinks));
  CHECK_FALSE(prompt_opens_thinking("", thinks));
  CHECK_FALSE(prompt_opens_thinking("<think>", {}));
}

}  // namespace dsctl::templates
