// json.dumps and json.loads of Python, as far as templates reach them.
#include <algorithm>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

void write_escaped(std::string& out, std::int32_t c, bool ensure_ascii) {
  constexpr std::string_view kFrom = "\"\\\n\r\t\f\b";
  constexpr std::string_view kTo = "\"\\nrtfb";
  const std::size_t known = c < 0x20 || c == '"' || c == '\\'
      ? kFrom.find(static_cast<char>(c))
      : std::string_view::npos;
  if (known != std::string_view::npos) {
    out += '\\';
    out += kTo[known];
  } else if (c < 0x20 || (ensure_ascii && c > 0x7E)) {
    if (c >= 0x10000) {
      const std::int32_t rest = c - 0x10000;
      out += fmt::format(
          "\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    } else {
      out += fmt::format("\\u{:04x}", c);
    }
  } else {
    append_utf8(out, c);
  }
}

void write_string(std::string& out, std::string_view text, bool ensure_ascii) {
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    write_escaped(out, c.value, ensure_ascii);
    at = c.next;
  }
  out += '"';
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
  Writer(Budget* budget, const JsonStyle& style)
      : budget_(budget), style_(style) {}

  std::string take() {
    return std::move(out_);
  }

  void write(const Value& value, int level) {
    const std::size_t bytes = value.is_string() ? value.text().size() : 8;
    budget_->work(bytes);
    budget_->require(out_.size() + bytes);
    switch (value.type()) {
      case Type::None:
        out_ += "null";
        break;
      case Type::Bool:
        out_ += value.boolean() ? "true" : "false";
        break;
      case Type::Int:
        out_ += fmt::format("{}", value.integer());
        break;
      case Type::Float:
        out_ += number_text(value.real());
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
        write_list(value.sequence().items, level);
    }
  }

 private:
  [[noreturn]] static void refuse(const Value& value) {
    fail(
        ErrorKind::InvalidInput,
        "tojson: object of type {} is not JSON serializable{}",
        type_name(value),
        value.is_undefined() ? ": " + *value.undefined().reason : "");
  }

  void line_break(int level) {
    if (style_.indent) {
      budget_->require(
          out_.size() + style_.indent->size() * static_cast<unsigned>(level));
      out_ += '\n';
      for (int i = 0; i < level; ++i) {
        budget_->work(style_.indent->size());
        out_ += *style_.indent;
      }
    }
  }

  void write_list(const std::vector<Value>& items, int level) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      out_ += i == 0 ? "" : style_.item_separator;
      line_break(level + 1);
      write(items[i], level + 1);
    }
    line_break(level);
    out_ += ']';
  }

  void write_key(const Value& key) {
    switch (key.type()) {
      case Type::String:
        write_string(out_, key.text(), style_.ensure_ascii);
        break;
      case Type::None:
      case Type::Bool:
      case Type::Int:
      case Type::Float:
        out_ += '"';
        write(key, 0);
        out_ += '"';
        break;
      default:
        fail(
            ErrorKind::InvalidInput,
            "tojson: found a {} as a key, expected a string",
            type_name(key));
    }
  }

  void write_dict(const Dict& dict, int level) {
    if (dict.items.empty()) {
      out_ += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) {
      items.push_back(&item);
    }
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [&](auto* a, auto* b) {
        return less(budget_, a->first, b->first);
      });
    }
    out_ += '{';
    for (const auto* item : items) {
      out_ += item == items.front() ? "" : style_.item_separator;
      line_break(level + 1);
      budget_->require(out_.size());
      write_key(item->first);
      out_ += style_.key_separator;
      write(item->second, level + 1);
    }
    line_break(level);
    out_ += '}';
  }

  Budget* budget_;
  const JsonStyle& style_;
  std::string out_;
};

} // namespace

std::string
dump_json(Budget* budget, const Value& value, const JsonStyle& style) {
  Writer writer(budget, style);
  writer.write(value, 0);
  return writer.take();
}

} // namespace optiq::text::jinja
