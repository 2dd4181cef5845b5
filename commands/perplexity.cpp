#include "commands/perplexity.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "commands/error.h"
#include "commands/logits_file.h"
#include "commands/model_file.h"
#include "commands/text_chunks.h"
#include "engine/text_pass.h"
#include "gguf/new_file.h"

namespace dsctl::commands {
namespace {

/// One scored token.
struct Score {
  double nll = 0;  // negative log-likelihood
  // Only against a base:
  double nll_base = 0;
  double kld = 0;         // sum over the vocabulary of p_base * log(p_base / p)
  double p_diff = 0;      // of the text's token
  bool same_top = false;  // the likeliest token is the same
};

double log_sum_exp(std::span<const float> logits, float max) {
  double sum = 0;
  for (const float logit : logits)
    sum += std::exp(logit - max);
  return std::log(sum);
}

Score score(std::span<const float> logits, int32_t token) {
  const float max = *std::max_element(logits.begin(), logits.end());
  Score result;
  result.nll = max + log_sum_exp(logits, max) - logits[static_cast<size_t>(token)];
  return result;
}

Score score_against(std::span<const float> logits, int32_t token, const LogitsRow& base) {
  const auto top = std::max_element(logits.begin(), logits.end());
  const double log_sum = *top + log_sum_exp(logits, *top);
  const auto idx = static_cast<size_t>(token);
  const auto log_p_base = [&](size_t i) {
    return base.scale * static_cast<float>(base.codes[i]) + base.min;
  };
  Score result;
  result.nll = log_sum - logits[idx];
  result.nll_base = -static_cast<double>(log_p_base(idx));
  result.p_diff = std::exp(-result.nll) - std::exp(-result.nll_base);
  size_t top_base = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (base.codes[i] > base.codes[top_base]) top_base = i;
    const float log_p = log_p_base(i);
    // Smaller ones are all rounded to the same code, and together weigh nothing.
    if (log_p > -16.0F) result.kld += std::exp(log_p) * (log_p - logits[i] + log_sum);
  }
  result.same_top = top - logits.begin() == static_cast<std::ptrdiff_t>(top_base);
  return result;
}

/// A mean and how far it may be off (one standard error).
struct Estimate {
  double mean = 0;
  double error = 0;
};

template <typename Value>
Estimate estimate(const std::vector<Score>& scores, Value&& value) {
  double sum = 0;
  double squares = 0;
  for (const Score& s : scores) {
    const double v = value(s);
    sum += v;
    squares += v * v;
  }
  const auto n = static_cast<double>(scores.size());
  Estimate result{sum / n, 0};
  const double variance = squares / n - result.mean * result.mean;
  if (n > 1 && variance > 0) result.error = std::sqrt(variance / (n - 1));
  return result;
}

double quantile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  const auto idx = static_cast<size_t>(part * static_cast<double>(values.size() - 1) + 0.5);
  return values[idx];
}

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(), pattern, args...);
  return text.data();
}

/// What all scores together say.
struct Report {
  int n_chunks = 0;
  std::vector<Score> scores;
  bool has_base = false;

  Estimate nll() const {
    return estimate(scores, [](const Score& s) { return s.nll; });
  }
  double perplexity() const { return std::exp(nll().mean); }
  Estimate ratio() const {  // log of perplexity / the base's
    return estimate(scores, [](const Score& s) { return s.nll - s.nll_base; });
  }
  Estimate kld() const {
    return estimate(scores, [](const Score& s) { return s.kld; });
  }
  std::vector<double> klds() const {
    std::vector<double> values;
    for (const Score& s : scores)
      values.push_back(s.kld);
    return values;
  }
  double same_top() const {
    return estimate(scores, [](const Score& s) { return s.same_top ? 1.0 : 0.0; }).mean;
  }
  double p_diff_rms() const {
    return std::sqrt(estimate(scores, [](const Score& s) { return s.p_diff * s.p_diff; }).mean);
  }
  double base_perplexity() const {
    return std::exp(estimate(scores, [](const Score& s) { return s.nll_base; }).mean);
  }
};

