// Built-in functions of Go templates and Ollama's own, by name.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>

#include "templates/go/value.h"

namespace dsctl::templates::go {

/// A function of evaluated arguments. Throws Error without position; the executor adds it.
using Function = std::function<Value(std::span<const Value>)>;
using FunctionMap = std::map<std::string, Function, std::less<>>;

/// len, index, slice, print, printf, println, html, js, urlquery, call, not, eq, ne, lt, le, gt,
/// ge. `and` and `or` are the executor's: they don't evaluate all their arguments.
FunctionMap builtin_functions();

/// fmt.Sprintf.
std::string format(const std::string& verbs, std::span<const Value> arguments);

}  // namespace dsctl::templates::go
