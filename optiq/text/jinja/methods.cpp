// Methods of list, tuple, range, dict, int, float, loop and cycler.
#include <algorithm>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

// --- list, tuple, range ------------------------------------------------------

Value list_count(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("count", arguments, {"/value"}, 1);
  std::int64_t n = 0;
  for (const Value& item : self.items()) {
    n += equal(&in.budget(), item, p[0]) ? 1 : 0;
  }
  return Value(n);
}

Value list_index(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("index", arguments, {"/value", "/start", "/stop"}, 1);
  const Items& items = self.items();
  for (const std::size_t i : {1, 2}) {
    if (p.has(i) && !p[i].is_integral()) {
      fail(ErrorKind::InvalidInput, "index: expected integers as bounds");
    }
  }
  const auto n = static_cast<std::int64_t>(items.size());
  const auto clamp = [n](std::int64_t i) {
    return std::clamp<std::int64_t>(i < 0 ? std::max(i, -n) + n : i, 0, n);
  };
  const std::int64_t stop = clamp(p.bound(2, n));
  for (std::int64_t i = clamp(p.bound(1, 0)); i < stop; ++i) {
    if (equal(&in.budget(), items[static_cast<std::size_t>(i)], p[0])) {
      return Value(i);
    }
  }
  fail(ErrorKind::InvalidInput, "index: the value is not in the list");
}

Value copy_self(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("copy", arguments, {});
  return self; // nothing can change either of the two
}

constexpr Builtin kTupleMethods[] = {
    {"count", list_count},
    {"index", list_index},
};
constexpr Builtin kCopy[] = {{"copy", copy_self, Reads::Nothing}};

// --- dict --------------------------------------------------------------------

Value dict_get(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("get", arguments, {"/key", "/default"}, 1);
  const Value* found = self.dict().find(hash_key(&in.budget(), p[0]));
  return found == nullptr ? p[1] : *found;
}

template <SequenceKind kind>
Value dict_view(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("items", arguments, {});
  Items items = in.heap().items();
  items.reserve(self.dict().items().size());
  for (const auto& [key, value] : self.dict().items()) {
    items.push(
        kind == SequenceKind::Keys         ? key
            : kind == SequenceKind::Values ? value
                                           : in.heap().pair(key, value));
  }
  return in.heap().sequence(kind, std::move(items));
}

Value dict_fromkeys(Interpreter& in, const Value&, Arguments& arguments) {
  const Parameters p("fromkeys", arguments, {"/iterable", "/value"}, 1);
  auto made = in.heap().dict();
  for (const Value& key : iterate(in.heap(), p[0])) {
    made->set(key, p[1]);
  }
  return Value(std::move(made));
}

constexpr Builtin kDictMethods[] = {
    {"copy", copy_self, Reads::Nothing},
    {"fromkeys", dict_fromkeys},
    {"get", dict_get, Reads::Nothing},
    {"items", dict_view<SequenceKind::Items>},
    {"keys", dict_view<SequenceKind::Keys>},
    {"values", dict_view<SequenceKind::Values>},
};

// --- int, float --------------------------------------------------------------

Value int_bit_length(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("bit_length", arguments, {});
  return Value(static_cast<std::int64_t>(self.big().bit_length()));
}

Value int_bit_count(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("bit_count", arguments, {});
  const Charge charge(&in.budget(), 2 * self.big().bit_length());
  const std::string bits = self.big().digits(2);
  return Value(
      static_cast<std::int64_t>(std::count(bits.begin(), bits.end(), '1')));
}

Value conjugate(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("conjugate", arguments, {});
  return self.is(Type::Bool) ? in.heap().integer(self.big()) : self;
}

Value int_ratio(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("as_integer_ratio", arguments, {});
  return in.heap().pair(in.heap().integer(self.big()), Value(std::int64_t{1}));
}

