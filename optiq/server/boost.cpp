// What Asio and Beast have outside of templates, compiled once for the room.
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
