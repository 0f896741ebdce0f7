// SPDX-License-Identifier: BSD-3-Clause
// What a client has of one collection, made from nothing but the messages it was sent.
import assert from 'node:assert/strict';

function withDelta(data, delta) {
    const result = { ...data, ...delta };
    for (const [key, value] of Object.entries(delta)) {
        if (value === null) {
            delete result[key];
        }
    }
    return result;
}

export class Replica {
    /** full: the collection comes by /ws/{collection}, where an `update` carries the whole record. */
    constructor(collection, { full = false } = {}) {
        this.collection = collection;
        this.full = full;
        /** id -> {version, data} */
        this.records = new Map();
        this.seq = undefined;
        this.epoch = undefined;
        this.inSnapshot = false;
    }

    #page({ data, metadata }) {
        // an app of that kind drops nothing because it is not in a snapshot
        if (metadata.full && !this.inSnapshot && !this.full) {
            this.records.clear();
        }
        this.inSnapshot = metadata.full && metadata.more;
        for (const record of data.records) {
            this.records.set(record.id, { version: record.version, data: record.data });
        }
        for (const record of data.deleted ?? []) {
            this.records.delete(record.id);
        }
        this.seq = metadata.seq;
        this.epoch = metadata.epoch;
    }

    /** Takes one message in; those of other collections, and answers, are none of its business. */
    take(message) {
        const { type, collection, recordId, data, metadata } = message;
        if (collection !== this.collection) {
            return;
        }
        if (type === 'sync') {
            this.#page(message);
        } else if (type === 'subscribed') {
            this.epoch = metadata.epoch;
            this.inSnapshot = false;
            if (metadata.recordCount === 0) {
                this.seq ??= metadata.seq; // no page comes
            }
        } else if (type === 'delete') {
            this.records.delete(recordId);
            this.seq = metadata.seq;
        } else if (type === 'insert' || type === 'update') {
            const before = this.records.get(recordId);
            const whole = type === 'insert' || this.full || metadata.conflict;
            assert.ok(whole || before, `an update of ${recordId}, which is not there`);
            this.records.set(recordId, { version: metadata.version, data: whole ? data : withDelta(before.data, data) });
            this.seq = metadata.seq;
        }
    }

    /** [[id, version, data]...] in the order of ids. */
    list() {
        return [...this.records].map(([id, { version, data }]) => [id, version, data]).sort(([a], [b]) => (a < b ? -1 : 1));
    }
}
