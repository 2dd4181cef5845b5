// The arithmetic of `bench`: means, percentiles, rates, bytes that a step reads.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model_footprint.h"

namespace dsctl::commands {

/// What samples look like; all zero without any.
struct Distribution {
  int n = 0;
  double mean = 0;
  double stddev = 0;  // of the sample: divided by n - 1
  double min = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double max = 0;
};
Distribution summarize(std::vector<double> samples);

/// The value below which `part` (0 to 1) of the samples lie, in between two of them by their
/// distance: numpy's "linear". `sorted` ascends and is not empty.
double percentile(std::span<const double> sorted, double part);

/// Bytes of weights that one step of `n_seqs` tokens reads: every matrix once. Of routed experts
/// those that so many tokens choose together, on average, when each chooses evenly.
double step_weight_bytes(const engine::ModelFootprint& model, int n_seqs);

/// Bytes of the cache that generating reads in a step, on average over `n_tokens` tokens after
/// `depth`: of each sequence its context, of layers with a window what the window shows.
/// `kv_bytes_per_token` is what all layers keep of a token.
double step_kv_bytes(const engine::ModelFootprint& model, int64_t kv_bytes_per_token, int n_seqs,
                     int depth, int n_tokens);

/// Whole numbers and ranges with commas between: "1,2,8", "128-512+128" (128, 256, 384, 512),
/// "1-8*2" (1, 2, 4, 8), as llama-bench has them. Throws Error naming `flag`.
std::vector<int> parse_number_list(const std::string& text, const std::string& flag, int min,
                                   int max);

/// The most memory this process has had, in bytes; 0: unknown.
int64_t peak_memory_bytes();
/// Has the most memory counted anew from what the process has now, where the system lets it.
void reset_peak_memory();

}  // namespace dsctl::commands