std::string text_of(const Report& report) {
  const double ppl = report.perplexity();
  std::string text = format("perplexity          %.4f +/- %.4f  (%zu tokens of %d chunks)\n", ppl,
                            ppl * report.nll().error, report.scores.size(), report.n_chunks);
  if (!report.has_base) return text;
  const Estimate kld = report.kld();
  const auto klds = report.klds();
  text += format("base's perplexity   %.4f\n", report.base_perplexity());
  text += format("ratio to the base   %.6f +/- %.6f\n", std::exp(report.ratio().mean),
                 std::exp(report.ratio().mean) * report.ratio().error);
  text +=
      format("KL divergence       %.6f +/- %.6f  (median %.6f, 99%% %.6f, most %.6f)\n", kld.mean,
             kld.error, quantile(klds, 0.5), quantile(klds, 0.99), quantile(klds, 1.0));
  text += format("change of p, rms    %.3f %%\n", 100 * report.p_diff_rms());
  text += format("same likeliest      %.3f %%\n", 100 * report.same_top());
  return text;
}

std::string json_of(const Report& report) {
  nlohmann::ordered_json json;
  json["perplexity"] = report.perplexity();
  json["perplexity_error"] = report.perplexity() * report.nll().error;
  json["tokens"] = report.scores.size();
  json["chunks"] = report.n_chunks;
  if (report.has_base) {
    json["base_perplexity"] = report.base_perplexity();
    json["perplexity_ratio"] = std::exp(report.ratio().mean);
    json["kl_divergence"] = report.kld().mean;
    json["kl_divergence_error"] = report.kld().error;
    json["kl_divergence_median"] = quantile(report.klds(), 0.5);
    json["kl_divergence_p99"] = quantile(report.klds(), 0.99);
    json["kl_divergence_max"] = quantile(report.klds(), 1.0);
    json["p_change_rms"] = report.p_diff_rms();
    json["same_top"] = report.same_top();
  }
  return json.dump(2) + "\n";
}

TextChunks chunks_for(const PerplexityOptions& options, const engine::Tokenizer& tokenizer,
                      const std::optional<LogitsFileReader>& base) {
  if (!base) return read_chunks(options.text, tokenizer, options.n_ctx, options.max_chunks);
  const LogitsHeader& header = base->header();
  TextChunks chunks;
  chunks.n_ctx = header.n_ctx;
  chunks.bos = tokenizer.adds_bos() ? tokenizer.bos() : -1;
  chunks.tokens = header.tokens;
  if (options.max_chunks > 0 && options.max_chunks < header.n_chunks) {
    chunks.tokens.resize(static_cast<size_t>(options.max_chunks) *
                         static_cast<size_t>(header.n_ctx));
  }
  return chunks;
}

void check_vocabulary(const std::optional<LogitsFileReader>& base, int vocab_size,
                      const PerplexityOptions& options) {
  if (!base || base->header().n_vocab == vocab_size) return;
  throw Error(options.compare_to.string() + ": of a vocabulary of " +
              std::to_string(base->header().n_vocab) + ", the model has " +
              std::to_string(vocab_size) + ": it was made with another model");
}

/// Runs the chunks and scores them.
class Run {
 public:
  Run(const PerplexityOptions& options, const TextChunks& chunks, engine::TextPass& pass,
      std::optional<LogitsFileReader>& base, int n_threads)
      : chunks_(chunks), pass_(pass), base_(base), n_threads_(n_threads) {
    header_.n_ctx = chunks.n_ctx;
    header_.n_vocab = pass.vocab_size();
    header_.n_chunks = chunks.n_chunks();
    if (!options.save_base.empty()) {
      header_.tokens = chunks.tokens;
      writer_.emplace(options.save_base, header_);
    }
  }

