// Global functions.
#include <algorithm>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

// Rounded up, of (stop - start) / step; at least 0.
BigInteger
range_length(const BigInteger& start, const BigInteger& stop, BigInteger step) {
  BigInteger span = BigInteger::add(stop, start.negated());
  if (step.is_negative()) {
    span = span.negated();
    step = step.negated();
  }
  // -(-span // step)
  const BigInteger length =
      BigInteger::divide(span.negated(), step).first.negated();
  return length.is_negative() ? BigInteger() : length;
}

Value global_range(Interpreter& in, const Value&, Arguments& arguments) {
  const Parameters p("range", arguments, {"start", "stop", "step"}, 1);
  const bool only_stop = !p.has(1);
  RangeBounds bounds{
      only_stop ? Value(std::int64_t{0}) : p[0],
      only_stop ? p[0] : p[1],
      p.has(2) ? p[2] : Value(std::int64_t{1})};
  for (const Value* part : {&bounds.start, &bounds.stop, &bounds.step}) {
    if (!part->is_integral()) {
      fail(
          ErrorKind::InvalidInput,
          "range: found a {}, expected an integer",
          type_name(*part));
    }
  }
  if (!is_true(bounds.step)) {
    fail(ErrorKind::InvalidInput, "range: found step 0");
  }
  const BigInteger length =
      range_length(bounds.start.big(), bounds.stop.big(), bounds.step.big());
  constexpr std::int64_t kMost = 100'000; // jinja2's sandbox has this limit too
  const auto n = length.to_int64();
  if (!n || *n > kMost) {
    fail(ErrorKind::Exhausted, "range: found more than {} items", kMost);
  }
  return in.heap().range(std::move(bounds), static_cast<std::size_t>(*n));
}

Value global_raise(Interpreter& in, const Value&, Arguments& arguments) {
  const Parameters p("raise_exception", arguments, {"message"}, 1);
  constexpr std::size_t kMost = 64u << 10; // of a message for a person
  const Text message = to_text(&in.budget(), p[0]);
  fail(ErrorKind::InvalidInput, "{}", message.str().substr(0, kMost));
}

Value global_strftime(Interpreter& in, const Value&, Arguments& arguments) {
  const Parameters p("strftime_now", arguments, {"format"}, 1);
  const std::string_view format = p.text(0, "");
  // A conversion of two bytes gives some 64 at most.
  in.budget().require(64 * format.size());
  in.budget().work(64 * format.size());
  return in.heap().string(format_now(format));
}

Value global_namespace(Interpreter& in, const Value&, Arguments& arguments) {
  return in.new_namespace(arguments);
}

Value global_dict(Interpreter& in, const Value&, Arguments& arguments) {
  return make_dict("dict", in.heap(), arguments);
}

Value global_cycler(Interpreter& in, const Value&, Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.keywords.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "cycler: found {} items and {} keywords, expected at least one item",
        arguments.positional.size(),
        arguments.keywords.size());
  }
  Items items = in.heap().items();
  items.append(arguments.positional);
  return Value(std::make_shared<Cycler>(Cycler{std::move(items), 0}));
}

Value global_joiner(Interpreter& in, const Value&, Arguments& arguments) {
  const Parameters p("joiner", arguments, {"sep"});
  return Value(std::make_shared<Joiner>(Joiner{
      p.has(0) ? p[0] : in.heap().string(", "),
      false,
      Charge(&in.budget(), sizeof(Joiner))}));
}

constexpr Builtin kGlobals[] = {
    {"cycler", global_cycler},
    {"dict", global_dict},
    {"joiner", global_joiner, Reads::Nothing},
    {"namespace", global_namespace},
    {"raise_exception", global_raise},
    {"range", global_range},
    {"strftime_now", global_strftime},
};

} // namespace

const BuiltinTable& globals() {
  static const BuiltinTable table({kGlobals});
  return table;
}

Value make_dict(
    const char* function,
    const Heap& heap,
    const Arguments& arguments) {
  auto made = heap.dict();
  if (arguments.positional.size() > 1) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found {} arguments, expected at most one",
        function,
        arguments.positional.size());
  }
  for (const Value& source : arguments.positional) {
    if (source.is(Type::Dict)) {
      for (const auto& [key, value] : source.dict().items()) {
        made->set(key, value);
      }
      continue;
    }
    for (const Value& item : iterate(heap, source)) {
      const Items pair = iterate(heap, item);
      if (pair.size() != 2) {
        fail(
            ErrorKind::InvalidInput,
            "{}: found {} values, expected pairs",
            function,
            pair.size());
      }
      made->set(pair[0], pair[1]);
    }
  }
  for (const auto& [key, value] : arguments.keywords) {
    made->set(heap.string(key), value);
  }
  return Value(std::move(made));
}

} // namespace optiq::text::jinja
