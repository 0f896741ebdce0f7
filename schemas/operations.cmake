# SPDX-License-Identifier: BSD-3-Clause
# Turns operations.json into operations.gen.h: cmake -DIN=operations.json -DOUT=operations.gen.h -P operations.cmake
file(READ "${IN}" json)
string(JSON count LENGTH "${json}" operations)
math(EXPR last "${count} - 1")
set(types "")
set(rows "")
foreach(i RANGE ${last})
  string(JSON type GET "${json}" operations ${i} type)
  string(JSON access GET "${json}" operations ${i} access)
  string(TOUPPER "${type}" upper)
  string(TOUPPER "${access}" access_upper)
  string(APPEND types "    MQSYNC_TYPE_${upper},\n")
  set(flags "")
  foreach(list requires optional)
    string(JSON n LENGTH "${json}" operations ${i} ${list})
    set(mask "")
    if(n GREATER 0)
      math(EXPR n "${n} - 1")
      foreach(j RANGE ${n})
        string(JSON field GET "${json}" operations ${i} ${list} ${j})
        string(REPLACE "metadata." "" field "${field}")
        string(REGEX REPLACE "([A-Z])" "_\\1" field "${field}")
        string(TOUPPER "${field}" field)
        list(APPEND mask "MQSYNC_FIELD_${field}")
      endforeach()
    endif()
    if(mask)
      string(REPLACE ";" " | " mask "${mask}")
    else()
      set(mask "0")
    endif()
    list(APPEND flags "${mask}")
  endforeach()
  list(GET flags 0 requires)
  list(GET flags 1 optional)
  string(APPEND rows "    {\"${type}\", MQSYNC_ACCESS_${access_upper}, ${requires}, ${optional}}, \\\n")
endforeach()
set(text "/* Generated from schemas/operations.json; change that. */
#ifndef MQSYNC_OPERATIONS_GEN_H
#define MQSYNC_OPERATIONS_GEN_H

enum mqsync_type {
${types}    MQSYNC_TYPES_N
};

enum mqsync_access { MQSYNC_ACCESS_NONE, MQSYNC_ACCESS_READ, MQSYNC_ACCESS_WRITE };

enum mqsync_field {
    MQSYNC_FIELD_TOKEN = 1 << 0,
    MQSYNC_FIELD_COLLECTION = 1 << 1,
    MQSYNC_FIELD_RECORD_ID = 1 << 2,
    MQSYNC_FIELD_DATA = 1 << 3,
    MQSYNC_FIELD_TIMESTAMP = 1 << 4,
    MQSYNC_FIELD_MUTATION_ID = 1 << 5,
    MQSYNC_FIELD_BASE_VERSION = 1 << 6,
    MQSYNC_FIELD_IF_VERSION = 1 << 7,
    MQSYNC_FIELD_SINCE = 1 << 8,
    MQSYNC_FIELD_EPOCH = 1 << 9,
    MQSYNC_FIELD_SYNC = 1 << 10,
    MQSYNC_FIELD_UPDATES = 1 << 11,
    MQSYNC_FIELD_LIMIT = 1 << 12,
};

struct mqsync_operation {
    const char *type;
    enum mqsync_access access;
    unsigned requires_fields; /* of enum mqsync_field */
    unsigned optional_fields;
};

/* Rows in the order of enum mqsync_type: static const struct mqsync_operation table[] = {MQSYNC_OPERATIONS}; */
#define MQSYNC_OPERATIONS \\
${rows}

#endif
")
file(WRITE "${OUT}" "${text}")
