// The file of log-probabilities against which another quantisation of a model is compared, in
// llama-perplexity's form (--kl-divergence-base): "_logits_", i32 n_ctx, i32 n_vocab, i32 n_chunks,
// the chunks' tokens (i32), then for each scored token one row of u16: scale and smallest
// log-probability as two f32 (the first four places), then n_vocab codes, padded to an even number.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <vector>

namespace dsctl::commands {

struct LogitsHeader {
  int n_ctx = 0;
  int n_vocab = 0;
  int n_chunks = 0;
  std::vector<int32_t> tokens;  // (n_chunks, n_ctx), of the text: without BOS put in

  /// Tokens of a chunk that are scored: those of its second half but the last.
  int n_scored() const { return n_ctx - 1 - n_ctx / 2; }
  /// u16 places of a row.
  size_t row_size() const { return static_cast<size_t>(n_vocab + 1) / 2 * 2 + 4; }
};

/// log-probability of token i: scale * code[i] + min, a row of the file.
struct LogitsRow {
  float scale = 0;
  float min = 0;
  const uint16_t* codes = nullptr;  // (n_vocab)
};

/// Log-probabilities of `logits`, rounded to 16 bits over at most 16 below the largest; `row` takes
/// header.row_size() places.
void encode_logits(std::span<const float> logits, uint16_t* row);
LogitsRow decode_logits(const uint16_t* row);

/// Writes under a temporary name until `finish`; the destructor removes an unfinished file.
class LogitsFileWriter {
 public:
  LogitsFileWriter(const std::filesystem::path& path, const LogitsHeader& header);
  ~LogitsFileWriter();
  LogitsFileWriter(const LogitsFileWriter&) = delete;
  LogitsFileWriter& operator=(const LogitsFileWriter&) = delete;
  void write(std::span<const uint16_t> rows);
  void finish();

 private:
  std::filesystem::path path_;
  std::filesystem::path temp_path_;
  std::ofstream file_;
  bool is_finished_ = false;
};

class LogitsFileReader {
 public:
  /// Checks header, tokens and size. Throws Error naming the file and what is wrong.
  explicit LogitsFileReader(const std::filesystem::path& path);
  const LogitsHeader& header() const { return header_; }
  /// The next `n_rows` rows.
  std::vector<uint16_t> read(int n_rows);

 private:
  std::filesystem::path path_;
  std::ifstream file_;
  LogitsHeader header_;
};

}  // namespace dsctl::commands
