// json.dumps and json.loads of Python, as far as templates reach them.
#include <algorithm>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/text_impl.h"
#include "optiq/text/jinja/variables_impl.h"

namespace optiq::text::jinja {
namespace {

void write_character(Text& out, std::int32_t c, bool ensure_ascii) {
  constexpr std::string_view kFrom = "\"\\\n\r\t\f\b";
  constexpr std::string_view kTo = "\"\\nrtfb";
  const std::size_t known = c < 0x20 || c == '"' || c == '\\'
      ? kFrom.find(static_cast<char>(c))
      : std::string_view::npos;
  if (known != std::string_view::npos) {
    out.append('\\');
    out.append(kTo[known]);
  } else if (c < 0x20 || (ensure_ascii && c > 0x7E)) {
    if (c >= 0x10000) {
      const std::int32_t rest = c - 0x10000;
      out.append(fmt::format(
          "\\u{:04x}\\u{:04x}",
          0xD800 + (rest >> 10),
          0xDC00 + (rest & 0x3FF)));
    } else {
      out.append(fmt::format("\\u{:04x}", c));
    }
  } else {
    append_utf8(out, c);
  }
}

void write_string(Text& out, std::string_view text, bool ensure_ascii) {
  out.append('"');
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    write_character(out, c.value, ensure_ascii);
    at = c.next;
  }
  out.append('"');
}

std::string number_text(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-Infinity" : "Infinity";
  }
  return repr(value);
}

class Writer {
 public:
  Writer(Text& out, const JsonStyle& style) : out_(out), style_(style) {}

  void write(const Value& value, int level) {
    meter(out_.budget());
    switch (value.type()) {
      case Type::None:
        out_.append("null");
        break;
      case Type::Bool:
        out_.append(value.boolean() ? "true" : "false");
        break;
      case Type::Int:
      case Type::LargeInt:
        out_.append(decimal(value));
        break;
      case Type::Float:
        out_.append(number_text(value.real()));
        break;
      case Type::String:
        write_string(out_, value.text(), style_.ensure_ascii);
        break;
      case Type::Dict:
        write_dict(value.dict(), level);
        break;
      default:
        if (!value.is(SequenceKind::List) && !value.is(SequenceKind::Tuple)) {
          refuse(value);
        }
        write_list(value.items(), level);
    }
  }

 private:
  [[noreturn]] static void refuse(const Value& value) {
    fail(
        ErrorKind::InvalidInput,
        "tojson: object of type {} is not JSON serializable{}",
        type_name(value),
        value.is_undefined() ? ": " + value.reason() : "");
  }

  void line_break(int level) {
    if (style_.indent) {
      out_.append('\n');
      out_.append_times(*style_.indent, static_cast<std::size_t>(level));
    }
  }

  void write_list(const Items& items, int level) {
    if (items.empty()) {
      out_.append("[]");
      return;
    }
    out_.append('[');
    for (std::size_t i = 0; i < items.size(); ++i) {
      out_.append(i == 0 ? "" : style_.item_separator);
      line_break(level + 1);
      write(items[i], level + 1);
    }
    line_break(level);
    out_.append(']');
  }

  void write_key(const Value& key) {
    if (key.is_string()) {
      write_string(out_, key.text(), style_.ensure_ascii);
    } else if (key.is_none() || key.is_number()) {
      out_.append('"');
      write(key, 0);
      out_.append('"');
    } else {
      fail(
          ErrorKind::InvalidInput,
          "tojson: found a {} as a key, expected a string",
          type_name(key));
    }
  }

  void write_dict(const Dict& dict, int level) {
    if (dict.items().empty()) {
      out_.append("{}");
      return;
    }
    const Charge charge(out_.budget(), 2 * dict.items().size() * sizeof(void*));
    std::vector<const Dict::Item*> items;
    items.reserve(dict.items().size());
    for (const Dict::Item& item : dict.items()) {
      items.push_back(&item);
    }
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [&](auto* a, auto* b) {
        return less(out_.budget(), a->first, b->first);
      });
    }
    out_.append('{');
    for (const auto* item : items) {
      out_.append(item == items.front() ? "" : style_.item_separator);
      line_break(level + 1);
      write_key(item->first);
      out_.append(style_.key_separator);
      write(item->second, level + 1);
    }
    line_break(level);
    out_.append('}');
  }

  Text& out_;
  const JsonStyle& style_;
};

/** Makes values of what nlohmann's parser reads, so that no tree stands between
 * the text and the values that are counted. Its functions have the names that
 * the parser calls. */
class Reader : public nlohmann::json_sax<artifacts::Json> {
 public:
  explicit Reader(const Heap& heap) : heap_(heap) {}

