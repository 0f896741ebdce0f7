// SPDX-License-Identifier: BSD-3-Clause
// Random writes to few records, so that they meet: in every form, with every kind of time and metadata, and sent again.
import { isDeepStrictEqual as same } from 'node:util';
import { ReferenceRecord } from './reference.mjs';

const REMEMBERED = 30; // changes of a record, before another id is taken: 32 are, by mutationId
const START = Date.parse('2026-06-01T10:00:00.000Z');
const iso = (ms) => new Date(ms).toISOString();

export class Writes {
    records = []; // {collection, id, reference, seq, sent}
    n = 0;

    /** random: see randomness(); collections: of the configuration. */
    constructor(random, collections) {
        Object.assign(this, { random, collections });
    }

    chance(percent) {
        return this.random(100) < percent;
    }

    pick(list) {
        return list[this.random(list.length)];
    }

    record(collection) {
        const slot = this.pick('xyz');
        for (let age = 0; ; age++) {
            const id = `${slot}${age}`;
            let record = this.records.find((r) => r.collection === collection && r.id === id);
            if (!record) {
                record = { collection, id, reference: new ReferenceRecord(this.collections[collection]), seq: 0, sent: [] };
                this.records.push(record);
            }
            if (record.reference.changes.length < REMEMBERED) {
                return record;
            }
        }
    }

    data(type, collection) {
        const makers = {
            a: () => this.pick(['ana', 'bo', 'x']),
            b: () => this.pick([true, 'y', { k: this.random(2) }]),
            tags: () => Array.from({ length: this.random(4) }, () => this.pick(['r', 's', 1, { t: 1 }])),
            count: () => this.random(5) - 1,
            best: () => this.pick([1, 2.5, 7, 'none']),
            o: () => Object.fromEntries(['p', 'q'].filter(() => this.chance(60)).map((key) => [key, this.pick([1, ['r'], ['s', 't'], { z: 1 }])])),
        };
        const data = {};
        for (const [key, make] of Object.entries(makers).filter(() => this.chance(50))) {
            data[key] = type === 'update' && this.chance(20) ? null : make();
        }
        return collection === 'levels' && this.chance(60)
            ? { ...data, a: data.a ?? 'x', a_updatedAt: iso(START - this.random(5) * 1000) } : data;
    }

    /** Old, equal, to come, without a zone, of another zone, or none. */
    time({ updatedAt }) {
        const now = START + this.n * 900; // near enough to the one before to be taken for it
        const known = Number.isFinite(updatedAt) ? updatedAt : now;
        return this.pick([undefined, undefined, undefined, iso(now), iso(now), iso(known), iso(known - 1), iso(now - 60_000),
            iso(Date.now() + 3_600_000 + this.n * 5000), iso(Date.now() + 10_800_000).slice(0, -1), iso(now + 7_200_000).replace('Z', '+02:00')]);
    }

    /** By what form and QoS; MQTT 3.1.1 has no metadata in the short one. */
    by(peer, { metadata, timestamp, ...w }) {
        const form = this.pick(peer.forms);
        const responseTopic = peer.asks && this.chance(20) ? 'my/answers' : undefined;
        const bare = form === 'short' && peer.version !== 5;
        return { ...w, ...(!bare && { metadata, timestamp }), user: peer.user, form, qos: this.pick(peer.qos), responseTopic };
    }

    fresh(peer, { collection, id, reference }) {
        const type = this.pick(['insert', 'insert', 'update', 'update', 'update', 'delete']);
        const version = () => this.pick([reference.version, reference.version, Math.max(reference.version - 1, 0), 0, reference.version + 2]);
        const metadata = {
            ...(this.chance(45) && { mutationId: `m${this.n}` }),
            ...(this.chance(30) && { baseVersion: version() }),
            ...(this.chance(12) && { ifVersion: version() }),
        };
        return { type, collection, recordId: id, timestamp: this.time(reference), ...(type !== 'delete' && { data: this.data(type, collection) }),
            ...(Object.keys(metadata).length && { metadata }) };
    }

    /** As it was, or with a time a little off, or without what it was known by. */
    again({ metadata, timestamp, ...w }) {
        const off = timestamp?.endsWith('Z') && this.chance(25);
        return { ...w, timestamp: off ? iso(Date.parse(timestamp) + this.pick([-2001, -2000, 700, 2000, 2001])) : timestamp,
            ...(this.chance(80) && { metadata }) };
    }

    /** {peer, record, w}: who is to send what, and about which record. */
    make(peers, names) {
        const peer = this.pick(peers);
        const record = this.record(this.pick(names));
        const before = record.sent.length && this.chance(18) && this.pick(record.sent.slice(-12));
        const other = before && this.pick([peer, ...peers.filter((p) => p.user === before.user)]);
        const w = before ? this.by(other, this.again(before)) : this.by(peer, this.fresh(peer, record));
        // after a reconnect this would count as redelivered
        const last = record.reference.changes.at(-1);
        const ambiguous = last && !w.timestamp && !w.metadata?.mutationId && last.type === w.type && last.user === w.user && same(last.data, w.data);
        return ambiguous ? this.make(peers, names) : { peer: other || peer, record, w };
    }
}
