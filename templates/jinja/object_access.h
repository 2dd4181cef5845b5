/// What a value's object holds, for code that has checked its type.
#pragma once

#include <string_view>

#include "templates/jinja/value.h"

namespace dsctl::templates::jinja {

inline const Values& items_of(const Value& value) {
  return static_cast<const Sequence*>(value.as_object())->items;
}

inline const Dict& dict_of(const Value& value) {
  return *static_cast<const Dict*>(value.as_object());
}

inline const Range& range_of(const Value& value) {
  return *static_cast<const Range*>(value.as_object());
}

inline const DictView& view_of(const Value& value) {
  return *static_cast<const DictView*>(value.as_object());
}

inline std::string_view view_name(DictView::Part part) {
  switch (part) {
    case DictView::Part::kKeys:
      return "dict_keys";
    case DictView::Part::kValues:
      return "dict_values";
    case DictView::Part::kItems:
      return "dict_items";
  }
  return "";
}

}  // namespace dsctl::templates::jinja
