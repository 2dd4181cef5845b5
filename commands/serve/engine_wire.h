// The messages between the server and a model's engine process: length-prefixed frames over a
// socket pair. Everything read is checked, though both ends are this program: a frame cut short by
// a crash must not become a wrong request.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "engine/request.h"

namespace dsctl::commands::serve {

enum class MessageType : uint8_t {
  // server to engine
  kLoad = 1,
  kSubmit,
  kCancel,
  kStats,
  // engine to server
  kLoaded,
  kLoadFailed,
  kSubmitted,
  kEvent,
  kStatsReply,
};

inline constexpr uint32_t kMaxFrameBytes = 256u << 20;

/// Thrown for a frame that is cut short, too large or has values that can't be.
class WireError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Which weights with which options: the first message of a process.
struct LoadMessage {
  std::vector<std::string> weight_paths;
  engine::EngineOptions options;  // without the tokenizer
};

/// One message; which fields count depends on the type.
struct Message {
  MessageType type = MessageType::kStats;
  uint64_t id = 0;                 // kSubmit, kCancel, kSubmitted, kEvent, kStats, kStatsReply
  LoadMessage load;                // kLoad
  engine::Request request;         // kSubmit
  engine::SubmitResult submitted;  // kSubmitted
  std::string text;                // kLoadFailed
  engine::Event event;             // kEvent
  engine::EngineStats stats;       // kLoaded, kStatsReply
};

/// The frame of a message: four bytes of length (little-endian), then the payload.
std::string encode_message(const Message& message);

/// Reads a payload. Throws WireError.
Message decode_message(std::string_view payload);

/// Reads one whole frame from a blocking socket; nothing at the end of the stream. Throws
/// WireError.
std::optional<Message> read_message(int fd);

/// Writes all of `bytes`; false when the other end is gone.
bool write_bytes(int fd, std::string_view bytes);

}  // namespace dsctl::commands::serve
