#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "optiq/server/schema.h"

namespace optiq::server {

/** A field of a request: what it may hold, what it means, and where in the
 * struct it is read to. A request's fields are one table, from which it is
 * checked, read and documented. */
template <typename Request>
struct Field {
  Member member;
  /** Empty for what is checked and then says nothing. */
  std::function<void(const artifacts::Json& value, Request& request)> read;
};

template <typename Request>
using Fields = std::vector<Field<Request>>;

namespace detail {

template <typename T>
inline constexpr bool kIsOptional = false;
template <typename T>
inline constexpr bool kIsOptional<std::optional<T>> = true;

template <typename Value>
Value value_of(const artifacts::Json& checked) {
  if constexpr (kIsOptional<Value>) {
    return value_of<typename Value::value_type>(checked);
  } else {
    return checked.get<Value>();
  }
}

} // namespace detail

/** Reads a checked value into a member. */
template <typename Request, typename Value>
std::function<void(const artifacts::Json&, Request&)> into(
    Value Request::*member) {
  return [member](const artifacts::Json& value, Request& request) {
    request.*member = detail::value_of<Value>(value);
  };
}

/** Fields of a part of a request, as fields of the whole. */
template <typename Request, typename Part>
void add_fields(
    Fields<Request>& fields,
    const Fields<Part>& of_part,
    Part Request::*part) {
  for (const Field<Part>& field : of_part) {
    fields.push_back({field.member, {}});
    if (field.read) {
      fields.back().read = [read = field.read, part](
                               const artifacts::Json& value, Request& request) {
        read(value, request.*part);
      };
    }
  }
}

/** What the body of a request may hold. */
template <typename Request>
Schema schema_of(const Fields<Request>& fields) {
  std::vector<Member> members;
  for (const Field<Request>& field : fields) {
    members.push_back(field.member);
  }
  return object(std::move(members));
}

/** Reads the members of a checked object over `request`; null is as good as
 * absent. */
template <typename Request>
Request read_members(
    const artifacts::Json& checked,
    const Fields<Request>& fields,
    Request request = {}) {
  for (const Field<Request>& field : fields) {
    const auto value = checked.find(field.member.name);
    if (field.read && value != checked.end() && !value->is_null()) {
      field.read(*value, request);
    }
  }
  return request;
}

/** Checks a body and reads it; null is as good as absent. Throws a RequestError
 * that names the field; `where` names what is asked. */
template <typename Request>
Request read_fields(
    const artifacts::Json& body,
    const Fields<Request>& fields,
    const std::string& where) {
  check(body, schema_of(fields), where);
  return read_members(body, fields);
}

} // namespace optiq::server
