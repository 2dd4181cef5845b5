// Python's two ways to format a string: "%s is %d" % (a, b) and "{} is {}".format(a, b).
#pragma once

#include <string>
#include <string_view>

#include "templates/jinja/callable.h"

namespace dsctl::templates::jinja {

/// `format % right`, where right is a tuple of arguments, a dict for %(name)s, or one argument.
std::string format_percent(std::string_view format, const Value& right, Budget& budget);

/// `format.format(*positional, **keywords)`.
std::string format_braces(std::string_view format, const Arguments& arguments, Budget& budget);

/// A float with this many digits after the point, correctly rounded ("%.*f").
std::string format_fixed(double value, int precision);

}  // namespace dsctl::templates::jinja
