// Known graphics cards: memory and bandwidth as their data sheets give them, to plan for machines
// that are not here.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::engine {

struct GpuCard {
  std::string_view name;  // "H100"
  int memory_gib = 0;
  int bandwidth_gb_s = 0;  // of its memory, 10^9 bytes a second
  bool is_alone = false;   // one to a machine
};

/// By rising memory. Where a card has variants the plain name is the common one.
std::span<const GpuCard> known_cards();

/// The card called `name`, as people write it ("h800", "RTX 3090", "a100-80gb") or a driver does
/// ("NVIDIA H100 80GB HBM3"); null when it is not known.
const GpuCard* find_card(std::string_view name);

/// One GPU of a machine to plan for.
struct GpuSpec {
  std::string name;
  int64_t memory_bytes = 0;
  double bandwidth_gb_s = 0;  // 0: not known
};

/// Reads "8xH800", "H200", "2xA100-40GB", or for a card without a name "4x24GB" and "4x24GB@936"
/// (gibibytes, gigabytes a second). Throws Error saying what is wrong and which cards are known.
std::vector<GpuSpec> parse_gpus(std::string_view text);

}  // namespace dsctl::engine
