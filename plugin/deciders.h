/* SPDX-License-Identifier: BSD-3-Clause */
/* Who else decides about access in this broker: an acl_file, another plugin. With auth.mqtt the plugin has to know,
 * because to Mosquitto 2.0 "I do not mind" from the only one who was asked means no. */
#ifndef MQSYNC_DECIDERS_H
#define MQSYNC_DECIDERS_H

#include <stdbool.h>

enum mqsync_deciders_kind {
    MQSYNC_DECIDERS_NONE,   /* nobody else */
    MQSYNC_DECIDERS_ACL,    /* an acl_file */
    MQSYNC_DECIDERS_PLUGIN, /* another plugin, which may or may not */
    MQSYNC_DECIDERS_UNKNOWN,
};

struct mqsync_deciders {
    enum mqsync_deciders_kind kind;
    bool asked_before; /* another plugin comes before this one, and may say yes to what this one would refuse */
    char where[300];   /* the file, or why it is not known */
};

/* Reads the configuration file that the running broker was started with. */
void mqsync_deciders_find(struct mqsync_deciders *ret);

#endif
