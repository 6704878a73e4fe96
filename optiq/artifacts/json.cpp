#include "optiq/artifacts/json.h"

#include <cmath>
#include <iterator>
#include <unordered_map>

#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/base/printable.h"

namespace optiq::artifacts {
namespace {

constexpr std::size_t kMaxDepth = 200;
constexpr const char* kFloatKey = "__float__";
constexpr std::size_t kMaxReason = 100; // bytes
constexpr std::size_t kMaxShown = 60; // bytes of a value in a message

/**
 * Builds a Json from nlohmann's parse events. The library's own builder looks
 * every key up in the list of earlier ones: quadratic for a vocabulary, and
 * silent about duplicates.
 */
class JsonBuilder {
 public:
  JsonBuilder(
      const std::string& where,
      const JsonLimits& limits,
      DuplicateKeys duplicates,
      const JsonMember* on_member = nullptr)
      : where_(where),
        limits_(limits),
        duplicates_(duplicates),
        on_member_(on_member) {}

  Json take() {
    return std::move(root_);
  }

  bool null() {
    return add(nullptr);
  }
  bool boolean(bool value) {
    return add(value);
  }
  bool number_integer(Json::number_integer_t value) {
    return add(value);
  }
  bool number_unsigned(Json::number_unsigned_t value) {
    return add(value);
  }
  bool number_float(Json::number_float_t value, const std::string& /*text*/) {
    return add(value);
  }
  bool string(std::string& value) {
    n_bytes_ += value.size();
    return add(std::move(value));
  }
  bool binary(Json::binary_t& /*value*/) {
    return false; // text formats have none
  }
  bool start_object(std::size_t /*size*/) {
    return open(Json::object());
  }
  bool start_array(std::size_t /*size*/) {
    return open(Json::array());
  }
  bool end_object() {
    deliver();
    open_.pop_back();
    return true;
  }
  bool end_array() {
    open_.pop_back();
    return true;
  }

  bool key(std::string& name) {
    deliver();
    n_bytes_ += name.size();
    Level& level = open_.back();
    auto& members = level.value->get_ref<Json::object_t&>();
    if (on_member_ != nullptr && open_.size() == 1) {
      members.emplace_back(std::move(name), nullptr);
      level.member = 0;
      return true;
    }
    const auto [known, is_new] = level.keys.emplace(name, members.size());
    if (!is_new && duplicates_ == DuplicateKeys::Refuse) {
      fail(
          ErrorKind::Corrupt,
          "[parse_json] {}: key '{}' occurs twice in one object, expected "
          "once",
          where_,
          name);
    }
    if (is_new) {
      members.emplace_back(std::move(name), nullptr);
    }
    level.member = known->second;
    return true;
  }

  bool parse_error(
      std::size_t position,
      const std::string& token,
      const nlohmann::detail::exception& error) {
    fail(
        ErrorKind::Corrupt,
        "[parse_json] {}: not JSON at byte {}, near {}: {}",
        where_,
        position,
        shown(token),
        reason(error.what()));
  }

 private:
  struct Level {
    Json* value = nullptr;
    std::unordered_map<std::string, std::size_t> keys; // name -> member
    std::size_t member = 0; // that the next value belongs to
  };

  /** What remains of the library's message without its code, the place and
   * the token, which may be as long as the file. */
  static std::string reason(std::string_view message) {
    message = message.substr(0, message.find("; last read"));
    for (const std::string_view end_of_prefix : {"] ", "column ", ": "}) {
      const std::size_t at = message.find(end_of_prefix);
      if (at != std::string_view::npos) {
        message.remove_prefix(at + end_of_prefix.size());
      }
    }
    return std::string(message.substr(0, kMaxReason));
  }

  static std::string shown(const std::string& token) {
    return Json(token.substr(0, kMaxShown))
        .dump(-1, ' ', true, Json::error_handler_t::replace);
  }

