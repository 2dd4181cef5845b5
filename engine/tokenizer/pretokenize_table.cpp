// The table of pre-tokenizers. The expressions are data of the published vocabularies (see
// tests/tokenizer/pretokenize_test.cpp, which compares them with the specification's list); they
// are written for PCRE2: where that differs, a comment says how.
#include <array>

#include "engine/tokenizer/pretokenize.h"

namespace dsctl::engine {

namespace {

#define DSCTL_CONTRACTION_ANY_CASE R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define DSCTL_WHITE_SPACE R"(\s*[\r\n]+|\s+(?!\S)|\s+)"

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr std::array kGpt2{kGpt2Pattern};
constexpr std::array<std::string_view, 2> kSingleDigits{R"(\p{N})", kGpt2Pattern};
constexpr std::array<std::string_view, 3> kFalcon{R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2Pattern,
                                                  "[0-9][0-9][0-9]"};
constexpr std::array<std::string_view, 4> kDefault{R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Pattern,
                                                   R"(\p{N}+)", "[0-9][0-9][0-9]"};

constexpr std::array<std::string_view, 1> kLlama3{
    DSCTL_CONTRACTION_ANY_CASE
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" DSCTL_WHITE_SPACE};
constexpr std::array<std::string_view, 1> kQwen2{
    DSCTL_CONTRACTION_ANY_CASE
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" DSCTL_WHITE_SPACE};

// Letters of the scripts that have case.
constexpr std::string_view kCasedLetters =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-)"
    R"(\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386})"
    R"(\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F})"
    R"(\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA})"
    R"(\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-)"
    R"(\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59})"
    R"(\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-)"
    R"(\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2})"
    R"(-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D})"
    R"(\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F})"
    R"(\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-)"
    R"(\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-)"
    R"(\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21})"
    R"(-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB})"
    R"(\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+)";

// The specification has \s+$ as the fourth: the look-behind gives the same matches (the leftmost
// match always begins where its run begins) without trying every place of a long run.
constexpr std::array<std::string_view, 6> kDeepseekLlm{
    R"([\r\n])",
    kCasedLetters,
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)",
    R"((?<!\s)\s++$)",
    R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)",
    R"(\p{N}+)"};
constexpr std::array<std::string_view, 5> kDeepseekCoder{
    R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
    R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)", R"(\p{N})"};
constexpr std::array<std::string_view, 3> kDeepseekV3{
    R"(\p{N}{1,3})", R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
    R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)" DSCTL_WHITE_SPACE};

// A word: an optional foreign character, then Upper* Lower+ or Upper+ Lower*, where letters without
// case and marks are both.
#define DSCTL_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define DSCTL_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define DSCTL_FOREIGN R"([^\r\n\p{L}\p{N}]?)"

constexpr std::array<std::string_view, 1> kTekken{
    DSCTL_FOREIGN DSCTL_UPPER "*" DSCTL_LOWER "+|" DSCTL_FOREIGN DSCTL_UPPER "+" DSCTL_LOWER
                              R"(*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" DSCTL_WHITE_SPACE};
constexpr std::array<std::string_view, 1> kGpt4o{
    DSCTL_FOREIGN DSCTL_UPPER
    "*" DSCTL_LOWER "+" DSCTL_CONTRACTION_ANY_CASE "?|" DSCTL_FOREIGN DSCTL_UPPER "+" DSCTL_LOWER
    "*" DSCTL_CONTRACTION_ANY_CASE R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" DSCTL_WHITE_SPACE};

// The specification intersects the classes (&&[^\p{Han}]), which PCRE2 10.42 cannot. Each is
// written as what it is not: all other categories, and Han.
#define DSCTL_UPPER_NOT_HAN R"([^\p{Ll}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{Han}])"
#define DSCTL_LOWER_NOT_HAN R"([^\p{Lu}\p{Lt}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{Han}])"

constexpr std::array<std::string_view, 1> kKimiK2{
    R"([\p{Han}]+|)" DSCTL_FOREIGN DSCTL_UPPER_NOT_HAN "*" DSCTL_LOWER_NOT_HAN
    "+" DSCTL_CONTRACTION_ANY_CASE "?|" DSCTL_FOREIGN DSCTL_UPPER_NOT_HAN "+" DSCTL_LOWER_NOT_HAN
    "*" DSCTL_CONTRACTION_ANY_CASE R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" DSCTL_WHITE_SPACE};

// … 。 ， 、 । ۔ ، and the ASCII ones; the parentheses and the bar stand in the published class.
constexpr std::string_view kBloomPattern =
    R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+)";
constexpr std::array kBloom{kBloomPattern};
constexpr std::array<std::string_view, 2> kViking{kBloomPattern, R"(\p{N})"};

// Of models newer than the specification's list.
constexpr std::array<std::string_view, 1> kQwen35{
    DSCTL_CONTRACTION_ANY_CASE
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)" DSCTL_WHITE_SPACE};
constexpr std::array<std::string_view, 1> kSeedCoder{
    DSCTL_CONTRACTION_ANY_CASE
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)" DSCTL_WHITE_SPACE};
constexpr std::array<std::string_view, 1> kBailing{
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*)"
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)"};
constexpr std::array<std::string_view, 2> kMiniCpm5{
    R"(\p{N}{1,3})", DSCTL_CONTRACTION_ANY_CASE
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|)" DSCTL_WHITE_SPACE};
constexpr std::array<std::string_view, 6> kChameleon{
    R"(<sentinel:[0-9]+>)",    R"(IMGIMG[A-I]{1,4}Z)",
    R"([\t\n]|    |  )",       R"(\p{N})",
    R"([\p{P}!-/:-@\[-`{-~])", kGpt2Pattern};

constexpr PreTokenizerSpec kPreTokenizers[] = {
    {.name = "llama3", .regexes = kLlama3, .ignore_merges = true, .adds_bos = true},
    {.name = "llama-v3", .regexes = kLlama3, .ignore_merges = true, .adds_bos = true},
    {.name = "llama-bpe", .regexes = kLlama3, .ignore_merges = true, .adds_bos = true},
    {.name = "falcon3", .regexes = kLlama3, .ignore_merges = true, .adds_bos = true},
    {.name = "pixtral", .regexes = kLlama3, .ignore_merges = true, .adds_bos = true},
    {.name = "dbrx", .regexes = kLlama3},
    {.name = "smaug-bpe", .regexes = kLlama3},
    {.name = "chatglm-bpe", .regexes = kLlama3},
    {.name = "glm4", .regexes = kLlama3},
    {.name = "qwen2", .regexes = kQwen2},
    {.name = "deepseek-r1-qwen", .regexes = kQwen2},
    {.name = "stablelm2", .regexes = kQwen2},
    {.name = "megrez", .regexes = kQwen2},
    {.name = "hunyuan", .regexes = kQwen2},
    {.name = "deepseek-llm", .regexes = kDeepseekLlm},
    {.name = "deepseek-coder", .regexes = kDeepseekCoder},
    {.name = "deepseek-v3", .regexes = kDeepseekV3},
    {.name = "hunyuan-dense", .regexes = kDeepseekV3},
    {.name = "falcon", .regexes = kFalcon},
    {.name = "mpt", .regexes = kGpt2},
    {.name = "gpt-2", .regexes = kGpt2},
    {.name = "phi-2", .regexes = kGpt2},
    {.name = "jina-es", .regexes = kGpt2},
    {.name = "jina-de", .regexes = kGpt2},
    {.name = "gigachat", .regexes = kGpt2},
    {.name = "jina-v1-en", .regexes = kGpt2},
    {.name = "jina-v2-es", .regexes = kGpt2},
    {.name = "jina-v2-de", .regexes = kGpt2},
    {.name = "jina-v2-code", .regexes = kGpt2},
    {.name = "roberta-bpe", .regexes = kGpt2},
    {.name = "olmo", .regexes = kGpt2},
    {.name = "jais", .regexes = kGpt2},
    {.name = "trillion", .regexes = kGpt2},
    {.name = "granite-docling", .regexes = kGpt2},
    {.name = "starcoder", .regexes = kSingleDigits},
    {.name = "refact", .regexes = kSingleDigits},
    {.name = "codeshell", .regexes = kSingleDigits},
    {.name = "minerva-7b", .regexes = kSingleDigits},
    {.name = "exaone", .regexes = kSingleDigits},
    {.name = "smollm", .regexes = kSingleDigits},
    {.name = "command-r", .regexes = kSingleDigits},
    {.name = "tekken", .regexes = kTekken, .ignore_merges = true, .adds_bos = true},
    {.name = "gpt-4o", .regexes = kGpt4o},
    {.name = "llama4", .regexes = kGpt4o},
    {.name = "minimax-m2", .regexes = kGpt4o},
    {.name = "kimi-k2", .regexes = kKimiK2},
    {.name = "poro-chat", .regexes = kBloom},
    {.name = "bloom", .regexes = kBloom},
    {.name = "gpt3-finnish", .regexes = kBloom},
    {.name = "viking", .regexes = kViking},
    {.name = "default", .regexes = kDefault},
    {.name = "", .regexes = kDefault},
    // Newer names, as llama.cpp reads them.
    {.name = "falcon-h1", .regexes = kLlama3, .ignore_merges = true, .adds_bos = true},
    {.name = "midm-2.0", .regexes = kLlama3, .ignore_merges = true, .adds_bos = true},
    {.name = "lfm2", .regexes = kLlama3, .ignore_merges = true, .adds_bos = true},
    {.name = "jina-v5-nano", .regexes = kLlama3, .ignore_merges = true, .adds_bos = true},
    {.name = "kormo", .regexes = kQwen2},
    {.name = "f2llmv2", .regexes = kQwen2},
    {.name = "solar-open", .regexes = kQwen2},
    {.name = "grok-2", .regexes = kQwen2},
    {.name = "a.x-4.0", .regexes = kGpt2},
    {.name = "mellum", .regexes = kGpt2},
    {.name = "modern-bert", .regexes = kGpt2},
    {.name = "exaone4", .regexes = kGpt2},
    {.name = "mellum2", .regexes = kSingleDigits},
    {.name = "joyai-llm", .regexes = kDeepseekV3},
    {.name = "hy_v4", .regexes = kDeepseekV3},
    {.name = "kanana2", .regexes = kGpt4o},
    {.name = "talkie", .regexes = kGpt4o},
    {.name = "qwen35", .regexes = kQwen35},
    {.name = "seed-coder", .regexes = kSeedCoder},
    {.name = "bailingmoe", .regexes = kBailing},
    {.name = "bailingmoe2", .regexes = kBailing},
    {.name = "llada-moe", .regexes = kBailing},
    {.name = "minicpm5", .regexes = kMiniCpm5, .ignore_merges = true},
    {.name = "chameleon", .regexes = kChameleon, .adds_bos = true},
};

}  // namespace

const PreTokenizerSpec* find_pre_tokenizer(std::string_view name) {
  for (const PreTokenizerSpec& spec : kPreTokenizers) {
    if (spec.name == name) return &spec;
  }
  return nullptr;
}

std::span<const PreTokenizerSpec> all_pre_tokenizers() {
  return kPreTokenizers;
}

}  // namespace dsctl::engine
