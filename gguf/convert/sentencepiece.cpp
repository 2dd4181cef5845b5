// The protobuf of a SentencePiece model: ModelProto.pieces (field 1), each with piece (1), score
// (2) and type (3). All else is skipped.
#include <cstring>

#include "gguf/convert/tokenizer_tables.h"
#include "gguf/error.h"

namespace dsctl::gguf::convert {
namespace {

constexpr size_t kMaxPieces = 1'000'000;
constexpr size_t kMaxPieceBytes = 4096;

/// Reads one message. Every length is checked against what is left of it.
class ProtoReader {
 public:
  ProtoReader(std::string_view bytes, std::string_view label) : rest_(bytes), label_(label) {}

  struct Field {
    uint32_t number = 0;
    uint64_t value = 0;      // of a varint or fixed field
    std::string_view bytes;  // of a length-delimited field
  };

  bool at_end() const { return rest_.empty(); }

  Field next() {
    Field field;
    const uint64_t key = varint();
    field.number = static_cast<uint32_t>(key >> 3);
    if (key >> 3 == 0 || key >> 3 > 0x1fffffff) fail("bad field number");
    switch (key & 7U) {
      case 0:
        field.value = varint();
        return field;
      case 1:
        field.value = fixed(8);
        return field;
      case 2: {
        const uint64_t size = varint();
        if (size > rest_.size()) fail("a field is cut short");
        field.bytes = rest_.substr(0, static_cast<size_t>(size));
        rest_.remove_prefix(static_cast<size_t>(size));
        return field;
      }
      case 5:
        field.value = fixed(4);
        return field;
      default:
        fail("unknown wire type " + std::to_string(key & 7U));
    }
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw Error(std::string(label_) + ": is no SentencePiece model: " + message);
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) fail("a number is cut short");
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7fU) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number of more than 64 bits");
  }

  uint64_t fixed(size_t size) {
    if (rest_.size() < size) fail("a number is cut short");
    uint64_t value = 0;
    std::memcpy(&value, rest_.data(), size);
    rest_.remove_prefix(size);
    return value;
  }

  std::string_view rest_;
  std::string_view label_;
};

TokenKind to_kind(uint64_t type, std::string_view label) {
  // A symbol that the trainer was given is matched like any other piece.
  if (type == 4) return TokenKind::kNormal;
  if (type >= 1 && type <= 6) return static_cast<TokenKind>(type);
  throw Error(std::string(label) + ": a piece of unknown type " + std::to_string(type));
}

SentencePiece parse_piece(std::string_view bytes, std::string_view label) {
  SentencePiece piece;
  ProtoReader reader(bytes, label);
  while (!reader.at_end()) {
    const ProtoReader::Field field = reader.next();
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) {
      const auto bits = static_cast<uint32_t>(field.value);
      std::memcpy(&piece.score, &bits, sizeof(bits));
    }
    if (field.number == 3) piece.kind = to_kind(field.value, label);
  }
  if (piece.text.empty() || piece.text.size() > kMaxPieceBytes) {
    throw Error(std::string(label) + ": a piece of " + std::to_string(piece.text.size()) +
                " bytes, expected 1 to " + std::to_string(kMaxPieceBytes));
  }
  return piece;
}

}  // namespace

std::vector<SentencePiece> parse_sentencepiece(std::string_view bytes, std::string_view label) {
  std::vector<SentencePiece> pieces;
  ProtoReader reader(bytes, label);
  while (!reader.at_end()) {
    const ProtoReader::Field field = reader.next();
    if (field.number != 1) continue;
    if (pieces.size() == kMaxPieces) {
      throw Error(std::string(label) + ": more than " + std::to_string(kMaxPieces) + " pieces");
    }
    pieces.push_back(parse_piece(field.bytes, label));
  }
  if (pieces.empty()) throw Error(std::string(label) + ": is no SentencePiece model: no pieces");
  return pieces;
}

}  // namespace dsctl::gguf::convert
