// Tables behind unicode.h, made from Python's Unicode database by a script in tests/golden.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dsctl::templates::jinja {

/// Code points [first, last], sorted.
struct CodeRange {
  uint32_t first;
  uint32_t last;
};

/// Every `step`-th code point of [first, last] maps to itself plus `delta`.
struct CaseRun {
  uint32_t first;
  uint32_t last;
  int32_t step;
  int32_t delta;
};

/// A code point that maps to several.
struct CaseSpecial {
  uint32_t code;
  const char* text;
};

extern const CodeRange kAlphaRanges[];
extern const size_t kAlphaCount;
extern const CodeRange kDecimalRanges[];
extern const size_t kDecimalCount;
extern const CodeRange kDigitRanges[];
extern const size_t kDigitCount;
extern const CodeRange kNumericRanges[];
extern const size_t kNumericCount;
extern const CodeRange kLowerRanges[];
extern const size_t kLowerCount;
extern const CodeRange kUpperRanges[];
extern const size_t kUpperCount;
extern const CodeRange kTitleRanges[];
extern const size_t kTitleCount;
extern const CodeRange kPrintableRanges[];
extern const size_t kPrintableCount;
extern const CodeRange kCaseIgnorableRanges[];
extern const size_t kCaseIgnorableCount;

extern const CaseRun kToUpperRuns[];
extern const size_t kToUpperCount;
extern const CaseSpecial kToUpperSpecials[];
extern const size_t kToUpperSpecialCount;
extern const CaseRun kToLowerRuns[];
extern const size_t kToLowerCount;
extern const CaseSpecial kToLowerSpecials[];
extern const size_t kToLowerSpecialCount;
extern const CaseRun kToTitleRuns[];
extern const size_t kToTitleCount;
extern const CaseSpecial kToTitleSpecials[];
extern const size_t kToTitleSpecialCount;

}  // namespace dsctl::templates::jinja
