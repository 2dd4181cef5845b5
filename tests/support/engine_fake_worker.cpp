#include "tests/support/engine_fake_worker.h"

#include <algorithm>
#include <set>
#include <utility>

#include "engine/philox.h"

namespace dsctl::tests {

using engine::Batch;
using engine::SampledToken;

std::vector<float> fake_logits(std::span<const int32_t> history, int vocab_size) {
  uint64_t hash = 0;
  for (const int32_t token : history) {
    const auto words =
        engine::philox4x32({static_cast<uint32_t>(token), static_cast<uint32_t>(hash),
                            static_cast<uint32_t>(hash >> 32), 0},
                           1);
    hash = (uint64_t{words[0]} << 32) | words[1];
  }
  std::vector<float> logits(static_cast<size_t>(vocab_size));
  for (uint32_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(engine::philox4x32({i, 0, 0, 1}, hash)[0] >> 8) * 0x1p-21f;
  }
  return logits;
}

engine::ModelLimits fake_limits(int n_kv_blocks, int block_size, int max_model_len,
                                std::vector<int32_t> eog_token_ids) {
  engine::ModelLimits limits;
  limits.vocab_size = 50;
  limits.max_model_len = max_model_len;
  limits.block_size = block_size;
  limits.n_kv_blocks = n_kv_blocks;
  limits.eog_token_ids = std::move(eog_token_ids);
  limits.device = "fake";
  limits.weight_bytes = 11;
  limits.kv_bytes = 22;
  return limits;
}

FakeWorker::FakeWorker(FakeModel model, std::vector<std::string>* violations)
    : model_(std::move(model)),
      violations_(*violations),
      slots_(static_cast<size_t>(model_.limits.n_kv_blocks) *
             static_cast<size_t>(model_.limits.block_size)),
      sampler_(model_.limits.vocab_size) {}

void FakeWorker::require(bool holds, const std::string& what) {
  if (!holds && violations_.size() < 20) violations_.push_back(what);
}

bool FakeWorker::is_well_formed(const Batch& batch) {
  const size_t before = violations_.size();
  const auto n_tokens = static_cast<size_t>(batch.n_tokens());
  const auto n_seqs = static_cast<size_t>(batch.n_seqs());
  require(n_tokens > 0 && n_seqs > 0, "an empty step");
  require(batch.positions.size() == n_tokens, "positions: wrong size");
  require(batch.slot_mapping.size() == n_tokens, "slot_mapping: wrong size");
  require(batch.query_starts.size() == n_seqs + 1, "query_starts: wrong size");
  require(batch.block_tables.size() == n_seqs * static_cast<size_t>(batch.max_blocks_per_seq),
          "block_tables: wrong size");
  if (violations_.size() > before) return false;
  require(batch.query_starts.front() == 0 && batch.query_starts.back() == batch.n_tokens(),
          "query_starts: wrong ends");
  const std::set<int32_t> distinct(batch.slot_mapping.begin(), batch.slot_mapping.end());
  require(distinct.size() == n_tokens, "slot_mapping: a slot is written twice in a step");
  for (size_t i = 0; i < n_seqs; ++i) {
    require(batch.query_starts[i] < batch.query_starts[i + 1], "a sequence without tokens");
  }
  for (size_t i = 0; i < batch.sample_rows.size(); ++i) {
    const int row = batch.sample_rows[i].token_idx;
    require(row >= 0 && row < batch.n_tokens(), "sample_rows: row outside the batch");
    require(i == 0 || batch.sample_rows[i - 1].token_idx < row, "sample_rows: not ascending");
    require(std::find(batch.query_starts.begin(), batch.query_starts.end(), row + 1) !=
                batch.query_starts.end(),
            "sample_rows: not the last row of a sequence");
  }
  return violations_.size() == before;
}

void FakeWorker::write(const Batch& batch) {
  const int block_size = model_.limits.block_size;
  for (int seq = 0; seq < batch.n_seqs(); ++seq) {
    const auto s = static_cast<size_t>(seq);
    const int32_t* table =
        batch.block_tables.data() + s * static_cast<size_t>(batch.max_blocks_per_seq);
    const int n_rows = batch.query_starts[s + 1] - batch.query_starts[s];
    for (int row = batch.query_starts[s]; row < batch.query_starts[s + 1]; ++row) {
      const auto r = static_cast<size_t>(row);
      const int32_t position = batch.positions[r];
      const int32_t expected = batch.context_lens[s] - n_rows + (row - batch.query_starts[s]);
      require(position == expected, "positions: not the last ones of the context");
      const int32_t slot = table[position / block_size] * block_size + position % block_size;
      require(batch.slot_mapping[r] == slot, "slot_mapping: not the table's slot");
      slots_.at(static_cast<size_t>(batch.slot_mapping[r])) = {.token = batch.token_ids[r],
                                                               .position = position};
    }
  }
}

std::vector<int32_t> FakeWorker::read_history(const Batch& batch, int seq_idx) {
  const int block_size = model_.limits.block_size;
  const auto s = static_cast<size_t>(seq_idx);
  const int32_t* table =
      batch.block_tables.data() + s * static_cast<size_t>(batch.max_blocks_per_seq);
  std::vector<int32_t> history;
  for (int32_t position = 0; position < batch.context_lens[s]; ++position) {
    const auto slot =
        static_cast<size_t>(table[position / block_size] * block_size + position % block_size);
    require(slots_.at(slot).position == position, "the KV cache holds another position");
    history.push_back(slots_.at(slot).token);
  }
  return history;
}

std::vector<SampledToken> FakeWorker::run(const Batch& batch) {
  if (model_.on_step) model_.on_step(batch);
  std::vector<SampledToken> result(batch.sample_rows.size());
  if (!is_well_formed(batch)) return result;
  write(batch);
  size_t n_sampled = 0;
  for (int seq = 0; seq < batch.n_seqs(); ++seq) {
    const int last_row = batch.query_starts[static_cast<size_t>(seq) + 1] - 1;
    if (n_sampled == batch.sample_rows.size()) break;
    const engine::SampleRow& row = batch.sample_rows[n_sampled];
    if (row.token_idx != last_row) continue;
    const auto history = read_history(batch, seq);
    require(history == *row.history, "the KV cache holds other tokens than the request");
    auto logits = fake_logits(history, model_.limits.vocab_size);
    result[n_sampled++] = sampler_.sample(logits, row);
  }
  require(n_sampled == batch.sample_rows.size(), "sample_rows: some belong to no sequence");
  if (model_.on_result) model_.on_result(batch, result);
  return result;
}

}  // namespace dsctl::tests
