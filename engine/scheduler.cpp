#include "engine/scheduler.h"

#include <algorithm>
#include <cassert>

namespace dsctl::engine {
namespace {

/// Prompts that are computed side by side even if the oldest alone could fill the step, so that a
/// short one behind a long one is not held up.
constexpr size_t kMinPrefills = 4;

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, BlockManager* blocks)
    : options_(options), blocks_(*blocks) {
  assert(options.max_num_seqs > 0 && options.max_num_batched_tokens >= options.max_num_seqs);
}

void Scheduler::add(Sequence* sequence) {
  assert(!sequence->tokens.empty());
  assert(blocks_.n_blocks_for(sequence->max_len) <= blocks_.n_blocks());
  waiting_.insert(waiting_.end(), sequence);
}

void Scheduler::remove(Sequence* sequence) {
  waiting_.erase(sequence);
  running_.erase(sequence);
  blocks_.release(sequence->table);
}

const Batch& Scheduler::schedule() {
  scheduled_.clear();
  preempted_ = false;
  int budget = options_.max_num_batched_tokens;
  budget -= schedule_decodes(budget);
  admit(budget);
  schedule_prefills(budget);
  lay_out();
  assert(blocks_.n_free() + blocks_.n_used() == blocks_.n_blocks());
  assert(!scheduled_.empty() || (waiting_.empty() && running_.empty()));
  return batch_;
}

/// Schedules the next token of each sequence that lacks just one; returns how many.
int Scheduler::schedule_decodes(int budget) {
  int n_decodes = 0;
  // Oldest first: whoever is preempted is younger, so not scheduled yet, and erasing it leaves the
  // iterator of an older one valid.
  for (auto next = running_.begin(); next != running_.end() && n_decodes < budget;) {
    Sequence* sequence = *next;
    if (sequence->n_pending() != 1) {
      ++next;
      continue;
    }
    bool has_block = blocks_.grow(sequence->table, sequence->n_tokens());
    while (!has_block) {
      Sequence* youngest = *running_.rbegin();
      if (youngest == sequence) break;
      preempt(youngest);
      has_block = blocks_.grow(sequence->table, sequence->n_tokens());
    }
    ++next;
    if (!has_block) {
      preempt(sequence);
      break;
    }
    sequence->n_scheduled = 1;
    scheduled_.push_back(sequence);
    ++n_decodes;
  }
  return n_decodes;
}

/// Moves waiting sequences to the running ones while there are tokens left in the step for them,
/// a place, and blocks for all of their tokens. A block for each running one stays in reserve:
/// whoever is admitted should not be preempted in the next step.
void Scheduler::admit(int budget) {
  int n_pending = 0;
  size_t n_prefills = 0;
  for (const Sequence* sequence : running_) {
    if (sequence->n_pending() == 1) continue;
    n_pending += sequence->n_pending();
    ++n_prefills;
  }
  while (!waiting_.empty() && !preempted_ && n_running() < options_.max_num_seqs) {
    if (n_pending >= budget && n_prefills >= kMinPrefills) break;
    if (static_cast<int>(n_prefills) >= budget) break;
    Sequence* sequence = *waiting_.begin();
    const auto n_cached =
        blocks_.allocate(sequence->tokens, n_running(), sequence->table, sequence->prefix_use());
    if (!n_cached) break;
    waiting_.erase(waiting_.begin());
    running_.insert(running_.end(), sequence);
    sequence->n_computed = *n_cached;
    if (!sequence->was_admitted) sequence->n_cached = *n_cached;
    sequence->was_admitted = true;
    n_pending += sequence->n_pending();
    ++n_prefills;
  }
}

void Scheduler::schedule_prefills(int budget) {
  prefills_.clear();
  for (Sequence* sequence : running_) {
    if (sequence->n_scheduled == 0) prefills_.push_back(sequence);
  }
  for (size_t i = 0; i < prefills_.size(); ++i) {
    const int share = i + 1 < prefills_.size() ? (budget + 1) / 2 : budget;
    prefills_[i]->n_scheduled = std::min(prefills_[i]->n_pending(), share);
    budget -= prefills_[i]->n_scheduled;
  }
  for (Sequence* sequence : prefills_) {
    const int n_more = std::min(sequence->n_pending() - sequence->n_scheduled, budget);
    sequence->n_scheduled += n_more;
    budget -= n_more;
    if (sequence->n_scheduled > 0) scheduled_.push_back(sequence);
  }
}

void Scheduler::preempt(Sequence* sequence) {
  assert(sequence->n_scheduled == 0);
  blocks_.release(sequence->table);
  sequence->n_computed = 0;
  running_.erase(sequence);
  waiting_.insert(sequence);
  preempted_ = true;
  ++n_preemptions_;
}

void Scheduler::lay_out() {
  batch_.token_ids.clear();
  batch_.positions.clear();
  batch_.slot_mapping.clear();
  batch_.query_starts.assign(1, 0);
  batch_.context_lens.clear();
  batch_.sample_rows.clear();
  batch_.state_rows.clear();
  sampled_.clear();
  batch_.max_blocks_per_seq = 0;
  const int block_size = blocks_.block_size();
  for (Sequence* sequence : scheduled_) {
    const int end = sequence->n_computed + sequence->n_scheduled;
    for (int position = sequence->n_computed; position < end; ++position) {
      const int32_t block_id =
          sequence->table.block_ids[static_cast<size_t>(position / block_size)];
      if (sequence->pooling && pooling_reads(*sequence->pooling, position, sequence->n_prompt)) {
        batch_.state_rows.push_back(batch_.n_tokens());
      }
      batch_.token_ids.push_back(sequence->tokens[static_cast<size_t>(position)]);
      batch_.positions.push_back(position);
      batch_.slot_mapping.push_back(block_id * block_size + position % block_size);
    }
    batch_.query_starts.push_back(batch_.n_tokens());
    batch_.context_lens.push_back(end);
    batch_.max_blocks_per_seq = std::max(batch_.max_blocks_per_seq, blocks_.n_blocks_for(end));
    if (end == sequence->n_tokens() && sequence->wants_tokens) add_sample_row(*sequence);
  }
  const auto width = static_cast<size_t>(batch_.max_blocks_per_seq);
  batch_.block_tables.assign(scheduled_.size() * width, -1);
  for (size_t i = 0; i < scheduled_.size(); ++i) {
    // A prompt's later blocks are allocated, but hold nothing yet.
    std::copy_n(scheduled_[i]->table.block_ids.begin(),
                blocks_.n_blocks_for(batch_.context_lens[i]),
                batch_.block_tables.begin() + static_cast<ptrdiff_t>(i * width));
  }
}

/// The last row laid out so far is to be sampled.
void Scheduler::add_sample_row(Sequence& sequence) {
  SampleRow row;
  row.token_idx = batch_.n_tokens() - 1;
  row.request_id = sequence.id;
  row.params = &sequence.sampling;
  row.history = &sequence.tokens;
  row.n_prompt = sequence.n_prompt;
  row.seed = sequence.seed;
  row.mirostat_mu = sequence.mirostat_mu;
  const auto& banned =
      sequence.n_generated() < sequence.min_tokens ? sequence.banned_early : sequence.banned_always;
  row.banned = banned.empty() ? nullptr : &banned;
  row.dry_breakers = sequence.dry_breakers.get();
  row.grammar = sequence.grammar.get();
  batch_.sample_rows.push_back(row);
  sampled_.push_back(&sequence);
}

void Scheduler::complete() {
  for (Sequence* sequence : scheduled_) {
    sequence->n_computed += sequence->n_scheduled;
    sequence->n_scheduled = 0;
    blocks_.commit(sequence->tokens, sequence->n_computed, sequence->table);
  }
}

void Scheduler::abandon() {
  for (Sequence* sequence : scheduled_)
    sequence->n_scheduled = 0;
}

}  // namespace dsctl::engine
