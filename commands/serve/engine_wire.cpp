#include "commands/serve/engine_wire.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

namespace dsctl::commands::serve {
namespace {

// One description of each message serves both directions: Writer appends what Reader takes.
class Writer {
 public:
  template <typename T>
  void operator()(const T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      (*this)(static_cast<uint32_t>(value.size()));
      bytes_ += value;
    } else {
      static_assert(std::is_trivially_copyable_v<T>);
      bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
  }
  void operator()(const engine::LoraAdapter& adapter) {
    (*this)(adapter.path);
    (*this)(adapter.scale);
  }
  template <typename T>
  void operator()(const std::vector<T>& values) {
    (*this)(static_cast<uint32_t>(values.size()));
    if constexpr (std::is_trivially_copyable_v<T>) {
      bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    } else {
      for (const T& value : values)
        (*this)(value);
    }
  }
  template <typename T>
  void operator()(const std::optional<T>& value) {
    (*this)(value.has_value());
    if (value) (*this)(*value);
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  template <typename T>
  void operator()(T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      const size_t size = read_count(1);
      value.assign(take(size));
    } else if constexpr (std::is_same_v<T, bool>) {
      const char byte = take(1).front();
      if (byte != 0 && byte != 1) throw WireError("engine message: a flag that is neither 0 nor 1");
      value = byte == 1;
    } else {
      static_assert(std::is_trivially_copyable_v<T>);
      std::memcpy(static_cast<void*>(&value), take(sizeof(value)).data(), sizeof(value));
    }
  }
  void operator()(engine::LoraAdapter& adapter) {
    (*this)(adapter.path);
    (*this)(adapter.scale);
  }
  template <typename T>
  void operator()(std::vector<T>& values) {
    if constexpr (std::is_trivially_copyable_v<T>) {
      const size_t n = read_count(sizeof(T));
      values.resize(n);
      const std::string_view bytes = take(n * sizeof(T));
      if (n > 0) std::memcpy(static_cast<void*>(values.data()), bytes.data(), bytes.size());
    } else {
      values.resize(read_count(sizeof(uint32_t)));
      for (T& value : values)
        (*this)(value);
    }
  }
  template <typename T>
  void operator()(std::optional<T>& value) {
    bool has = false;
    (*this)(has);
    value.reset();
    if (has) (*this)(value.emplace());
  }
  /// An enumeration with values 0 .. last.
  template <typename T>
  void check_enum(T value, T last) {
    const auto number = static_cast<std::underlying_type_t<T>>(value);
    if (number < 0 || number > static_cast<std::underlying_type_t<T>>(last)) {
      throw WireError("engine message: unknown enumeration value " + std::to_string(number));
    }
  }
  void expect_end() const {
    if (!rest_.empty()) throw WireError("engine message: bytes after its end");
  }

 private:
  // A count whose elements of at least `element_bytes` fit into what is left.
  size_t read_count(size_t element_bytes) {
    uint32_t n = 0;
    (*this)(n);
    if (n > rest_.size() / element_bytes) throw WireError("engine message: a count beyond its end");
    return n;
  }
  std::string_view take(size_t n) {
    if (n > rest_.size()) throw WireError("engine message: cut short");
    const std::string_view bytes = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return bytes;
  }

