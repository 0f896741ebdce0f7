/* SPDX-License-Identifier: BSD-3-Clause */
/* One message through decode, authorize, load, resolve, store, emit. */
#ifndef MQSYNC_PIPELINE_H
#define MQSYNC_PIPELINE_H

#include "plugin.h"

/* Takes a PUBLISH below the root, which arrived at now_ms, through; returns what the MOSQ_EVT_MESSAGE callback has to
 * return. Afterwards the PUBLISH in flight is the event of an accepted write, or swallowed, or refused. */
int mqsync_pipeline_run(struct mqsync_plugin *p, struct mosquitto_evt_message *event, int64_t now_ms);

#endif
