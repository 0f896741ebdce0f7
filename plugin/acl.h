/* SPDX-License-Identifier: BSD-3-Clause */
/* The plugin's part in the broker's access checks, with auth.mqtt: `read` and `owner` for what is subscribed to and for
 * each delivery below the root. What is published is for the pipeline to judge, which can say why not. */
#ifndef MQSYNC_ACL_H
#define MQSYNC_ACL_H

#include "plugin.h"

/* MOSQ_EVT_ACL_CHECK: MOSQ_ERR_ACL_DENIED, or p->allowed. */
int mqsync_acl_check(struct mqsync_plugin *p, const struct mosquitto_evt_acl_check *e);

#endif
