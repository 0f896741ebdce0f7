/* SPDX-License-Identifier: BSD-3-Clause */
/* Names and topics: what docs/protocol.md calls collection, recordId and root/{collection}/... */
#ifndef MQSYNC_TOPIC_H
#define MQSYNC_TOPIC_H

#include "buf.h"

#define MQSYNC_MAX_COLLECTION 64
#define MQSYNC_MAX_RECORD_ID 128

enum mqsync_op { MQSYNC_INSERT, MQSYNC_UPDATE, MQSYNC_DELETE };

enum mqsync_topic_kind {
    MQSYNC_TOPIC_OUTSIDE,   /* not below the root: none of our business */
    MQSYNC_TOPIC_CMD,       /* root/{collection}/cmd */
    MQSYNC_TOPIC_CMD_SHORT, /* root/{collection}/cmd/{recordId}/{op} */
    MQSYNC_TOPIC_BAD_CMD,   /* below cmd, but neither; or a bad collection or recordId: see mqsync_topic.wrong */
    MQSYNC_TOPIC_SERVER,    /* root/{collection}/{evt|rec|re}/...: only the plugin publishes here */
    MQSYNC_TOPIC_OTHER,     /* below the root, none of the above */
};

struct mqsync_topic {
    enum mqsync_topic_kind kind;
    struct mqsync_slice collection; /* slices of the topic */
    struct mqsync_slice record_id;
    enum mqsync_op op;
    const char *wrong; /* BAD_CMD: what is wrong and what was expected, static text */
};

/* 1 to MQSYNC_MAX_COLLECTION of A-Z a-z 0-9 _ . -; neither "." nor "..". */
bool mqsync_collection_valid(struct mqsync_slice name);
/* 1 to MQSYNC_MAX_RECORD_ID bytes of valid text (see below) without / + #. */
bool mqsync_record_id_valid(struct mqsync_slice id);
/* UTF-8 without control characters (C0, DEL, C1) or noncharacters: what Mosquitto takes for a string. */
bool mqsync_text_valid(struct mqsync_slice s);
/* 1 to 64 bytes: levels of A-Z a-z 0-9 _ . - joined by single slashes. */
bool mqsync_root_valid(struct mqsync_slice root);

/* Never fails; root has been checked. Runs for every message of the broker: topics outside leave after one comparison.
 */
void mqsync_topic_parse(struct mqsync_slice root, struct mqsync_slice topic, struct mqsync_topic *ret);

const char *mqsync_op_name(enum mqsync_op op); /* "insert", ... */

/* Appends client_id as one topic level: '/', '+', '#', control characters become '_', an empty one is "_". */
void mqsync_topic_add_client(struct mqsync_buf *out, struct mqsync_slice client_id);

#endif
