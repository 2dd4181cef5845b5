#include "engine/gpu_cards.h"

#include "engine/error.h"
#include "tests/support/catch.h"

namespace dsctl::engine {
namespace {

using Catch::Contains;

TEST_CASE("Cards are found by the names of people, shops and drivers") {
  const auto name_of = [](std::string_view name) {
    const GpuCard* card = find_card(name);
    return card ? std::string(card->name) : std::string("none");
  };
  CHECK(name_of("h800") == "H800");
  CHECK(name_of("NVIDIA H100 80GB HBM3") == "H100");
  CHECK(name_of("NVIDIA H100 PCIe") == "H100 PCIe");
  CHECK(name_of("NVIDIA H200") == "H200");
  CHECK(name_of("NVIDIA A100-SXM4-80GB") == "A100");
  CHECK(name_of("NVIDIA A100 80GB PCIe") == "none");  // slower: not guessed
  CHECK(name_of("a100-40gb") == "A100-40GB");
  CHECK(name_of("NVIDIA A100-SXM4-40GB") == "A100-40GB");
  CHECK(name_of("NVIDIA GeForce RTX 3090") == "RTX 3090");
  CHECK(name_of("3090") == "RTX 3090");
  CHECK(name_of("rtx-3090 ti") == "RTX 3090 Ti");
  CHECK(name_of("RTX 4090") == "RTX 4090");
  CHECK(name_of("Tesla V100-SXM2-32GB") == "V100");
  CHECK(name_of("Tesla V100-SXM2-16GB") == "V100-16GB");
  CHECK(name_of("NVIDIA L40S") == "L40S");
  CHECK(name_of("GTX 1650") == "GTX 1650");
  CHECK(name_of("H") == "none");
  CHECK(name_of("") == "none");
}

TEST_CASE("Every known card is found by its own name") {
  for (const GpuCard& card : known_cards()) {
    CHECK(find_card(card.name) == &card);
    CHECK(card.memory_gib > 0);
    CHECK(card.bandwidth_gb_s > 100);
  }
}

TEST_CASE("A machine's GPUs are given by number and name, or by their figures") {
  CHECK(parse_gpus("8xH800").size() == 8);
  CHECK(parse_gpus("8xH800")[7].bandwidth_gb_s == 3350);
  CHECK(parse_gpus("h200").size() == 1);
  CHECK(parse_gpus("3090").size() == 1);  // not three thousand of something
  CHECK(parse_gpus("2x3090").size() == 2);
  const auto figures = parse_gpus("4x24GB@936.5");
  REQUIRE(figures.size() == 4);
  CHECK(figures[0].memory_bytes == int64_t{24} << 30);
  CHECK(figures[0].bandwidth_gb_s == 936.5);
  CHECK(parse_gpus("0.5GiB")[0].memory_bytes == int64_t{1} << 29);
  for (const char* text : {"", "8x", "0xH100", "9999xH100", "8xVoodoo", "x", "2x-5GB", "2xnanGB",
                           "2x24GB@", "2x24GB@0", "99999999999999xH100", "1xinfGB", "2x1e300GB"}) {
    INFO(text);
    CHECK_THROWS_AS(parse_gpus(text), Error);
  }
  CHECK_THROWS_WITH(parse_gpus("8xVoodoo"), Contains("known are") && Contains("H800"));
}

}  // namespace
}  // namespace dsctl::engine
