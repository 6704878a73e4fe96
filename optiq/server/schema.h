#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/json.h"

/** What JSON a request may hold, as data: it is checked against it, and the
 * OpenAPI file is made from it. */
namespace optiq::server {

struct Member;

/** The values that one place of a request may have. Made by the functions
 * below; null counts as absent wherever an object's member may be absent. */
struct Schema {
  enum class Kind {
    Any,
    Boolean,
    Integer, // of 64 bits, signed; 3.0 is one (JSON Schema 2020-12, 6.1.1)
    Number,
    String,
    Values, // one of those listed
    List,
    Object,
    Choice, // one of several schemas
  };
  Kind kind = Kind::Any;
  // Of numbers; the exclusive ones are no value themselves.
  std::optional<double> minimum;
  std::optional<double> maximum;
  bool above_minimum = false;
  bool below_maximum = false;
  // Bytes of strings, items of lists, members of objects.
  std::size_t min_size = 0;
  std::size_t max_size = std::numeric_limits<std::size_t>::max();
  std::vector<artifacts::Json> values;
  /** Other values are known to the protocol and not implemented. */
  bool others_are_unsupported = false;
  std::vector<Schema> alternatives; // of a choice; of a list, its items (one)
  std::vector<Member> members; // of an object, which may have others
  /** Of an object with any names: what each value is (none or one). */
  std::vector<Schema> any_member;
};

/** A named member of an object. */
struct Member {
  std::string name;
  Schema schema;
  std::string description;
  bool required = false;
};

Schema any();
Schema boolean();
Schema integer(double minimum, double maximum);
/** minimum <= x <= maximum. */
Schema number(double minimum, double maximum);
/** minimum < x <= maximum. */
Schema number_above(double minimum, double maximum);
/** minimum <= x < maximum. */
Schema number_below(double minimum, double maximum);
Schema string(std::size_t min_bytes, std::size_t max_bytes);
Schema one_of(std::vector<artifacts::Json> values);
/** Nothing but values that ask for nothing: others are not supported yet. */
Schema unsupported_but(std::vector<artifacts::Json> neutral);
Schema list(Schema item, std::size_t min_items, std::size_t max_items);
Schema object(std::vector<Member> members);
/** An object with names of the client's choice. */
Schema map(Schema value, std::size_t max_members);
Schema either(std::vector<Schema> alternatives);

/** In words: "a number from 0 to 2". */
std::string describe(const Schema& schema);

/** Throws a RequestError (400) that names `where` (what is asked), the field,
 * what was found and what is expected. */
void check(
    const artifacts::Json& value,
    const Schema& schema,
    const std::string& where);

/** As JSON Schema 2020-12, for OpenAPI 3.1. */
artifacts::Json json_schema(const Schema& schema);

} // namespace optiq::server