Value float_ratio(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("as_integer_ratio", arguments, {});
  if (!std::isfinite(self.real())) {
    fail(
        ErrorKind::InvalidInput,
        "as_integer_ratio: found {}, expected a finite number",
        repr(self.real()));
  }
  int exponent = 0;
  double mantissa = std::frexp(self.real(), &exponent);
  while (mantissa != std::trunc(mantissa)) {
    mantissa *= 2;
    --exponent;
  }
  const BigInteger whole(mantissa);
  const auto shift = static_cast<std::size_t>(std::abs(exponent));
  const BigInteger one(std::int64_t{1});
  return exponent >= 0 ? in.heap().pair(
                             in.heap().integer(whole.shifted_left(shift)),
                             Value(std::int64_t{1}))
                       : in.heap().pair(
                             in.heap().integer(whole),
                             in.heap().integer(one.shifted_left(shift)));
}

Value float_is_integer(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("is_integer", arguments, {});
  return Value(
      std::isfinite(self.real()) && self.real() == std::trunc(self.real()));
}

constexpr Builtin kIntegerMethods[] = {
    {"as_integer_ratio", int_ratio},
    {"bit_count", int_bit_count},
    {"bit_length", int_bit_length},
    {"conjugate", conjugate},
};
constexpr Builtin kFloatMethods[] = {
    {"as_integer_ratio", float_ratio},
    {"conjugate", conjugate},
    {"is_integer", float_is_integer},
};

// --- loop, cycler ------------------------------------------------------------

Value loop_cycle(Interpreter&, const Value& self, Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.keywords.empty()) {
    fail(ErrorKind::InvalidInput, "cycle: no items for cycling given");
  }
  const auto n = static_cast<std::int64_t>(arguments.positional.size());
  return arguments.positional[static_cast<std::size_t>(self.loop().index0 % n)];
}

Value loop_changed(Interpreter& in, const Value& self, Arguments& arguments) {
  Loop& loop = self.loop();
  if (!arguments.keywords.empty()) {
    fail(ErrorKind::InvalidInput, "changed: found a keyword argument");
  }
  const Items& now = arguments.positional;
  const bool is_same = loop.has_changed &&
      std::equal(now.begin(),
                 now.end(),
                 loop.changed.begin(),
                 loop.changed.end(),
                 [&](const Value& a, const Value& b) {
                   return equal(&in.budget(), a, b);
                 });
  // A loop that has ended keeps nothing, see execute_for.
  if (!is_same && loop.scope != nullptr) {
    loop.changed.clear();
    loop.changed.append(now);
    loop.has_changed = true;
  }
  return Value(!is_same);
}

constexpr Builtin kLoopMethods[] = {
    {"changed", loop_changed, Reads::Nothing},
    {"cycle", loop_cycle, Reads::Nothing},
};

Value cycler_next(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("next", arguments, {});
  Cycler& cycler = self.cycler();
  Value now = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return now;
}

Value cycler_reset(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("reset", arguments, {});
  self.cycler().position = 0;
  return Value();
}

constexpr Builtin kCyclerMethods[] = {
    {"next", cycler_next, Reads::Nothing},
    {"reset", cycler_reset, Reads::Nothing},
};

} // namespace

const BuiltinTable& list_methods() {
  static const BuiltinTable table({kTupleMethods, kCopy});
  return table;
}

const BuiltinTable& tuple_methods() {
  static const BuiltinTable table({kTupleMethods});
  return table;
}

const BuiltinTable& dict_methods() {
  static const BuiltinTable table({kDictMethods});
  return table;
}

const BuiltinTable& integer_methods() {
  static const BuiltinTable table({kIntegerMethods});
  return table;
}

const BuiltinTable& float_methods() {
  static const BuiltinTable table({kFloatMethods});
  return table;
}

const BuiltinTable& loop_methods() {
  static const BuiltinTable table({kLoopMethods});
  return table;
}

const BuiltinTable& cycler_methods() {
  static const BuiltinTable table({kCyclerMethods});
  return table;
}

} // namespace optiq::text::jinja
