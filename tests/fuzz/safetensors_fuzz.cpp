// The converter's parsers on arbitrary bytes: they throw Error or everything they offer can be
// read. The first byte chooses the parser.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>
#include <vector>

#include "gguf/convert/model_card.h"
#include "gguf/convert/safetensors.h"
#include "gguf/convert/tokenizer_tables.h"
#include "gguf/convert/weight.h"
#include "gguf/error.h"

namespace {

namespace convert = dsctl::gguf::convert;

constexpr int64_t kMaxElems = 4096;  // read of each tensor

void require(bool condition) {
  if (!condition) std::abort();
}

void read_safetensors(std::span<const std::byte> bytes) {
  for (const convert::SafeTensor& tensor : convert::parse_safetensors(bytes, "fuzz")) {
    require(tensor.data.size() == static_cast<size_t>(tensor.n_elems()) *
                                      static_cast<size_t>(convert::scalar_bytes(tensor.type)));
    require(tensor.data.empty() ||
            (tensor.data.data() >= bytes.data() &&
             tensor.data.data() + tensor.data.size() <= bytes.data() + bytes.size()));
    try {
      const convert::WeightPtr weight = convert::plain_weight(tensor);
      if (weight->n_rows() == 0 || weight->n_cols() > kMaxElems) continue;
      std::vector<float> row(static_cast<size_t>(weight->n_cols()));
      weight->read_rows(weight->n_rows() - 1, weight->n_rows(), row.data());
    } catch (const dsctl::gguf::Error&) {  // integers are no weights
    }
  }
}

void read_sentencepiece(std::string_view text) {
  for (const convert::SentencePiece& piece : convert::parse_sentencepiece(text, "fuzz"))
    require(!piece.text.empty());
}

void read_tokenizer(std::string_view text) {
  convert::TokenizerRequest request{
      .dir = {}, .vocab_size = 300, .pre_tokenizer = "gpt-2", .notes = {}};
  const convert::TokenizerTables tables = convert::parse_tokenizer_json(text, request);
  require(tables.tokens.size() == 300 && tables.types.size() == 300);
  require(tables.scores.empty() || tables.scores.size() == 300);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        read_safetensors(std::as_bytes(std::span(text)));
        break;
      case 1:
        read_sentencepiece(text);
        break;
      case 2:
        read_tokenizer(text);
        break;
      case 3:
        convert::parse_model_card(text);
        break;
    }
  } catch (const dsctl::gguf::Error& error) {
    require(error.what()[0] != '\0');
  }
  return 0;
}