  std::string_view rest_;
};

template <typename Io, typename Options>
void options_fields(Io& io, Options& options) {
  io(options.device);
  io(options.cpu_kernels);
  io(options.n_threads);
  io(options.tp_size);
  io(options.max_model_len);
  io(options.max_num_seqs);
  io(options.max_num_batched_tokens);
  io(options.block_size);
  io(options.n_kv_blocks);
  io(options.kv_cache_type);
  io(options.prefix_caching);
  io(options.adapters);
  io(options.max_queue);
  io(options.n_gpu_layers);
}

template <typename Io, typename Sampling>
void sampling_fields(Io& io, Sampling& sampling) {
  io(sampling.temperature);
  io(sampling.top_k);
  io(sampling.top_p);
  io(sampling.min_p);
  io(sampling.typical_p);
  io(sampling.top_n_sigma);
  io(sampling.xtc_probability);
  io(sampling.xtc_threshold);
  io(sampling.dynatemp_range);
  io(sampling.dynatemp_exponent);
  io(sampling.repeat_last_n);
  io(sampling.repeat_penalty);
  io(sampling.presence_penalty);
  io(sampling.frequency_penalty);
  io(sampling.penalize_prompt);
  io(sampling.dry_multiplier);
  io(sampling.dry_base);
  io(sampling.dry_allowed_length);
  io(sampling.dry_last_n);
  io(sampling.dry_sequence_breakers);
  io(sampling.mirostat);
  io(sampling.mirostat_tau);
  io(sampling.mirostat_eta);
  io(sampling.seed);
  io(sampling.n_logprobs);
  io(sampling.min_tokens);
  io(sampling.ignore_eos);
}

template <typename Io, typename Grammar>
void grammar_fields(Io& io, Grammar& grammar) {
  io(grammar.kind);
  io(grammar.source);
  io(grammar.start_after);
  io(grammar.may_begin_with);
  io(grammar.triggers);
  io(grammar.control_tokens);
}

// std::pair is not trivially copyable, so the biases travel as two lists.
void request_fields(Writer& io, const engine::Request& request) {
  io(request.prompt_tokens);
  io(request.max_tokens);
  io(request.stop_token_ids);
  sampling_fields(io, request.sampling);
  std::vector<int32_t> tokens;
  std::vector<float> biases;
  for (const auto& [token, bias] : request.sampling.logit_bias) {
    tokens.push_back(token);
    biases.push_back(bias);
  }
  io(tokens);
  io(biases);
  io(request.pooling);
  io(request.grammar.has_value());
  if (request.grammar) grammar_fields(io, *request.grammar);
}

void request_fields(Reader& io, engine::Request& request) {
  io(request.prompt_tokens);
  io(request.max_tokens);
  io(request.stop_token_ids);
  sampling_fields(io, request.sampling);
  std::vector<int32_t> tokens;
  std::vector<float> biases;
  io(tokens);
  io(biases);
  if (tokens.size() != biases.size()) throw WireError("engine message: biases without tokens");
  for (size_t i = 0; i < tokens.size(); ++i)
    request.sampling.logit_bias.emplace_back(tokens[i], biases[i]);
  io(request.pooling);
  bool has_grammar = false;
  io(has_grammar);
  if (has_grammar) grammar_fields(io, request.grammar.emplace());
}

template <typename Io, typename Stats>
void stats_fields(Io& io, Stats& stats) {
  io(stats.n_running);
  io(stats.n_waiting);
  io(stats.n_kv_blocks);
  io(stats.n_free_kv_blocks);
  io(stats.n_steps);
  io(stats.n_prompt_tokens);
  io(stats.n_generated_tokens);
  io(stats.n_preemptions);
  io(stats.weight_bytes);
  io(stats.kv_bytes);
  io(stats.max_model_len);
  io(stats.device);
}

template <typename Io, typename E>
void event_fields(Io& io, E& event) {
  io(event.finished);
  io(event.token);
  io(event.logprob);
  io(event.top_logprobs);
  io(event.reason);
  io(event.error);
  io(event.pooled);
  io(event.stats.n_prompt_tokens);
  io(event.stats.n_cached_tokens);
  io(event.stats.n_generated_tokens);
  io(event.stats.queue_ns);
  io(event.stats.prefill_ns);
  io(event.stats.decode_ns);
  io(event.stats.seed);
}

template <typename Io, typename M>
void message_fields(Io& io, M& message) {
  switch (message.type) {
    case MessageType::kLoad:
      io(message.load.weight_paths);
      options_fields(io, message.load.options);
      return;
    case MessageType::kSubmit:
      io(message.id);
      request_fields(io, message.request);
      return;
    case MessageType::kCancel:
    case MessageType::kStats:
      io(message.id);
      return;
    case MessageType::kLoaded:
      stats_fields(io, message.stats);
      return;
    case MessageType::kLoadFailed:
      io(message.text);
      return;
    case MessageType::kSubmitted:
      io(message.id);
      io(message.submitted.error);
      io(message.submitted.message);
      return;
    case MessageType::kEvent:
      io(message.id);
      event_fields(io, message.event);
      return;
    case MessageType::kStatsReply:
      io(message.id);
      stats_fields(io, message.stats);
      return;
  }
}

void check_enums(Reader& reader, const Message& message) {
  reader.check_enum(message.load.options.device, engine::Device::kCuda);
  reader.check_enum(message.load.options.cpu_kernels, engine::CpuKernels::kReference);
  reader.check_enum(message.load.options.kv_cache_type, engine::KvCacheType::kF16);
  reader.check_enum(message.event.reason, engine::FinishReason::kError);
  if (message.request.grammar) {
    reader.check_enum(message.request.grammar->kind, engine::GrammarSpec::Kind::kTagged);
  }
  if (message.request.pooling) {
    reader.check_enum(*message.request.pooling, engine::Pooling::kRank);
  }
  if (message.submitted.error) {
    reader.check_enum(*message.submitted.error, engine::SubmitError::kStopped);
  }
}

// Reads exactly `size` bytes. False at the end of the stream before the first one.
bool read_exactly(int fd, char* data, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t n = ::recv(fd, data + done, size - done, 0);
    if (n < 0 && errno == EINTR) continue;
    // A killed process resets the socket when it leaves messages unread: that too is an end.
    if (n < 0 && errno != ECONNRESET) {
      throw WireError(std::string("engine socket: ") + std::strerror(errno));
    }
    if (n <= 0) {
      if (done == 0) return false;
      throw WireError("engine message: cut short");
    }
    done += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

std::string encode_message(const Message& message) {
  Writer writer;
  writer(uint32_t{0});
  writer(message.type);
  message_fields(writer, message);
  std::string frame = writer.take();
  const size_t size = frame.size() - sizeof(uint32_t);
  if (size > kMaxFrameBytes) throw WireError("engine message: larger than a frame may be");
  const auto length = static_cast<uint32_t>(size);
  std::memcpy(frame.data(), &length, sizeof(length));
  return frame;
}

Message decode_message(std::string_view payload) {
  Reader reader(payload);
  Message message;
  reader(message.type);
  if (message.type < MessageType::kLoad || message.type > MessageType::kStatsReply) {
    throw WireError("engine message: unknown type " +
                    std::to_string(static_cast<int>(message.type)));
  }
  message_fields(reader, message);
  reader.expect_end();
  check_enums(reader, message);
  return message;
}

std::optional<Message> read_message(int fd) {
  uint32_t length = 0;
  if (!read_exactly(fd, reinterpret_cast<char*>(&length), sizeof(length))) return std::nullopt;
  if (length == 0 || length > kMaxFrameBytes) throw WireError("engine message: impossible length");
  std::string payload(length, '\0');
  if (!read_exactly(fd, payload.data(), payload.size())) {
    throw WireError("engine message: cut short");
  }
  return decode_message(payload);
}

bool write_bytes(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace dsctl::commands::serve
