// Time of the mask that a constrained generation needs at each step: for the schemas of the shared
// data, texts are drawn at random from each schema's own grammar, token by token.
//
//   grammar_bench MODEL.gguf [TEXTS]     the vocabulary of MODEL
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/grammar/grammar.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf/gguf_file.h"

namespace {

using dsctl::engine::GrammarSpec;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

std::vector<GrammarSpec> read_corpus(const std::string& directory) {
  std::vector<GrammarSpec> specs;
  const auto add_spec = [&](GrammarSpec::Kind kind, std::string source) {
    GrammarSpec spec;
    spec.kind = kind;
    spec.source = std::move(source);
    specs.push_back(std::move(spec));
  };
  add_spec(GrammarSpec::Kind::kJsonObject, {});
  const auto add = [&](GrammarSpec::Kind kind, const json& source) {
    add_spec(kind, source.get<std::string>());
  };
  std::ifstream grammars(directory + "/grammar_cases.json");
  const json grammar_cases = json::parse(grammars);
  for (const json& entry : grammar_cases["cases"]) {
    add(entry["kind"] == "schema" ? GrammarSpec::Kind::kJsonSchema : GrammarSpec::Kind::kGbnf,
        entry["source"]);
  }
  std::ifstream schemas(directory + "/schema_gbnf_cases.json");
  const json schema_cases = json::parse(schemas);
  for (const json& entry : schema_cases["cases"]) {
    if (entry["status"] == "SUCCESS") add(GrammarSpec::Kind::kJsonSchema, entry["schema"]);
  }
  return specs;
}

void report(const char* what, std::vector<double> times) {
  if (times.empty()) return;
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) {
    return times[std::min(times.size() - 1,
                          static_cast<size_t>(share * static_cast<double>(times.size())))];
  };
  std::printf("%-28s %8zu  median %8.1f us  p90 %8.1f us  p99 %8.1f us  max %9.1f us\n", what,
              times.size(), at(0.5), at(0.9), at(0.99), times.back());
}

}  // namespace

int main(int argc, char** argv) {
  const char* directory = std::getenv("DSCTL_TEST_VECTORS");
  if (argc < 2 || directory == nullptr) {
    std::fprintf(stderr,
                 "usage: DSCTL_TEST_VECTORS=DIR grammar_bench MODEL.gguf [TEXTS]\n"
                 "DIR has grammar_cases.json and schema_gbnf_cases.json\n");
    return 2;
  }
  const int n_texts = argc > 2 ? std::atoi(argv[2]) : 3;
  const auto file = dsctl::gguf::GgufFile::open(argv[1]);
  const auto tokenizer = dsctl::engine::Tokenizer::from_gguf(file);
  auto start = Clock::now();
  dsctl::engine::GrammarCache cache(*tokenizer);
  std::mt19937 random(1);
  std::vector<double> compile_times;
  std::vector<double> first_times;  // the first text of each grammar
  std::vector<double> later_times;  // the others
  std::vector<double> accept_times;
  dsctl::engine::TokenMask mask;
  for (const GrammarSpec& spec : read_corpus(directory)) {
    start = Clock::now();
    std::shared_ptr<dsctl::engine::Grammar> grammar;
    try {
      grammar = cache.get(spec);
    } catch (const dsctl::engine::Error& error) {
      continue;
    }
    compile_times.push_back(microseconds_since(start));
    for (int text = 0; text < n_texts; ++text) {
      auto state = grammar->start();
      for (int step = 0; step < 100 && !grammar->is_final(state); ++step) {
        start = Clock::now();
        grammar->fill_mask(state, mask);
        (text == 0 ? first_times : later_times).push_back(microseconds_since(start));
        std::vector<int32_t> allowed;
        for (int32_t token = 0; token < tokenizer->vocab_size(); ++token) {
          const bool is_set = ((mask[static_cast<size_t>(token) / 32] >> (token % 32)) & 1u) != 0;
          if (is_set && !tokenizer->is_eog(token)) allowed.push_back(token);
        }
        if (allowed.empty()) break;
        const int32_t token = allowed[random() % allowed.size()];
        start = Clock::now();
        state = grammar->next(state, grammar->trie().piece(token));
        accept_times.push_back(microseconds_since(start));
      }
    }
  }
  std::printf("%d tokens, %zu grammars\n", tokenizer->vocab_size(), compile_times.size());
  report("compile (first: the trie)", compile_times);
  report("mask, a grammar's first text", first_times);
  report("mask, later texts", later_times);
  report("accept a token", accept_times);
}