  bool null() override {
    return add(Value());
  }
  bool boolean(bool value) override {
    return add(Value(value));
  }
  bool number_integer(number_integer_t value) override {
    return add(Value(std::int64_t{value}));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return add(heap_.integer(*BigInteger::parse(fmt::format("{}", value), 10)));
  }
  // Integers beyond 64 bits come here too.
  bool number_float(number_float_t value, const string_t& text) override {
    const bool is_integer = text.find_first_of(".eE") == string_t::npos;
    const auto integer = is_integer ? parse_integer(text, 10) : std::nullopt;
    if (is_integer && !integer) {
      fail(
          ErrorKind::InvalidInput,
          "from_json: found an integer of more than 4300 digits");
    }
    return add(integer ? heap_.integer(*integer) : Value(value));
  }
  bool string(string_t& value) override {
    return add(heap_.string(value));
  }
  bool binary(binary_t&) override {
    return false; // JSON has none
  }
  bool start_object(std::size_t) override {
    return open({heap_.dict(), heap_.items(), Value()});
  }
  bool key(string_t& value) override {
    open_.back().key = heap_.string(value);
    return true;
  }
  bool end_object() override {
    Value made{std::move(open_.back().dict)};
    open_.pop_back();
    return add(std::move(made));
  }
  bool start_array(std::size_t) override {
    return open({nullptr, heap_.items(), Value()});
  }
  bool end_array() override {
    Value made = heap_.list(std::move(open_.back().items));
    open_.pop_back();
    return add(std::move(made));
  }
  bool parse_error(
      std::size_t position,
      const std::string&,
      const nlohmann::detail::exception&) override {
    fail(
        ErrorKind::InvalidInput,
        "from_json: found no JSON at byte {}",
        position);
  }

  Value take() {
    return std::move(root_);
  }

 private:
  struct Level {
    std::shared_ptr<Dict> dict; // null in an array
    Items items;
    Value key;
  };

  bool open(Level level) {
    require_nesting(static_cast<int>(open_.size()));
    open_.push_back(std::move(level));
    return true;
  }

  bool add(Value value) {
    meter(heap_.budget());
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().dict != nullptr) {
      open_.back().dict->set(std::move(open_.back().key), std::move(value));
    } else {
      open_.back().items.push(std::move(value));
    }
    return true;
  }

  const Heap& heap_;
  std::vector<Level> open_;
  Value root_;
};

Value value_of(const Heap& heap, const artifacts::Json& json, int nesting) {
  require_nesting(nesting);
  switch (json.type()) {
    case artifacts::Json::value_t::boolean:
      return Value(json.get<bool>());
    case artifacts::Json::value_t::number_integer:
      return Value(json.get<std::int64_t>());
    case artifacts::Json::value_t::number_unsigned:
      return heap.integer(
          *BigInteger::parse(fmt::format("{}", json.get<std::uint64_t>()), 10));
    case artifacts::Json::value_t::number_float:
      return Value(json.get<double>());
    case artifacts::Json::value_t::string:
      return heap.string(json.get_ref<const std::string&>());
    case artifacts::Json::value_t::array: {
      Items made = heap.items();
      made.reserve(json.size());
      for (const auto& item : json) {
        made.push(value_of(heap, item, nesting + 1));
      }
      return heap.list(std::move(made));
    }
    case artifacts::Json::value_t::object: {
      auto made = heap.dict();
      for (const auto& [key, value] : json.items()) {
        made->set(heap.string(key), value_of(heap, value, nesting + 1));
      }
      return Value(std::move(made));
    }
    default:
      return Value();
  }
}

} // namespace

void write_json(Text& out, const Value& value, const JsonStyle& style) {
  Writer(out, style).write(value, 0);
}

std::vector<std::optional<Value>> variables_of(
    const Template& parsed,
    const artifacts::Json& variables) {
  const Heap callers_data(nullptr); // not the template's to pay for
  std::vector<std::optional<Value>> values(parsed.symbols.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto at = variables.find(parsed.symbols[i]);
    if (at != variables.end()) {
      values[i] = value_of(callers_data, *at, 0);
    }
  }
  return values;
}

Value read_json(const Heap& heap, std::string_view text) {
  // The parser takes a zero byte for the end and ignores what follows it.
  const std::size_t zero = text.find('\0');
  if (zero != std::string_view::npos) {
    fail(ErrorKind::InvalidInput, "from_json: found no JSON at byte {}", zero);
  }
  const Charge charge(heap.budget(), 2 * text.size()); // its longest token
  Reader reader(heap);
  artifacts::Json::sax_parse(text, &reader);
  return reader.take();
}

} // namespace optiq::text::jinja
