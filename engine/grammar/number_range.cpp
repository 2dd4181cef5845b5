#include "engine/grammar/number_range.h"

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "engine/error.h"

namespace dsctl::engine::grammar {
namespace {

constexpr int kMaxDigits = 16;

Expr digits(char first, char last) {
  return chars({{static_cast<char32_t>(first), static_cast<char32_t>(last)}});
}

Expr any_digits(int min, int max) {
  return repeat(digits('0', '9'), min, max);
}

bool is_less(const std::string& a, const std::string& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

/// `text` + 1.
std::string successor(std::string text) {
  for (size_t i = text.size(); i-- > 0;) {
    if (text[i] != '9') {
      ++text[i];
      return text;
    }
    text[i] = '0';
  }
  return "1" + text;
}

/// `text` - 1, of a number that is not 0.
std::string predecessor(std::string text) {
  for (size_t i = text.size(); i-- > 0;) {
    if (text[i] != '0') {
      --text[i];
      break;
    }
    text[i] = '9';
  }
  const size_t first = text.find_first_not_of('0');
  return first == std::string::npos ? "0" : text.substr(first);
}

/// Numbers with as many digits as both bounds have.
Expr same_length(std::string_view low, std::string_view high) {
  if (low.empty()) return sequence({});
  const auto rest = static_cast<int>(low.size()) - 1;
  const std::string zeros(low.size() - 1, '0');
  const std::string nines(low.size() - 1, '9');
  if (low.substr(1) == zeros && high.substr(1) == nines) {
    return sequence({digits(low[0], high[0]), any_digits(rest, rest)});
  }
  if (low[0] == high[0]) {
    return sequence({digits(low[0], low[0]), same_length(low.substr(1), high.substr(1))});
  }
  std::vector<Expr> ways;
  ways.push_back(sequence({digits(low[0], low[0]), same_length(low.substr(1), nines)}));
  if (high[0] - low[0] > 1) {
    ways.push_back(sequence({digits(static_cast<char>(low[0] + 1), static_cast<char>(high[0] - 1)),
                             any_digits(rest, rest)}));
  }
  ways.push_back(sequence({digits(high[0], high[0]), same_length(zeros, high.substr(1))}));
  return choice(std::move(ways));
}

/// Whole numbers low..high without sign; no `high`: of at most kMaxDigits digits. Nothing when
/// there is none.
std::optional<Expr> whole_range(const std::string& low, const std::optional<std::string>& high) {
  const std::string most =
      high && high->size() <= kMaxDigits ? *high : std::string(kMaxDigits, '9');
  if (is_less(most, low)) return std::nullopt;
  std::vector<Expr> ways;
  for (size_t n = low.size(); n <= most.size(); ++n) {
    // In the middle every number of that length; those lengths are written as one.
    if (n > low.size() && n < most.size()) {
      const auto longest = static_cast<int>(most.size()) - 2;
      ways.push_back(sequence({digits('1', '9'), any_digits(static_cast<int>(n) - 1, longest)}));
      n = most.size() - 1;
      continue;
    }
    const std::string first = n == low.size() ? low : "1" + std::string(n - 1, '0');
    const std::string last = n == most.size() ? most : std::string(n, '9');
    ways.push_back(same_length(first, last));
  }
  return choice(std::move(ways));
}

/// Digits after a point that are at least `low` (greater, when `strict`).
Expr fraction_from(std::string_view low, bool strict) {
  const auto used_up = [](size_t n) { return std::max(0, kMaxDigits - static_cast<int>(n)); };
  std::vector<Expr> ways;
  std::vector<Expr> prefix;
  for (size_t i = 0; i < low.size(); ++i) {
    if (low[i] < '9') {
      std::vector<Expr> way = prefix;
      way.push_back(digits(static_cast<char>(low[i] + 1), '9'));
      way.push_back(any_digits(0, used_up(i + 1)));
      ways.push_back(sequence(std::move(way)));
    }
    prefix.push_back(digits(low[i], low[i]));
  }
  const int left = used_up(low.size());
  if (strict) {
    if (left > 0) {  // more digits, not all 0
      prefix.push_back(repeat(digits('0', '0'), 0, left - 1));
      prefix.push_back(digits('1', '9'));
      prefix.push_back(any_digits(0, left - 1));
      ways.push_back(sequence(std::move(prefix)));
    }
  } else {
    if (low.empty()) {
      prefix.push_back(any_digits(1, left));
    } else {
      prefix.push_back(any_digits(0, left));
    }
    ways.push_back(sequence(std::move(prefix)));
  }
  return choice(std::move(ways));
}

/// Digits after a point that are at most `high` (less, when `strict`). With no digits in `high` and
/// strict there are none: a choice of nothing.
Expr fraction_to(std::string_view high, bool strict) {
  std::vector<Expr> ways;
  std::vector<Expr> prefix;
  for (size_t i = 0; i < high.size(); ++i) {
    const int left = std::max(0, kMaxDigits - static_cast<int>(i) - 1);
    if (high[i] > '0') {
      std::vector<Expr> way = prefix;
      way.push_back(digits('0', static_cast<char>(high[i] - 1)));
      way.push_back(any_digits(0, left));
      ways.push_back(sequence(std::move(way)));
    }
    prefix.push_back(digits(high[i], high[i]));
    // Ending here is less than `high`, whose later digits are not all 0.
    if (i + 1 < high.size()) ways.push_back(sequence(prefix));
  }
  if (!strict) {
    const int left = std::max(0, kMaxDigits - static_cast<int>(high.size()));
    prefix.push_back(repeat(digits('0', '0'), high.empty() ? 1 : 0, std::max(left, 1)));
    ways.push_back(sequence(std::move(prefix)));
  }
  if (ways.empty()) return chars({});
  return choice(std::move(ways));
}

Expr with_fraction(Expr fraction) {
  return sequence({literal("."), std::move(fraction)});
}

/// Numbers without sign between two non-negative bounds; nothing when there is none.
std::optional<Expr> magnitude_range(const DecimalBound& low,
                                    const std::optional<DecimalBound>& high) {
  std::vector<Expr> ways;
  if (high && high->whole == low.whole) {
    // One whole part: fractions between the two. Both conditions at once are written by cutting
    // the shared digits off.
    const std::string width(std::max(low.fraction.size(), high->fraction.size()), '0');
    const auto padded = [&](const std::string& text) {
      return text + width.substr(std::min(width.size(), text.size()));
    };
    const std::string from = padded(low.fraction);
    const std::string to = padded(high->fraction);
    if (to < from || (to == from && (low.exclusive || high->exclusive))) return std::nullopt;
    const bool whole_fits = low.fraction.empty() && !low.exclusive;
    if (whole_fits) ways.push_back(literal(low.whole));
    if (from == to) {
      if (from.empty()) {
        ways.push_back(sequence({literal(low.whole), with_fraction(fraction_to("", false))}));
      } else {
        ways.push_back(sequence(
            {literal(low.whole), with_fraction(literal(from)), repeat(literal("0"), 0, 15)}));
      }
      return choice(std::move(ways));
    }
    const auto split = static_cast<size_t>(
        std::mismatch(from.begin(), from.end(), to.begin()).first - from.begin());
    const std::string shared = from.substr(0, split);
    std::vector<Expr> tails;
    // The first digit that differs: the lower bound's, one between, or the upper bound's.
    std::string low_rest = from.substr(split + 1);
    low_rest.erase(low_rest.find_last_not_of('0') + 1);
    std::string high_rest = to.substr(split + 1);
    high_rest.erase(high_rest.find_last_not_of('0') + 1);
    const char low_digit = from[split];
    const char high_digit = to[split];
    const auto left = std::max(1, kMaxDigits - static_cast<int>(split) - 1);
    std::vector<Expr> low_tails;
    if (low_rest.empty() && !low.exclusive) low_tails.push_back(sequence({}));
    low_tails.push_back(fraction_from(low_rest, low.exclusive));
    tails.push_back(sequence({digits(low_digit, low_digit), choice(std::move(low_tails))}));
    if (high_digit - low_digit > 1) {
      tails.push_back(
          sequence({digits(static_cast<char>(low_digit + 1), static_cast<char>(high_digit - 1)),
                    any_digits(0, left)}));
    }
    std::vector<Expr> high_tails;
    if (!high->exclusive || !high_rest.empty()) high_tails.push_back(sequence({}));
    high_tails.push_back(fraction_to(high_rest, high->exclusive));
    tails.push_back(sequence({digits(high_digit, high_digit), choice(std::move(high_tails))}));
    ways.push_back(
        sequence({literal(low.whole), literal("."), literal(shared), choice(std::move(tails))}));
    return choice(std::move(ways));
  }
  if (high && is_less(high->whole, low.whole)) return std::nullopt;
  // The lower bound's whole part.
  std::vector<Expr> at_low;
  if (low.fraction.empty() && !low.exclusive) at_low.push_back(sequence({}));
  at_low.push_back(with_fraction(fraction_from(low.fraction, low.exclusive)));
  ways.push_back(sequence({literal(low.whole), choice(std::move(at_low))}));
  // Those between, with any fraction.
  std::optional<std::string> last;
  if (high) last = predecessor(high->whole);
  if (auto between = whole_range(successor(low.whole), last)) {
    ways.push_back(
        sequence({*std::move(between), optional(with_fraction(any_digits(1, kMaxDigits)))}));
  }
  // The upper bound's whole part.
  if (high && high->whole.size() <= kMaxDigits) {
    std::vector<Expr> at_high;
    if (!high->exclusive || !high->fraction.empty()) at_high.push_back(sequence({}));
    at_high.push_back(with_fraction(fraction_to(high->fraction, high->exclusive)));
    ways.push_back(sequence({literal(high->whole), choice(std::move(at_high))}));
  }
  return choice(std::move(ways));
}

/// The next whole number up (or down) from a bound, as a bound that is included.
DecimalBound rounded(DecimalBound bound, bool up) {
  const bool away_from_zero = up != bound.negative;
  if (away_from_zero && (!bound.fraction.empty() || bound.exclusive)) {
    bound.whole = successor(bound.whole);
  } else if (!away_from_zero && bound.fraction.empty() && bound.exclusive) {
    if (bound.whole == "0") {
      bound.negative = !bound.negative;
      bound.whole = "1";
    } else {
      bound.whole = predecessor(bound.whole);
    }
  }
  bound.fraction.clear();
  bound.exclusive = false;
  if (bound.whole == "0") bound.negative = false;
  return bound;
}

using MagnitudeRange = std::optional<Expr> (*)(const DecimalBound&,
                                               const std::optional<DecimalBound>&);

/// Both signs, from ranges of magnitudes.
Expr signed_range(const std::optional<DecimalBound>& min, const std::optional<DecimalBound>& max,
                  MagnitudeRange magnitudes) {
  std::vector<Expr> ways;
  const DecimalBound zero{.negative = false, .whole = "0", .fraction = "", .exclusive = false};
  if (!min || min->negative) {
    const bool below_zero = max && max->negative;
    DecimalBound least = below_zero ? *max : zero;
    least.negative = false;
    // "-0" is a way to write 0 that nobody expects where 0 is a bound.
    if (!below_zero) least.exclusive = true;
    std::optional<DecimalBound> most = min;
    if (most) most->negative = false;
    if (auto range = magnitudes(least, most)) {
      ways.push_back(sequence({literal("-"), *std::move(range)}));
    }
  }
  if (!max || !max->negative) {
    const DecimalBound least = min && !min->negative ? *min : zero;
    if (auto range = magnitudes(least, max)) ways.push_back(*std::move(range));
  }
  if (ways.empty()) throw Error("no number is within the bounds");
  return choice(std::move(ways));
}

std::optional<Expr> whole_magnitudes(const DecimalBound& low,
                                     const std::optional<DecimalBound>& high) {
  const std::string first = low.exclusive ? successor(low.whole) : low.whole;
  std::optional<std::string> last;
  if (high) last = high->whole;
  return whole_range(first, last);
}

}  // namespace

std::optional<DecimalBound> DecimalBound::parse(std::string_view number, bool exclusive) {
  constexpr long kMaxExponent = 40;
  DecimalBound bound;
  bound.exclusive = exclusive;
  if (!number.empty() && number.front() == '-') {
    bound.negative = true;
    number.remove_prefix(1);
  }
  long exponent = 0;
  const size_t e = number.find_first_of("eE");
  if (e != std::string_view::npos) {
    exponent = std::strtol(std::string(number.substr(e + 1)).c_str(), nullptr, 10);
    if (std::labs(exponent) > kMaxExponent) return std::nullopt;
    number = number.substr(0, e);
  }
  const size_t point = number.find('.');
  std::string all(number.substr(0, point));
  auto n_whole = static_cast<long>(all.size());
  if (point != std::string_view::npos) all += number.substr(point + 1);
  n_whole += exponent;
  if (n_whole <= 0) {
    all.insert(0, static_cast<size_t>(1 - n_whole), '0');
    n_whole = 1;
  }
  if (static_cast<size_t>(n_whole) > all.size()) all.resize(static_cast<size_t>(n_whole), '0');
  bound.whole = all.substr(0, static_cast<size_t>(n_whole));
  bound.fraction = all.substr(static_cast<size_t>(n_whole));
  bound.whole.erase(0, std::min(bound.whole.find_first_not_of('0'), bound.whole.size() - 1));
  bound.fraction.erase(bound.fraction.find_last_not_of('0') + 1);
  if (bound.whole == "0" && bound.fraction.empty()) bound.negative = false;
  return bound;
}

Expr integer_range(const std::optional<DecimalBound>& min, const std::optional<DecimalBound>& max) {
  std::optional<DecimalBound> low = min;
  std::optional<DecimalBound> high = max;
  if (low) low = rounded(*low, /*up=*/true);
  if (high) high = rounded(*high, /*up=*/false);
  return signed_range(low, high, whole_magnitudes);
}

Expr number_range(const std::optional<DecimalBound>& min, const std::optional<DecimalBound>& max) {
  return signed_range(min, max, magnitude_range);
}

}  // namespace dsctl::engine::grammar
