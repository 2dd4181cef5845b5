#include "commands/logits_file.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "commands/error.h"

namespace dsctl::commands {
namespace {

constexpr char kMagic[8] = {'_', 'l', 'o', 'g', 'i', 't', 's', '_'};

}  // namespace

void encode_logits(std::span<const float> logits, uint16_t* row) {
  const float max = *std::max_element(logits.begin(), logits.end());
  const float min = std::max(*std::min_element(logits.begin(), logits.end()), max - 16);
  double sum = 0;
  for (const float logit : logits)
    sum += std::exp(logit - max);
  const auto log_sum = static_cast<float>(std::log(sum));
  const float head[2] = {(max - min) / 65535.0F, min - max - log_sum};
  std::memcpy(row, head, sizeof(head));
  row += 4;
  const float inverse = head[0] != 0.0F ? 1.0F / head[0] : 0.0F;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float code = std::nearbyint(inverse * (logits[i] - min));
    row[i] = code > 0.0F ? static_cast<uint16_t>(std::min(code, 65535.0F)) : uint16_t{0};
  }
  if (logits.size() % 2 != 0) row[logits.size()] = 0;
}

LogitsRow decode_logits(const uint16_t* row) {
  LogitsRow decoded;
  std::memcpy(&decoded.scale, row, sizeof(float));
  std::memcpy(&decoded.min, row + 2, sizeof(float));
  decoded.codes = row + 4;
  return decoded;
}

LogitsFileWriter::LogitsFileWriter(const std::filesystem::path& path, const LogitsHeader& header)
    : path_(path), temp_path_(path.string() + ".tmp-" + std::to_string(::getpid())) {
  file_.open(temp_path_, std::ios::binary | std::ios::trunc);
  if (!file_) throw Error(path.string() + ": can't be written");
  const int32_t numbers[3] = {header.n_ctx, header.n_vocab, header.n_chunks};
  file_.write(kMagic, sizeof(kMagic));
  file_.write(reinterpret_cast<const char*>(numbers), sizeof(numbers));
  file_.write(reinterpret_cast<const char*>(header.tokens.data()),
              static_cast<std::streamsize>(header.tokens.size() * sizeof(int32_t)));
}

LogitsFileWriter::~LogitsFileWriter() {
  std::error_code ignored;
  if (!is_finished_) std::filesystem::remove(temp_path_, ignored);
}

void LogitsFileWriter::write(std::span<const uint16_t> rows) {
  file_.write(reinterpret_cast<const char*>(rows.data()),
              static_cast<std::streamsize>(rows.size_bytes()));
  if (!file_) throw Error(path_.string() + ": can't be written: is the disk full?");
}

void LogitsFileWriter::finish() {
  file_.close();
  if (!file_) throw Error(path_.string() + ": can't be written: is the disk full?");
  std::filesystem::rename(temp_path_, path_);
  is_finished_ = true;
}

LogitsFileReader::LogitsFileReader(const std::filesystem::path& path)
    : path_(path), file_(path, std::ios::binary) {
  if (!file_) throw Error(path.string() + ": can't be opened");
  char magic[sizeof(kMagic)] = {};
  int32_t numbers[3] = {};
  file_.read(magic, sizeof(magic));
  file_.read(reinterpret_cast<char*>(numbers), sizeof(numbers));
  if (!file_ || std::memcmp(magic, kMagic, sizeof(magic)) != 0) {
    throw Error(path.string() +
                ": does not begin with '_logits_': no file of --kl-divergence-base");
  }
  constexpr int kMaxCtx = 1 << 20;
  constexpr int kMaxVocab = 1 << 24;
  header_.n_ctx = numbers[0];
  header_.n_vocab = numbers[1];
  header_.n_chunks = numbers[2];
  if (numbers[0] < 4 || numbers[0] > kMaxCtx || numbers[1] < 1 || numbers[1] > kMaxVocab ||
      numbers[2] < 1) {
    throw Error(path.string() + ": context " + std::to_string(numbers[0]) + ", vocabulary " +
                std::to_string(numbers[1]) + ", chunks " + std::to_string(numbers[2]) +
                ": the file is damaged");
  }
  // Sizes against the file's before anything is allocated. They fit 64 bits: 2^31 * 2^20 * 2^25.
  const auto size = static_cast<double>(std::filesystem::file_size(path));
  const double n_tokens = static_cast<double>(numbers[2]) * numbers[0];
  const double expected = 20 + n_tokens * 4 +
                          static_cast<double>(numbers[2]) * header_.n_scored() *
                              static_cast<double>(header_.row_size()) * 2;
  if (size < expected) {
    throw Error(path.string() + ": " + std::to_string(static_cast<int64_t>(size)) +
                " bytes, expected " + std::to_string(static_cast<int64_t>(expected)) +
                ": the file is cut off");
  }
  header_.tokens.resize(static_cast<size_t>(n_tokens));
  file_.read(reinterpret_cast<char*>(header_.tokens.data()),
             static_cast<std::streamsize>(header_.tokens.size() * sizeof(int32_t)));
  const bool are_tokens = std::all_of(header_.tokens.begin(), header_.tokens.end(),
                                      [&](int32_t t) { return t >= 0 && t < header_.n_vocab; });
  if (!file_ || !are_tokens) {
    throw Error(path.string() + ": has tokens outside of its vocabulary: the file is damaged");
  }
}

std::vector<uint16_t> LogitsFileReader::read(int n_rows) {
  std::vector<uint16_t> rows(static_cast<size_t>(n_rows) * header_.row_size());
  file_.read(reinterpret_cast<char*>(rows.data()),
             static_cast<std::streamsize>(rows.size() * sizeof(uint16_t)));
  if (!file_) throw Error(path_.string() + ": ends early");
  return rows;
}

}  // namespace dsctl::commands
