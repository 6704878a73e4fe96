// Filters of lists and dicts. Those that are generators in jinja2 give an
// Iterator here.
#include <algorithm>
#include <functional>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

Value fold_case(Interpreter& in, const Value& value, bool case_sensitive) {
  return case_sensitive || !value.is_string()
      ? value
      : in.heap().string(to_lower(value.text()));
}

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
  if (self.is(Type::Iterator)) {
    Iterator& it = self.iterator();
    if (it.next < it.items.size()) {
      return it.items[it.next++];
    }
  }
  const auto items = iterate(in.heap(), self);
  return items.empty()
      ? in.heap().undefined("No first item, sequence was empty.")
      : items.front();
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
  const auto items = iterate(in.heap(), self);
  return items.empty()
      ? in.heap().undefined("No last item, sequence was empty.")
      : items.back();
}

Value filter_reverse(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("reverse", arguments, {});
  if (self.is_string()) {
    return slice(in.heap(), self, Value(), Value(), Value(std::int64_t{-1}));
  }
  auto items = iterate(in.heap(), self);
  std::reverse(items.begin(), items.end());
  return self.is(Type::Iterator) ? in.heap().list(std::move(items))
                                 : in.heap().iterator(std::move(items));
}

Value filter_items(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("items", arguments, {});
  if (self.is_undefined()) {
    return in.heap().iterator({});
  }
  if (!self.is(Type::Dict)) {
    fail(
        ErrorKind::InvalidInput,
        "items: found a {}, expected a dict",
        type_name(self));
  }
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict().items) {
    items.push_back(in.heap().tuple({key, value}));
  }
  return in.heap().iterator(std::move(items));
}

Value filter_join(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("join", arguments, {"d", "attribute"});
  const std::string separator =
      p.has(0) ? to_text(&in.budget(), p[0]) : std::string();
  std::string out;
  bool is_first = true;
  for (const Value& item : iterate(in.heap(), self)) {
    out += is_first ? "" : separator;
    is_first = false;
    write_text(&in.budget(), out, in.path(item, p[1]));
    in.budget().require(out.size() + separator.size());
  }
  return in.heap().string(std::move(out));
}

// --- selecting ---------------------------------------------------------------

// Items of `self`; none when it is false, whatever its type.
std::vector<Value> items_if_true(Interpreter& in, const Value& self) {
  return is_true(self) ? iterate(in.heap(), self) : std::vector<Value>();
}

Value filter_map(Interpreter& in, const Value& self, Arguments& arguments) {
  std::vector<Value> out;
  if (arguments.positional.empty()) {
    const Parameters p("map", arguments, {"attribute", "default"}, 1);
    for (const Value& item : items_if_true(in, self)) {
      Value value = in.path(item, p[0]);
      out.push_back(value.is_undefined() && !p[1].is_none() ? p[1] : value);
    }
    return in.heap().iterator(std::move(out));
  }
  const Value name = arguments.positional[0];
  if (!name.is_string()) {
    fail(
        ErrorKind::InvalidInput,
        "map: found a {}, expected the name of a filter",
        type_name(name));
  }
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : items_if_true(in, self)) {
    Arguments one = rest;
    out.push_back(in.filter(name.text(), item, one));
  }
  return in.heap().iterator(std::move(out));
}

template <bool by_attribute, bool keeps>
Value filter_select(Interpreter& in, const Value& self, Arguments& arguments) {
  Arguments rest = arguments;
  const auto take = [&rest]() {
    Value value = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
    return value;
  };
  std::vector<Value> out;
  const auto items = items_if_true(in, self);
  if (by_attribute && rest.positional.empty() && is_true(self)) {
    fail(ErrorKind::InvalidInput, "selectattr: found no name of an attribute");
  }
  const Value attribute =
      by_attribute && !rest.positional.empty() ? take() : Value();
  const bool has_test = !rest.positional.empty();
  const Value test = has_test ? take() : Value();
  if (has_test && !test.is_string()) {
    fail(ErrorKind::InvalidInput, "select: expected the name of a test");
  }
  for (const Value& item : items) {
    const Value subject = by_attribute ? in.path(item, attribute) : item;
    Arguments one = rest;
    const bool passes =
        has_test ? in.test(test.text(), subject, one) : is_true(subject);
    if (passes == keeps) {
      out.push_back(item);
    }
  }
  return in.heap().iterator(std::move(out));
}

Value filter_unique(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("unique", arguments, {"case_sensitive", "attribute"});
  std::unordered_map<std::string, bool> known;
  std::vector<Value> out;
  for (const Value& item : iterate(in.heap(), self)) {
    const Value key = fold_case(in, in.path(item, p[1]), p.boolean(0, false));
    if (known.emplace(hash_key(&in.budget(), key), true).second) {
      out.push_back(item);
    }
  }
  return in.heap().iterator(std::move(out));
}

// --- ordering ----------------------------------------------------------------

struct Keyed {
  Value key;
  Value item;
};

std::vector<Value>
sorted(Interpreter& in, std::vector<Keyed> rows, bool is_reversed) {
  Budget* budget = &in.budget();
  std::stable_sort(
      rows.begin(), rows.end(), [&](const Keyed& a, const Keyed& b) {
        return is_reversed ? less(budget, b.key, a.key)
                           : less(budget, a.key, b.key);
      });
  std::vector<Value> out;
  out.reserve(rows.size());
  for (Keyed& row : rows) {
    out.push_back(std::move(row.item));
  }
  return out;
}

