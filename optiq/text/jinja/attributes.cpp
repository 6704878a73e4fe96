// What object.name and object[key] are.
#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

std::string no_such(const Value& object, const std::string& what) {
  return fmt::format("'{}' object has no {}", type_name(object), what);
}

// loop.index, loop.first ...; nothing for other names.
std::optional<Value>
loop_attribute(const Heap& heap, const Loop& loop, const std::string& name) {
  const auto n = static_cast<std::int64_t>(loop.items.size());
  const std::int64_t i = loop.index0;
  const auto at = [&](std::int64_t index, const char* which) {
    return index >= 0 && index < n
        ? loop.items[static_cast<std::size_t>(index)]
        : heap.undefined(fmt::format("there is no {} item", which));
  };
  if (name == "index") {
    return Value(i + 1);
  }
  if (name == "index0") {
    return Value(i);
  }
  if (name == "revindex") {
    return Value(n - i);
  }
  if (name == "revindex0") {
    return Value(n - i - 1);
  }
  if (name == "first") {
    return Value(i == 0);
  }
  if (name == "last") {
    return Value(i == n - 1);
  }
  if (name == "length") {
    return Value(n);
  }
  if (name == "depth") {
    return Value(std::int64_t{loop.depth0} + 1);
  }
  if (name == "depth0") {
    return Value(std::int64_t{loop.depth0});
  }
  if (name == "previtem") {
    return at(i - 1, "previous");
  }
  if (name == "nextitem") {
    return at(i + 1, "next");
  }
  return std::nullopt;
}

std::optional<Value> number_attribute(
    const Value& number,
    const std::string& name) {
  if (name == "real") {
    return number.is(Type::Bool) ? Value(number.integer()) : number;
  }
  if (name == "imag") {
    return number.is(Type::Float) ? Value(0.0) : Value(std::int64_t{0});
  }
  if (name == "numerator" && number.is_integral()) {
    return number.is(Type::Bool) ? Value(number.integer()) : number;
  }
  if (name == "denominator" && number.is_integral()) {
    return Value(std::int64_t{1});
  }
  return std::nullopt;
}

std::optional<Value> sequence_attribute(
    const Sequence& sequence,
    const std::string& name) {
  if (sequence.is_group && (name == "grouper" || name == "list")) {
    return sequence.items[name == "grouper" ? 0 : 1];
  }
  if (sequence.range != nullptr) {
    const RangeBounds& bounds = *sequence.range;
    if (name == "start" || name == "stop" || name == "step") {
      return name == "start" ? bounds.start
          : name == "stop"   ? bounds.stop
                             : bounds.step;
    }
  }
  return std::nullopt;
}

std::optional<Value> cycler_attribute(
    const Heap& heap,
    const Cycler& cycler,
    const std::string& name) {
  if (name == "current") {
    return cycler.items[cycler.position];
  }
  if (name == "pos") {
    return Value(static_cast<std::int64_t>(cycler.position));
  }
  if (name == "items") {
    Items items = heap.items();
    items.append(cycler.items);
    return heap.tuple(std::move(items));
  }
  return std::nullopt;
}

std::optional<Value>
macro_attribute(const Heap& heap, const Macro& macro, const std::string& name) {
  if (name == "name") {
    return heap.string(macro.name);
  }
  if (name == "catch_kwargs" || name == "catch_varargs" || name == "caller") {
    return Value(
        name == "caller"             ? macro.source->uses_caller
            : name == "catch_kwargs" ? macro.source->uses_kwargs
                                     : macro.source->uses_varargs);
  }
  return std::nullopt;
}

// What `object.name` is without being a method.
std::optional<Value>
find_property(const Heap& heap, const Value& object, const std::string& name) {
  switch (object.type()) {
    case Type::Bool:
    case Type::Int:
    case Type::LargeInt:
    case Type::Float:
      return number_attribute(object, name);
    case Type::Sequence:
      return sequence_attribute(object.sequence(), name);
    case Type::Loop:
      return loop_attribute(heap, object.loop(), name);
    case Type::Cycler:
      return cycler_attribute(heap, object.cycler(), name);
    case Type::Macro:
      return macro_attribute(heap, object.macro(), name);
    case Type::Joiner:
      return name == "sep" ? std::optional<Value>(object.joiner().separator)
          : name == "used" ? std::optional<Value>(object.joiner().is_used)
                           : std::nullopt;
    case Type::Namespace: {
      const Value* value = object.name_space().find(name);
      return value == nullptr ? std::nullopt : std::optional<Value>(*value);
    }
    default:
      return std::nullopt;
  }
}

// What object.name is, before items of that key are considered.
std::optional<Value>
own_attribute(const Heap& heap, const Value& object, const std::string& name) {
  require_defined(object);
  if (auto value = find_property(heap, object, name)) {
    return value;
  }
  Value method = find_method(heap, object, name);
  return method.is_none() ? std::nullopt
                          : std::optional<Value>(std::move(method));
}

