// pprint.pformat: a value in lines of 80 characters where it does not fit one.
// Follows the layout of Python's module step by step.
#include <algorithm>

#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

constexpr std::int64_t kWidth = 80;

std::int64_t length_of_text(const Text& text) {
  return static_cast<std::int64_t>(count_code_points(text.str()));
}

std::string type_rank(const Value& value) {
  return type_name(value);
}

// Keys in order; those that have none between them by their types.
std::vector<const Dict::Item*> sorted_items(Budget* budget, const Dict& dict) {
  std::vector<const Dict::Item*> items;
  items.reserve(dict.items().size());
  for (const Dict::Item& item : dict.items()) {
    items.push_back(&item);
  }
  const auto has_order = [](const Value& a, const Value& b) {
    return (a.is_number() && b.is_number()) || (a.is_string() && b.is_string());
  };
  std::stable_sort(items.begin(), items.end(), [&](auto* a, auto* b) {
    const Value& x = a->first;
    const Value& y = b->first;
    return has_order(x, y) ? less(budget, x, y) : type_rank(x) < type_rank(y);
  });
  return items;
}

class PrettyPrinter {
 public:
  explicit PrettyPrinter(Text& out) : out_(out), budget_(out.budget()) {}

  void write(
      const Value& value,
      std::int64_t indent,
      std::int64_t allowance,
      int level) {
    require_nesting(level);
    Text whole(budget_);
    write_sorted(whole, value, level);
    const bool fits = length_of_text(whole) <= kWidth - indent - allowance;
    if (fits || !write_lines(value, indent, allowance, level + 1)) {
      out_.append(whole.str());
    }
  }

 private:
  // repr(), with the keys of dicts in order.
  void write_sorted(Text& out, const Value& value, int level) {
    meter(budget_);
    require_nesting(level);
    if (value.is(Type::Dict)) {
      const Charge charge(budget_, bytes_of(value));
      out.append('{');
      const char* separator = "";
      for (const auto* item : sorted_items(budget_, value.dict())) {
        out.append(separator);
        write_sorted(out, item->first, level + 1);
        out.append(": ");
        write_sorted(out, item->second, level + 1);
        separator = ", ";
      }
      out.append('}');
    } else if (value.is(SequenceKind::List) || value.is(SequenceKind::Tuple)) {
      const bool is_list = value.is(SequenceKind::List);
      out.append(is_list ? '[' : '(');
      const char* separator = "";
      for (const Value& item : value.items()) {
        out.append(separator);
        write_sorted(out, item, level + 1);
        separator = ", ";
      }
      out.append(!is_list && value.items().size() == 1 ? "," : "");
      out.append(is_list ? ']' : ')');
    } else {
      write_repr(out, value);
    }
  }

  // False for what has no form of several lines.
  bool write_lines(
      const Value& value,
      std::int64_t indent,
      std::int64_t allowance,
      int level) {
    if (value.is(Type::Dict)) {
      out_.append('{');
      write_dict(value, indent, allowance + 1, level);
      out_.append('}');
    } else if (value.is(SequenceKind::List)) {
      out_.append('[');
      write_items(value.items(), indent, allowance + 1, level);
      out_.append(']');
    } else if (value.is(SequenceKind::Tuple) && !value.sequence().is_group) {
      const std::string_view end = value.items().size() == 1 ? ",)" : ")";
      out_.append('(');
      write_items(
          value.items(),
          indent,
          allowance + static_cast<std::int64_t>(end.size()),
          level);
      out_.append(end);
    } else if (value.is_string() && !value.is_markup()) {
      write_string(value.text(), indent, allowance, level);
    } else {
      return false;
    }
    return true;
  }

  void new_line(std::int64_t indent) {
    out_.append('\n');
    out_.append_times(" ", static_cast<std::size_t>(indent));
  }

