// Filters that select, map and cut lists. Those that are generators in jinja2
// give an Iterator here.
#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"

namespace optiq::text::jinja {
namespace {

Value filter_length(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("length", arguments, {});
  const auto length = length_of(self);
  if (!length) {
    fail(
        ErrorKind::InvalidInput,
        "length: found a {}, which has none",
        type_name(self));
  }
  return Value(static_cast<std::int64_t>(*length));
}

Value filter_list(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("list", arguments, {});
  return in.heap().list(iterate(in.heap(), self));
}

Value filter_first(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("first", arguments, {});
  const Value none = in.heap().undefined("No first item, sequence was empty.");
  if (self.is(Type::Sequence)) {
    return self.items().empty() ? none : self.items()[0];
  }
  if (self.is(Type::Iterator)) {
    Iterator& it = self.iterator();
    return it.next < it.items.size() ? it.items[it.next++] : none;
  }
  if (self.is_string()) {
    const Value zero(std::int64_t{0});
    const Value one(std::int64_t{1});
    return self.text().empty() ? none
                               : slice(in.heap(), self, zero, one, Value());
  }
  const Items items = iterate(in.heap(), self);
  return items.empty() ? none : items[0];
}

void require_reversible(const char* filter, const Value& value) {
  if (value.is(Type::Iterator) || value.is(Type::Loop)) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found a {}, expected a list",
        filter,
        type_name(value));
  }
}

Value filter_last(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("last", arguments, {});
  require_reversible("last", self);
  const Value none = in.heap().undefined("No last item, sequence was empty.");
  if (self.is(Type::Sequence)) {
    const Items& items = self.items();
    return items.empty() ? none : items[items.size() - 1];
  }
  if (self.is_string()) {
    const Value from(std::int64_t{-1});
    return self.text().empty() ? none
                               : slice(in.heap(), self, from, Value(), Value());
  }
  const Items items = iterate(in.heap(), self);
  return items.empty() ? none : items[items.size() - 1];
}

Value filter_reverse(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("reverse", arguments, {});
  if (self.is_string()) {
    return slice(in.heap(), self, Value(), Value(), Value(std::int64_t{-1}));
  }
  Items items = iterate(in.heap(), self);
  items.reverse();
  return self.is(Type::Iterator) || self.is_undefined()
      ? in.heap().list(std::move(items))
      : in.heap().iterator(std::move(items));
}

Value filter_items(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("items", arguments, {});
  Items items = in.heap().items();
  if (!self.is_undefined()) {
    if (!self.is(Type::Dict)) {
      fail(
          ErrorKind::InvalidInput,
          "items: found a {}, expected a dict",
          type_name(self));
    }
    for (const auto& [key, value] : self.dict().items()) {
      items.push(in.heap().pair(key, value));
    }
  }
  return in.heap().iterator(std::move(items));
}

Value filter_join(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("join", arguments, {"d", "attribute"});
  Value separator = p.has(0) ? as_text(in.heap(), p[0]) : in.heap().string("");
  Items parts = in.heap().items();
  bool has_markup = separator.is_markup();
  for (const Value& item : iterate(in.heap(), self)) {
    parts.push(as_text(in.heap(), get_path(in.heap(), item, p[1])));
    has_markup |= parts[parts.size() - 1].is_markup();
  }
  const bool escapes = in.autoescapes() && has_markup;
  if (escapes) {
    separator = escaped(in.heap(), separator);
  }
  Text out = in.heap().text();
  bool is_first = true;
  for (const Value& part : parts) {
    out.append(std::exchange(is_first, false) ? "" : separator.text());
    out.append(escapes ? escaped(in.heap(), part).text() : part.text());
  }
  return in.heap().string(std::move(out), escapes);
}

// --- selecting ---------------------------------------------------------------

// Items of `self`; none when it is false, whatever its type.
Items items_if_true(Interpreter& in, const Value& self) {
  return is_true(self) ? iterate(in.heap(), self) : in.heap().items();
}

// The arguments from the given one on.
Arguments
rest_of(Interpreter& in, const Arguments& arguments, std::size_t from) {
  Arguments rest(&in.budget());
  rest.positional.append(arguments.positional, from);
  for (const auto& [name, value] : arguments.keywords) {
    rest.add_keyword(name, value);
  }
  return rest;
}

std::string_view name_argument(const char* filter, const Value& name) {
  if (!name.is_string()) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found a {}, expected the name of a filter or test",
        filter,
        type_name(name));
  }
  return name.text();
}