  Report run(Console& console) {
    Report report;
    report.has_base = base_.has_value();
    for (int chunk = 0; chunk < chunks_.n_chunks(); ++chunk) {
      if (console.interrupted()) throw Error("interrupted");
      run_chunk(chunk, report);
      ++report.n_chunks;
      const std::string line = "chunk " + std::to_string(chunk + 1) + " of " +
                               std::to_string(chunks_.n_chunks()) +
                               format(", perplexity %.4f", report.perplexity());
      console.progress_lines({line}, line);
    }
    console.finish_progress();
    if (writer_) writer_->finish();
    return report;
  }

 private:
  void run_chunk(int chunk, Report& report) {
    const std::vector<int32_t> input = chunks_.input(chunk);
    const int n_ctx = chunks_.n_ctx;
    const int first = n_ctx / 2;
    pass_.run(input, first, [&](const engine::TextPass::Logits& logits) {
      // The chunk's last token foretells one that is not in it.
      const int n_rows =
          std::min(static_cast<int>(logits.rows.size()), n_ctx - 1 - logits.first_token);
      const size_t begin = report.scores.size();
      report.scores.resize(begin + static_cast<size_t>(std::max(n_rows, 0)));
      std::vector<uint16_t> codes;
      if (base_) codes = base_->read(std::max(n_rows, 0));
      if (writer_) codes.resize(static_cast<size_t>(std::max(n_rows, 0)) * header_.row_size());
      for_each_parallel(n_rows, n_threads_, [&](int i) {
        const auto idx = static_cast<size_t>(i);
        const int32_t token = input[static_cast<size_t>(logits.first_token + i + 1)];
        uint16_t* row = codes.data() + idx * header_.row_size();
        report.scores[begin + idx] =
            base_ ? score_against(logits.rows[idx], token, decode_logits(row))
                  : score(logits.rows[idx], token);
        if (writer_) encode_logits(logits.rows[idx], row);
      });
      if (writer_) writer_->write(codes);
    });
  }

  const TextChunks& chunks_;
  engine::TextPass& pass_;
  std::optional<LogitsFileReader>& base_;
  int n_threads_;
  LogitsHeader header_;
  std::optional<LogitsFileWriter> writer_;
};

}  // namespace

int perplexity(const Settings& settings, const PerplexityOptions& options, Console& console) {
  if (options.text.empty() && options.compare_to.empty()) {
    throw Error("no text: give --file TEXT, or --kl-divergence BASE");
  }
  if (!options.save_base.empty() && !options.compare_to.empty()) {
    throw Error("--save-base and --kl-divergence: one run makes a base or compares with one");
  }
  const gguf::GgufFile file = open_model_file(settings, options.model);
  if (!options.save_base.empty()) {
    gguf::check_out(options.save_base, {options.text},
                    options.force ? gguf::IfExists::kReplace : gguf::IfExists::kFail);
  }
  const auto tokenizer = engine::Tokenizer::from_gguf(file);
  std::optional<LogitsFileReader> base;
  if (!options.compare_to.empty()) base.emplace(options.compare_to);
  const TextChunks chunks = chunks_for(options, *tokenizer, base);

  engine::TextPassOptions pass_options;
  pass_options.n_ctx = chunks.n_ctx;
  pass_options.n_threads = options.n_threads > 0 ? options.n_threads : settings.n_threads;
  if (options.reference_kernels) pass_options.cpu_kernels = engine::CpuKernels::kReference;
  engine::TextPass pass(file, pass_options);
  check_vocabulary(base, pass.vocab_size(), options);

  console.clear_interrupt();
  const Report report =
      Run(options, chunks, pass, base, thread_count(pass_options.n_threads)).run(console);
  console.print(options.json ? json_of(report) : text_of(report));
  return 0;
}

}  // namespace dsctl::commands