  void write_dict(
      const Value& value,
      std::int64_t indent,
      std::int64_t allowance,
      int level) {
    const Charge charge(budget_, bytes_of(value));
    const auto items = sorted_items(budget_, value.dict());
    for (std::size_t i = 0; i < items.size(); ++i) {
      const bool is_last = i + 1 == items.size();
      Text key(budget_);
      write_sorted(key, items[i]->first, level);
      out_.append(key.str());
      out_.append(": ");
      write(
          items[i]->second,
          indent + 1 + length_of_text(key) + 2,
          is_last ? allowance : 1,
          level);
      if (!is_last) {
        out_.append(',');
        new_line(indent + 1);
      }
    }
  }

  void write_items(
      const Items& items,
      std::int64_t indent,
      std::int64_t allowance,
      int level) {
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) {
        out_.append(',');
        new_line(indent + 1);
      }
      write(items[i], indent + 1, i + 1 == items.size() ? allowance : 1, level);
    }
  }

  // A string as pieces that Python would join again, one a line.
  void write_string(
      const std::string& text,
      std::int64_t indent,
      std::int64_t allowance,
      int level) {
    const bool is_whole = level == 1;
    indent += is_whole ? 1 : 0;
    allowance += is_whole ? 1 : 0;
    const std::size_t n = count_lines(text);
    std::size_t i = 0;
    pieces_ = 0;
    piece_indent_ = indent;
    Text before(budget_); // the first piece waits for a second
    first_ = &before;
    split_lines(text, true, [&](std::string_view line) {
      const bool is_last = ++i == n;
      write_line(line, kWidth - indent, is_last ? allowance : 0, is_whole);
    });
    if (pieces_ == 1) {
      out_.append(before.str());
    } else if (is_whole && pieces_ > 1) {
      out_.append(')');
    }
  }

  static std::size_t count_lines(std::string_view text) {
    std::size_t n = 0;
    split_lines(text, true, [&n](std::string_view) { ++n; });
    return n;
  }

  void write_line(
      std::string_view line,
      std::int64_t width,
      std::int64_t allowance,
      bool is_whole) {
    if (quoted_length(line) <= width - allowance) {
      add_piece(line, is_whole);
      return;
    }
    std::size_t begin = 0; // of the piece
    for (std::size_t at = 0; at < line.size();) {
      const std::size_t end = end_of_word(line, at);
      const std::int64_t most = width - (end == line.size() ? allowance : 0);
      const auto candidate = line.substr(begin, end - begin);
      if (at > begin && quoted_length(candidate) > most) {
        add_piece(line.substr(begin, at - begin), is_whole);
        begin = at;
      }
      at = end;
    }
    add_piece(line.substr(begin), is_whole);
  }

  // After a run of what is no space and the spaces behind it.
  static std::size_t end_of_word(std::string_view text, std::size_t at) {
    for (const bool spaces : {false, true}) {
      while (at < text.size() &&
             is_space(code_point_at(text, at).value) == spaces) {
        at = code_point_at(text, at).next;
      }
    }
    return at;
  }

  std::int64_t quoted_length(std::string_view text) const {
    Text quoted(budget_);
    write_quoted(quoted, text);
    return length_of_text(quoted);
  }

  void add_piece(std::string_view piece, bool is_whole) {
    if (++pieces_ == 1) {
      write_quoted(*first_, piece);
      return;
    }
    if (pieces_ == 2) {
      out_.append(is_whole ? "(" : "");
      out_.append(first_->str());
    }
    new_line(piece_indent_);
    write_quoted(out_, piece);
  }

  Text& out_;
  Budget* budget_;
  // Of the string that is being written.
  std::size_t pieces_ = 0;
  std::int64_t piece_indent_ = 0;
  Text* first_ = nullptr;
};

} // namespace

void write_pretty(Text& out, const Value& value) {
  PrettyPrinter(out).write(value, 0, 0, 0);
}

} // namespace optiq::text::jinja
