// Filters that compare, sort, group and add the items of lists and dicts.
#include <algorithm>
#include <unordered_set>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

Value fold_case(Interpreter& in, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) {
    return value;
  }
  Text lower = in.heap().text();
  write_lower(lower, value.text());
  return in.heap().string(std::move(lower));
}

struct Keyed {
  Value key;
  Value item;
};

/** Items with the keys that order them. */
class KeyedItems {
 public:
  KeyedItems(Interpreter& in, std::size_t n)
      : budget_(&in.budget()),
        charge_(budget_, 2 * n * sizeof(Keyed)) { // sorting takes as much
    rows_.reserve(n);
  }

  void add(Value key, Value item) {
    rows_.push_back({std::move(key), std::move(item)});
  }
  void sort(bool is_reversed) {
    std::stable_sort(
        rows_.begin(), rows_.end(), [&](const Keyed& a, const Keyed& b) {
          return is_reversed ? less(budget_, b.key, a.key)
                             : less(budget_, a.key, b.key);
        });
  }
  const std::vector<Keyed>& rows() const {
    return rows_;
  }
  Value list(const Heap& heap) const {
    Items items = heap.items();
    items.reserve(rows_.size());
    for (const Keyed& row : rows_) {
      items.push(row.item);
    }
    return heap.list(std::move(items));
  }

 private:
  Budget* budget_;
  Charge charge_;
  std::vector<Keyed> rows_;
};

// The list of what "a,b.c" names in an item, to compare in this order.
Value sort_key(
    Interpreter& in,
    const Value& item,
    const Value& attribute,
    bool case_sensitive) {
  Items keys = in.heap().items();
  const auto add = [&](const Value& path) {
    keys.push(fold_case(in, get_path(in.heap(), item, path), case_sensitive));
  };
  if (!attribute.is_string()) {
    add(attribute);
  } else {
    split(attribute.text(), ",", -1, false, [&](std::string_view part) {
      add(in.heap().string(part));
    });
  }
  return in.heap().list(std::move(keys));
}

Value filter_sort(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p(
      "sort", arguments, {"reverse", "case_sensitive", "attribute"});
  Items items = iterate(in.heap(), self);
  KeyedItems keyed(in, items.size());
  for (Value& item : items) {
    Value key = sort_key(in, item, p[2], p.boolean(1, false));
    keyed.add(std::move(key), std::move(item));
  }
  keyed.sort(p.flag(0, false));
  return keyed.list(in.heap());
}

Value filter_dictsort(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p("dictsort", a, {"case_sensitive", "by", "reverse"});
  const std::string_view by = p.text(1, "key");
  if (by != "key" && by != "value") {
    fail(
        ErrorKind::InvalidInput,
        "dictsort: found by={}, expected key or value",
        quote(by));
  }
  require_defined(self);
  if (!self.is(Type::Dict)) {
    fail(
        ErrorKind::InvalidInput,
        "dictsort: found a {}, expected a dict",
        type_name(self));
  }
  KeyedItems keyed(in, self.dict().items().size());
  for (const auto& [key, value] : self.dict().items()) {
    keyed.add(
        fold_case(in, by == "key" ? key : value, p.boolean(0, false)),
        in.heap().pair(key, value));
  }
  keyed.sort(p.flag(2, false));
  return keyed.list(in.heap());
}

// Items of an equal attribute together, in its order. Without case, the first
// item's spelling names its group.
Value filter_groupby(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p(
      "groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const bool case_sensitive = p.boolean(2, false);
  Items items = iterate(in.heap(), self);
  KeyedItems keyed(in, items.size());
  for (Value& item : items) {
    Value key =
        fold_case(in, get_path(in.heap(), item, p[0], p[1]), case_sensitive);
    keyed.add(std::move(key), std::move(item));
  }
  keyed.sort(false);
  const auto& rows = keyed.rows();
  Items groups = in.heap().items();
  for (std::size_t i = 0; i < rows.size();) {
    Items members = in.heap().items();
    const Keyed& first = rows[i];
    while (i < rows.size() && equal(&in.budget(), rows[i].key, first.key)) {
      members.push(rows[i++].item);
    }
    if (members.empty()) { // a NaN equals nothing
      members.push(rows[i++].item);
    }
    const Value grouper = case_sensitive
        ? first.key
        : get_path(in.heap(), first.item, p[0], p[1]);
    groups.push(in.heap().group(grouper, in.heap().list(std::move(members))));
  }
  return in.heap().list(std::move(groups));
}

Value filter_unique(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("unique", arguments, {"case_sensitive", "attribute"});
  std::unordered_set<std::string> known;
  Charge charge(&in.budget());
  Items out = in.heap().items();
  for (const Value& item : iterate(in.heap(), self)) {
    const Value key =
        fold_case(in, get_path(in.heap(), item, p[1]), p.boolean(0, false));
    std::string filed = hash_key(&in.budget(), key);
    charge.grow(96 + filed.size());
    if (known.insert(std::move(filed)).second) {
      out.push(item);
    }
  }
  return in.heap().iterator(std::move(out));
}

template <bool is_max>
Value filter_extreme(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("min", arguments, {"case_sensitive", "attribute"});
  const Items items = iterate(in.heap(), self);
  if (items.empty()) {
    return in.heap().undefined("No aggregated item, sequence was empty.");
  }
  const auto key = [&](const Value& item) {
    return fold_case(in, get_path(in.heap(), item, p[1]), p.boolean(0, false));
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
    total = binary(
        in.heap(), Operator::Add, total, get_path(in.heap(), item, p[0]));
  }
  return total;
}

constexpr Builtin kFilters[] = {
    {"dictsort", filter_dictsort},
    {"groupby", filter_groupby},
    {"max", filter_extreme<true>},
    {"min", filter_extreme<false>},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};

} // namespace

std::span<const Builtin> ordering_filters() {
  return kFilters;
}

} // namespace optiq::text::jinja
