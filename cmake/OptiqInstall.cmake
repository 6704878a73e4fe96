# One imported target for consumers: optiq::optiq.
get_property(rooms GLOBAL PROPERTY OPTIQ_ROOMS)
set(library_rooms ${rooms})
list(REMOVE_ITEM library_rooms cli)
list(TRANSFORM library_rooms PREPEND optiq_)
add_library(optiq INTERFACE)
add_library(optiq::optiq ALIAS optiq)
target_link_libraries(optiq INTERFACE ${library_rooms})