Value filter_map(Interpreter& in, const Value& self, Arguments& arguments) {
  Items out = in.heap().items();
  if (arguments.positional.empty()) {
    if (!is_true(self)) {
      return in.heap().iterator(std::move(out));
    }
    const Parameters p("map", arguments, {"/name", "attribute", "default"});
    if (!p.has(1)) {
      fail(ErrorKind::InvalidInput, "map: found no name of a filter");
    }
    for (const Value& item : iterate(in.heap(), self)) {
      out.push(get_path(in.heap(), item, p[1], p[2]));
    }
    return in.heap().iterator(std::move(out));
  }
  const Value& name = arguments.positional[0];
  for (const Value& item : items_if_true(in, self)) {
    Arguments rest = rest_of(in, arguments, 1);
    out.push(in.filter(name_argument("map", name), item, rest));
  }
  return in.heap().iterator(std::move(out));
}

template <bool by_attribute, bool keeps>
Value filter_select(Interpreter& in, const Value& self, Arguments& arguments) {
  const Items& given = arguments.positional;
  Items out = in.heap().items();
  const Items items = items_if_true(in, self);
  if (by_attribute && given.empty() && is_true(self)) {
    fail(ErrorKind::InvalidInput, "selectattr: found no name of an attribute");
  }
  const std::size_t first = by_attribute ? 1 : 0; // place of the test
  const bool has_test = given.size() > first;
  for (const Value& item : items) {
    const Value subject =
        by_attribute ? get_path(in.heap(), item, given[0]) : item;
    bool passes = is_true(subject);
    if (has_test) {
      Arguments rest = rest_of(in, arguments, first + 1);
      passes = in.test(name_argument("select", given[first]), subject, rest);
    }
    if (passes == keeps) {
      out.push(item);
    }
  }
  return in.heap().iterator(std::move(out));
}

// --- cutting -----------------------------------------------------------------

Value filter_batch(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("batch", arguments, {"linecount", "fill_with"}, 1);
  const Value& count = p[0]; // any type: a length equals it or does not
  const auto is_full = [&](const Items& row) {
    return equal(
        &in.budget(), Value(static_cast<std::int64_t>(row.size())), count);
  };
  Items rows = in.heap().items();
  Items row = in.heap().items();
  for (Value& item : iterate(in.heap(), self)) {
    if (is_full(row)) {
      rows.push(in.heap().list(std::exchange(row, in.heap().items())));
    }
    row.push(std::move(item));
  }
  if (!row.empty()) {
    const auto size = static_cast<std::int64_t>(row.size());
    if (!p[1].is_none() && less(&in.budget(), Value(size), count)) {
      const std::int64_t n = p.integer(0, 0);
      row.reserve(static_cast<std::size_t>(n));
      for (std::int64_t i = size; i < n; ++i) {
        row.push(p[1]);
      }
    }
    rows.push(in.heap().list(std::move(row)));
  }
  return in.heap().iterator(std::move(rows));
}

Value filter_slice(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("slice", arguments, {"slices", "fill_with"}, 1);
  const Items items = iterate(in.heap(), self);
  const std::int64_t n = p.integer(0, 1);
  if (n == 0) {
    fail(ErrorKind::InvalidInput, "slice: found 0 slices");
  }
  const auto length = static_cast<std::int64_t>(items.size());
  Items out = in.heap().items();
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const bool is_long = i < length % n;
    const std::int64_t end = at + length / n + (is_long ? 1 : 0);
    Items part = in.heap().items();
    for (; at < end; ++at) {
      part.push(items[static_cast<std::size_t>(at)]);
    }
    if (!p[1].is_none() && !is_long) {
      part.push(p[1]);
    }
    out.push(in.heap().list(std::move(part)));
  }
  return in.heap().iterator(std::move(out));
}

constexpr Builtin kFilters[] = {
    {"batch", filter_batch},
    {"count", filter_length, Reads::Nothing},
    {"first", filter_first, Reads::Nothing},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last, Reads::Nothing},
    {"length", filter_length, Reads::Nothing},
    {"list", filter_list},
    {"map", filter_map},
    {"reject", filter_select<false, false>},
    {"rejectattr", filter_select<true, false>},
    {"reverse", filter_reverse},
    {"select", filter_select<false, true>},
    {"selectattr", filter_select<true, true>},
    {"slice", filter_slice},
};

} // namespace

std::span<const Builtin> sequence_filters() {
  return kFilters;
}

const BuiltinTable& filters() {
  static const BuiltinTable table(
      {text_filters(),
       number_filters(),
       sequence_filters(),
       ordering_filters()});
  return table;
}

} // namespace optiq::text::jinja