// The list of what "a,b.c" names in an item, to compare in this order.
Value sort_key(
    Interpreter& in,
    const Value& item,
    const Value& attribute,
    bool case_sensitive) {
  std::vector<Value> keys;
  if (!attribute.is_string()) {
    keys.push_back(fold_case(in, in.path(item, attribute), case_sensitive));
  } else {
    for (const std::string_view part :
         split(attribute.text(), ",", -1, false)) {
      const Value name = in.heap().string(std::string(part));
      keys.push_back(fold_case(in, in.path(item, name), case_sensitive));
    }
  }
  return in.heap().list(std::move(keys));
}

Value filter_sort(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p(
      "sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<Keyed> rows;
  for (Value& item : iterate(in.heap(), self)) {
    Value key = sort_key(in, item, p[2], p.boolean(1, false));
    rows.push_back({std::move(key), std::move(item)});
  }
  return in.heap().list(sorted(in, std::move(rows), p.boolean(0, false)));
}

Value filter_dictsort(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p("dictsort", a, {"case_sensitive", "by", "reverse"});
  const std::string by = p.text(1, "key");
  if (by != "key" && by != "value") {
    fail(
        ErrorKind::InvalidInput,
        "dictsort: found by={}, expected key or value",
        quote(by));
  }
  if (!self.is(Type::Dict)) {
    fail(
        ErrorKind::InvalidInput,
        "dictsort: found a {}, expected a dict",
        type_name(self));
  }
  std::vector<Keyed> rows;
  for (const auto& [key, value] : self.dict().items) {
    rows.push_back(
        {fold_case(in, by == "key" ? key : value, p.boolean(0, false)),
         in.heap().tuple({key, value})});
  }
  return in.heap().list(sorted(in, std::move(rows), p.boolean(2, false)));
}

template <bool is_max>
Value filter_extreme(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("min", arguments, {"case_sensitive", "attribute"});
  const auto items = iterate(in.heap(), self);
  if (items.empty()) {
    return in.heap().undefined("No aggregated item, sequence was empty.");
  }
  const auto key = [&](const Value& item) {
    return fold_case(in, in.path(item, p[1]), p.boolean(0, false));
  };
  std::size_t best = 0;
  Value best_key = key(items[0]);
  for (std::size_t i = 1; i < items.size(); ++i) {
    Value other = key(items[i]);
    if (is_max ? less(&in.budget(), best_key, other)
               : less(&in.budget(), other, best_key)) {
      best = i;
      best_key = std::move(other);
    }
  }
  return items[best];
}

Value filter_sum(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("sum", arguments, {"attribute", "start"});
  Value total = p.has(1) ? p[1] : Value(std::int64_t{0});
  if (total.is_string()) {
    fail(ErrorKind::InvalidInput, "sum: found text, use join");
  }
  for (const Value& item : iterate(in.heap(), self)) {
    total = binary(in.heap(), Operator::Add, total, in.path(item, p[0]));
  }
  return total;
}

// --- grouping ----------------------------------------------------------------

Value filter_batch(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("batch", arguments, {"linecount", "fill_with"}, 1);
  const std::int64_t n = p.integer(0, 1);
  std::vector<Value> rows;
  std::vector<Value> row;
  for (Value& item : iterate(in.heap(), self)) {
    if (static_cast<std::int64_t>(row.size()) == n) {
      rows.push_back(in.heap().list(std::exchange(row, {})));
    }
    row.push_back(std::move(item));
  }
  if (!row.empty()) {
    while (!p[1].is_none() && static_cast<std::int64_t>(row.size()) < n) {
      in.budget().work(sizeof(Value));
      row.push_back(p[1]);
    }
    rows.push_back(in.heap().list(std::move(row)));
  }
  return in.heap().iterator(std::move(rows));
}

Value filter_slice(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("slice", arguments, {"slices", "fill_with"}, 1);
  const auto items = iterate(in.heap(), self);
  const std::int64_t n = p.integer(0, 1);
  if (n == 0) {
    fail(ErrorKind::InvalidInput, "slice: found 0 slices");
  }
  const auto length = static_cast<std::int64_t>(items.size());
  std::vector<Value> out;
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const bool is_long = i < length % n;
    const std::int64_t size = length / n + (is_long ? 1 : 0);
    std::vector<Value> part(items.begin() + at, items.begin() + at + size);
    at += size;
    if (!p[1].is_none() && !is_long) {
      part.push_back(p[1]);
    }
    out.push_back(in.heap().list(std::move(part)));
  }
  return in.heap().iterator(std::move(out));
}

struct Row {
  std::string_view name;
  Native native;
};
constexpr Row kFilters[] = {
    {"batch", filter_batch},
    {"count", filter_length},
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"map", filter_map},
    {"max", filter_extreme<true>},
    {"min", filter_extreme<false>},
    {"reject", filter_select<false, false>},
    {"rejectattr", filter_select<true, false>},
    {"reverse", filter_reverse},
    {"select", filter_select<false, true>},
    {"selectattr", filter_select<true, true>},
    {"slice", filter_slice},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};

} // namespace

Native find_sequence_filter(std::string_view name) {
  for (const Row& row : kFilters) {
    if (row.name == name) {
      return row.native;
    }
  }
  return nullptr;
}

} // namespace optiq::text::jinja
