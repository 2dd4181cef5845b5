#include "engine/gpu_cards.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/error.h"

namespace dsctl::engine {
namespace {

constexpr int kMaxGpus = 1024;
constexpr int64_t kGib = int64_t{1} << 30;

// NVIDIA's data sheets; memory as the card is sold. Of equal memory the first is suggested.
constexpr GpuCard kCards[] = {
    {"GTX 1650", 4, 128},     {"RTX 3050", 8, 224},       {"RTX 3060 Ti", 8, 448},
    {"RTX 3070", 8, 448},     {"RTX 4060", 8, 272},       {"RTX 3080", 10, 760},
    {"RTX 2080 Ti", 11, 616}, {"RTX 3060", 12, 360},      {"RTX 3080 Ti", 12, 912},
    {"RTX 4070", 12, 504},    {"RTX 4070 Ti", 12, 504},   {"RTX 5070", 12, 672},
    {"T4", 16, 320},          {"V100-16GB", 16, 900},     {"RTX 4060 Ti", 16, 288},
    {"RTX 4080", 16, 717},    {"RTX 5070 Ti", 16, 896},   {"RTX 5080", 16, 960},
    {"RTX 3090", 24, 936},    {"A10", 24, 600},           {"A30", 24, 933},
    {"L4", 24, 300},          {"RTX 3090 Ti", 24, 1008},  {"RTX 4090", 24, 1008},
    {"RTX 5090", 32, 1792},   {"V100", 32, 900},          {"A100-40GB", 40, 1555},
    {"A40", 48, 696},         {"A6000", 48, 768},         {"L20", 48, 864},
    {"L40", 48, 864},         {"L40S", 48, 864},          {"RTX 6000 Ada", 48, 960},
    {"A100", 80, 2039},       {"A800", 80, 2039},         {"H100 PCIe", 80, 2000},
    {"H100", 80, 3350},       {"H800", 80, 3350},         {"H100 NVL", 94, 3938},
    {"H20", 96, 4000},        {"RTX PRO 6000", 96, 1792}, {"GB10", 128, 273, true},
    {"H200", 141, 4800},      {"B200", 180, 8000},        {"B300", 288, 8000},
};

/// Letters and digits only, in small: "RTX 3090" and "rtx-3090" are one name.
std::string fold(std::string_view name) {
  std::string folded;
  for (const char c : name) {
    if (c >= 'A' && c <= 'Z') folded += static_cast<char>(c - 'A' + 'a');
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) folded += c;
  }
  return folded;
}

bool remove_prefix(std::string& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.erase(0, prefix.size());
  return true;
}

/// What a driver or a shop adds to a card's name.
std::string strip_decoration(std::string name) {
  for (const char* prefix : {"nvidia", "geforce", "tesla", "quadro"})
    remove_prefix(name, prefix);
  for (const char* noise : {"sxm2", "sxm3", "sxm4", "sxm5", "sxm", "hbm3e", "hbm3", "hbm2e", "hbm2",
                            "blackwell", "workstationedition", "serveredition"}) {
    const size_t at = name.find(noise);
    if (at != std::string::npos) name.erase(at, std::string_view(noise).size());
  }
  return name;
}

/// "24GB" or "24GiB" at the start of `text`.
std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool sound = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  return sound && std::isfinite(value) && value > 0 ? std::optional(value) : std::nullopt;
}

/// A card given by its numbers: "24GB@936".
std::optional<GpuSpec> parse_numbers(std::string_view text) {
  const size_t at = text.find('@');
  std::string_view size = text.substr(0, at);
  for (const std::string_view unit : {"GiB", "GB", "gib", "gb", "G", "g"}) {
    if (!size.ends_with(unit)) continue;
    const auto gib = parse_number(size.substr(0, size.size() - unit.size()));
    if (!gib || *gib > 1e6) return std::nullopt;
    GpuSpec gpu;
    gpu.name = std::string(size) + " GPU";
    gpu.memory_bytes = static_cast<int64_t>(*gib * static_cast<double>(kGib));
    if (at == std::string_view::npos) return gpu;
    const auto bandwidth = parse_number(text.substr(at + 1));
    if (!bandwidth || *bandwidth > 1e7) return std::nullopt;
    gpu.bandwidth_gb_s = *bandwidth;
    return gpu;
  }
  return std::nullopt;
}

std::string card_names() {
  std::string names;
  for (const GpuCard& card : kCards)
    names += (names.empty() ? "" : ", ") + std::string(card.name);
  return names;
}

}  // namespace

std::span<const GpuCard> known_cards() {
  return kCards;
}

const GpuCard* find_card(std::string_view name) {
  const std::string wanted = strip_decoration(fold(name));
  const GpuCard* found = nullptr;
  for (const GpuCard& card : kCards) {
    const std::string folded = fold(card.name);
    const std::string short_name =
        folded.starts_with("rtx") || folded.starts_with("gtx") ? folded.substr(3) : folded;
    const std::string sized = folded + std::to_string(card.memory_gib) + "gb";
    // "A100PCIE80GB": the size behind other words.
    const std::string pcie = folded + "pcie" + std::to_string(card.memory_gib) + "gb";
    if (wanted == folded || wanted == short_name || wanted == sized || wanted == pcie ||
        wanted == folded + "generation" || wanted == folded + "pcie")
      found = &card;
    if (wanted == folded || wanted == sized) return &card;
  }
  return found;
}

std::vector<GpuSpec> parse_gpus(std::string_view text) {
  int count = 1;
  std::string_view card_text = text;
  const size_t x = text.find_first_not_of("0123456789");
  if (x != std::string_view::npos && x > 0 &&
      (text[x] == 'x' || text[x] == 'X' || text[x] == '*')) {
    const auto parsed = std::from_chars(text.data(), text.data() + x, count);
    if (parsed.ec != std::errc() || count < 1 || count > kMaxGpus) {
      throw Error("\"" + std::string(text) + "\": expected 1 to " + std::to_string(kMaxGpus) +
                  " GPUs");
    }
    card_text = text.substr(x + 1);
  }
  GpuSpec gpu;
  if (const auto numbers = parse_numbers(card_text)) {
    gpu = *numbers;
  } else if (const GpuCard* card = find_card(card_text)) {
    gpu = {std::string(card->name), card->memory_gib * kGib,
           static_cast<double>(card->bandwidth_gb_s)};
  } else {
    throw Error("\"" + std::string(text) +
                "\" is no known GPU; write NxNAME, or NxMEMORY@BANDWIDTH such as 4x24GB@936; known "
                "are " +
                card_names());
  }
  return std::vector<GpuSpec>(static_cast<size_t>(count), gpu);
}

}  // namespace dsctl::engine