// object[key], where there is such a thing.
std::optional<Value>
own_item(const Heap& heap, const Value& object, const Value& key) {
  if (object.is(Type::Dict)) {
    if (key.is(Type::Dict) || key.is(SequenceKind::List)) {
      return std::nullopt;
    }
    const Value* value = object.dict().find(hash_key(heap.budget(), key));
    return value == nullptr ? std::nullopt : std::optional<Value>(*value);
  }
  const bool is_indexed = object.is_string() || object.is(SequenceKind::List) ||
      object.is(SequenceKind::Tuple) || object.is(SequenceKind::Range);
  if (!is_indexed || !key.is_integral()) {
    return std::nullopt;
  }
  if (!key.is_small()) {
    return std::nullopt; // Python's IndexError
  }
  const auto n = static_cast<std::int64_t>(*length_of(object));
  const std::int64_t index =
      key.integer() < 0 ? key.integer() + n : key.integer();
  if (index < 0 || index >= n) {
    return std::nullopt;
  }
  if (!object.is_string()) {
    return object.items()[static_cast<std::size_t>(index)];
  }
  return slice(heap, object, Value(index), Value(index + 1), Value());
}

const BuiltinTable* methods_of(const Value& object) {
  switch (object.type()) {
    case Type::String:
      return &string_methods();
    case Type::Sequence:
      return object.is(SequenceKind::List) ? &list_methods()
          : object.is(SequenceKind::Tuple) || object.is(SequenceKind::Range)
          ? &tuple_methods()
          : nullptr;
    case Type::Dict:
      return &dict_methods();
    case Type::Bool:
    case Type::Int:
    case Type::LargeInt:
      return &integer_methods();
    case Type::Float:
      return &float_methods();
    case Type::Loop:
      return &loop_methods();
    case Type::Cycler:
      return &cycler_methods();
    default:
      return nullptr;
  }
}

bool changes_its_object(const Value& object, std::string_view name) {
  constexpr std::string_view kOfList[] = {
      "append",
      "clear",
      "pop",
      "reverse",
      "insert",
      "sort",
      "extend",
      "remove"};
  constexpr std::string_view kOfDict[] = {
      "clear", "pop", "popitem", "setdefault", "update"};
  const auto among = [name](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) !=
        std::end(names);
  };
  return (object.is(SequenceKind::List) && among(kOfList)) ||
      (object.is(Type::Dict) && among(kOfDict));
}

} // namespace

Value find_method(
    const Heap& heap,
    const Value& object,
    const std::string& name) {
  if (changes_its_object(object, name)) {
    return heap.undefined(fmt::format(
        "access to attribute '{}' of '{}' object is unsafe: templates cannot "
        "change data. Use + or a namespace",
        name,
        type_name(object)));
  }
  if (object.is(Type::Function) && name == "fromkeys" &&
      object.function().builtin == globals().find("dict")) {
    return heap.function(*dict_methods().find(name), Value());
  }
  const BuiltinTable* methods = methods_of(object);
  if (methods == nullptr) {
    return Value();
  }
  const Builtin* method = methods->find(name);
  if (method == nullptr) {
    if (object.is_string() && is_left_out("method", name)) {
      fail(ErrorKind::Unsupported, "{}", unknown_builtin("method", name));
    }
    return Value();
  }
  return heap.function(*method, object);
}

Value get_attribute(
    const Heap& heap,
    const Value& object,
    const std::string& name) {
  if (auto value = own_attribute(heap, object, name)) {
    return *value;
  }
  if (object.is(Type::Dict)) {
    const Value* value = object.dict().find(name);
    if (value != nullptr) {
      return *value;
    }
  }
  return heap.undefined(no_such(object, "attribute " + quote(name)));
}

Value get_item(const Heap& heap, const Value& object, const Value& key) {
  require_defined(object);
  if (auto value = own_item(heap, object, key)) {
    return *value;
  }
  if (key.is_string()) {
    if (auto value = own_attribute(heap, object, key.text())) {
      return *value;
    }
    return heap.undefined(no_such(object, "attribute " + quote(key.text())));
  }
  return heap.undefined(no_such(object, "such item"));
}

Value get_path(
    const Heap& heap,
    const Value& object,
    const Value& path,
    const Value& otherwise) {
  const auto or_else = [&](const Value& value) {
    return value.is_undefined() && !otherwise.is_none() ? otherwise : value;
  };
  if (path.is_none()) {
    return object;
  }
  if (!path.is_string()) {
    return or_else(get_item(heap, object, path));
  }
  meter(heap.budget(), path.text().size());
  Value at = object;
  std::string_view rest = path.text();
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const bool is_index =
        part.find_first_not_of("0123456789") == std::string_view::npos;
    const auto index = is_index ? parse_integer(part, 10) : std::nullopt;
    at = or_else(
        get_item(heap, at, index ? heap.integer(*index) : heap.string(part)));
    if (dot == std::string_view::npos) {
      return at;
    }
    rest = rest.substr(dot + 1);
  }
}

} // namespace optiq::text::jinja