  Json* place(Json&& value) {
    if (open_.empty()) {
      root_ = std::move(value);
      count_value();
      return &root_;
    }
    count_value();
    Level& level = open_.back();
    if (level.value->is_array()) {
      auto& items = level.value->get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    auto& members = level.value->get_ref<Json::object_t&>();
    Json& slot =
        std::next(members.begin(), static_cast<std::ptrdiff_t>(level.member))
            ->second;
    slot = std::move(value);
    return &slot;
  }

  /** Hands over the last member of the outermost object. */
  void deliver() {
    if (on_member_ == nullptr || open_.size() != 1) {
      return;
    }
    auto& members = open_.back().value->get_ref<Json::object_t&>();
    if (!members.empty()) {
      (*on_member_)(members.back().first, std::move(members.back().second));
      members.pop_back();
    }
    n_values_ = 0;
    n_bytes_ = 0;
  }

  /** Counts against the limits, before more memory is taken. */
  void count_value() {
    if (on_member_ != nullptr && open_.empty() && !root_.is_object()) {
      fail(
          ErrorKind::Corrupt,
          "[parse_json] {}: found {}, expected an object",
          where_,
          describe(root_));
    }
    if (++n_values_ > limits_.max_values) {
      fail_too_large(limits_.max_values, "values");
    }
    if (n_bytes_ > limits_.max_bytes) {
      fail_too_large(limits_.max_bytes, "bytes");
    }
  }

  [[noreturn]] void fail_too_large(std::size_t limit, const char* unit) {
    std::string culprit = where_;
    if (on_member_ != nullptr) {
      const auto& members = open_.front().value->get_ref<Json::object_t&>();
      culprit += fmt::format(
          ": '{}'", printable(members.back().first.substr(0, kMaxShown)));
    }
    fail(
        ErrorKind::Corrupt,
        "[parse_json] {}: found more than {} {}, expected at most that many",
        culprit,
        limit,
        unit);
  }

  bool add(Json&& value) {
    place(std::move(value));
    return true;
  }

  bool open(Json&& container) {
    if (open_.size() == kMaxDepth) {
      fail(
          ErrorKind::Corrupt,
          "[parse_json] {}: nested deeper than {} levels",
          where_,
          kMaxDepth);
    }
    // The pointer stays valid: a container grows only while it is innermost.
    open_.push_back({.value = place(std::move(container)), .keys = {}});
    return true;
  }

  const std::string& where_;
  JsonLimits limits_;
  DuplicateKeys duplicates_;
  const JsonMember* on_member_;
  std::size_t n_values_ = 0; // so far; of the member being read
  std::size_t n_bytes_ = 0; // of keys and strings, as n_values_
  Json root_;
  std::vector<Level> open_;
};

/** The library takes a zero byte for the end and ignores what follows it. */
void refuse_zero_bytes(std::string_view text, const std::string& where) {
  const std::size_t zero = text.find('\0');
  if (zero != std::string_view::npos) {
    fail(
        ErrorKind::Corrupt,
        "[parse_json] {}: not JSON at byte {}: found a zero byte",
        where,
        zero);
  }
}

/** Names of the numbers that JSON cannot write. */
std::string float_tag(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  return value > 0 ? "Infinity" : "-Infinity";
}

double tagged_float(const std::string& tag, const std::string& where) {
  using Limits = std::numeric_limits<double>;
  for (const double value :
       {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN()}) {
    if (tag == float_tag(value)) {
      return value;
    }
  }
  fail(
      ErrorKind::Corrupt,
      "[decode_tagged_floats] {}: '__float__' is '{}', expected Infinity, "
      "-Infinity or NaN",
      where,
      tag);
}

/** The value as JSON can hold it: see dump_json. */
Json writable(const Json& value) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    return {{kFloatKey, float_tag(value.get<double>())}};
  }
  if (value.is_string()) {
    return escape_invalid_utf8(value.get_ref<const std::string&>());
  }
  if (value.is_array()) {
    Json copy = Json::array();
    for (const Json& item : value) {
      copy.push_back(writable(item));
    }
    return copy;
  }
  if (value.is_object()) {
    Json copy = Json::object();
    auto& members = copy.get_ref<Json::object_t&>();
    for (const auto& [key, item] : value.items()) {
      members.emplace_back(escape_invalid_utf8(key), writable(item));
    }
    return copy;
  }
  return value;
}

} // namespace

Json parse_json(
    std::string_view text,
    const std::string& where,
    const JsonLimits& limits,
    DuplicateKeys duplicates) {
  if (text.size() > limits.max_bytes) {
    fail(
        ErrorKind::Corrupt,
        "[parse_json] {}: found {} bytes, expected at most {}",
        where,
        text.size(),
        limits.max_bytes);
  }
  refuse_zero_bytes(text, where);
  JsonBuilder builder(where, limits, duplicates);
  Json::sax_parse(text, &builder);
  return builder.take();
}

void parse_json_members(
    std::string_view text,
    const std::string& where,
    const JsonLimits& of_a_member,
    const JsonMember& on_member) {
  refuse_zero_bytes(text, where);
  JsonBuilder builder(where, of_a_member, DuplicateKeys::Refuse, &on_member);
  Json::sax_parse(text, &builder);
}

Json read_json_file(
    const std::filesystem::path& path,
    const JsonLimits& limits) {
  return parse_json(
      read_text_file(path, limits.max_bytes), path.string(), limits);
}

std::string dump_json(const Json& value, int indent) {
  return writable(value).dump(indent) + "\n";
}

void decode_tagged_floats(Json& value, const std::string& where) {
  if (value.is_object() && value.size() == 1 && value.contains(kFloatKey)) {
    value = tagged_float(required<std::string>(value, kFloatKey, where), where);
  } else if (value.is_structured()) {
    for (Json& item : value) {
      decode_tagged_floats(item, where);
    }
  }
}

std::string describe(const Json& value) {
  if (value.is_structured()) {
    return value.is_array() ? "a list" : "an object";
  }
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > kMaxShown ? "a long string" : text;
}

namespace detail {

void fail_missing(
    const std::string& where,
    const char* key,
    const std::string& expected) {
  fail(
      ErrorKind::Corrupt,
      "[required] {}: '{}' is missing, expected {}",
      where,
      key,
      expected);
}

void fail_type(
    const std::string& where,
    const char* key,
    const Json& found,
    const std::string& expected) {
  fail(
      ErrorKind::Corrupt,
      "[required] {}: '{}' is {}, expected {}",
      where,
      key,
      describe(found),
      expected);
}

} // namespace detail

const Json&
required_object(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) {
    detail::fail_missing(where, key, "an object");
  }
  if (!found->is_object()) {
    detail::fail_type(where, key, *found, "an object");
  }
  return *found;
}

} // namespace optiq::artifacts
