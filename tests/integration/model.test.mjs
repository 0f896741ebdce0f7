// SPDX-License-Identifier: BSD-3-Clause
// Clients of every kind do anything in any order, one after the other, and what each of them is sent is foretold by a second
// writing of the rule (lib/reference.mjs). Broker and bridge are killed in between. MQSYNC_SEED=n: another run, or the
// same again; MQSYNC_OPS=n: so many writes.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { Bridge, token } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';
import { ctl } from '../lib/env.mjs';
import { HttpPeer, MqttPeer, WsPeer } from '../lib/peers.mjs';
import { randomness } from '../lib/random.mjs';
import { Writes } from '../lib/writes.mjs';

const SEEDS = process.env.MQSYNC_SEED ? [Number(process.env.MQSYNC_SEED)] : [1, 2];
const OPS = Number(process.env.MQSYNC_OPS ?? 220);
const DEATHS = 2;
const secret = 'a secret of the test';

const strategy = (name, ...fields) => ({ conflict: { strategy: name, ...(fields.length && { fields }) } });
const COLLECTIONS = {
    lww: {},
    server: strategy('serverWins'),
    client: strategy('clientWins'),
    arrays: strategy('mergeArrays', 'tags'),
    sums: { ...strategy('sumNumbers', 'count', 'best'), retain: true },
    max: strategy('maxValue', 'best', 'count'),
    fields: strategy('mergeFields', 'a', 'tags'),
    levels: strategy('fieldLevelLastWriteWins'),
    deep: strategy('deepMerge'),
    ups: { upsert: true, retain: true },
    upsmerge: { ...strategy('mergeFields', 'a', 'b'), upsert: true },
    owned: { owner: 'a', read: [], write: [], retain: true },
    ready: {},
};
const NAMES = Object.keys(COLLECTIONS).filter((name) => name !== 'ready');

const iso = (ms) => new Date(ms).toISOString();
const row = (r) => [r.id ?? r.recordId, r.version, r.updatedAt, r.data];
const byId = (rows) => [...rows].sort(([a], [b]) => (a < b ? -1 : 1));

class Run extends Writes {
    constructor(seed) {
        super(randomness(seed), COLLECTIONS);
        this.token = (user) => token(secret, { userId: user });
        this.seqs = {};
        this.log = [];
    }

    async start(options) {
        const config = { collections: COLLECTIONS, trustedUsers: ['the-bridge'] };
        this.broker = await Broker.start({ config });
        const keyFile = path.join(this.broker.directory, 'jwt.key');
        fs.writeFileSync(keyFile, secret);
        this.config = { ...config, auth: { jwt: { algorithm: 'HS256', keyFile } }, bridge: { username: 'the-bridge' } };
        this.bridge = await Bridge.start(this.broker, this.config, options);
        const any = { forms: ['long', 'short'], qos: [0, 1, 2] };
        this.observer = new MqttPeer(this, 'observer', { version: 5 });
        this.writers = [
            new MqttPeer(this, 'm4', { user: 'ana', ...any }),
            new MqttPeer(this, 'm5', { version: 5, user: 'bo', asks: true, ...any }),
            new MqttPeer(this, 'no local', { version: 5, user: 'ana', noLocal: true, ...any }),
            new MqttPeer(this, 'tunnel', { version: 5, tunnel: true, forms: ['short'] }),
            ...['ana', 'bo'].flatMap((user) => [new WsPeer(this, `ws ${user}`, { user }), new HttpPeer(this, `http ${user}`, { user })]),
        ];
        this.peers = [this.observer, new MqttPeer(this, 'whole', { full: true }), ...this.writers];
        this.http = this.peers.find((peer) => peer instanceof HttpPeer);
        this.movers = this.peers.filter((peer) => peer !== this.observer && !(peer instanceof HttpPeer));
        for (const peer of this.peers) {
            await peer.connect();
        }
        for (const peer of [this.observer, ...this.movers]) {
            for (const name of NAMES.filter(() => peer === this.observer || this.chance(60))) {
                await this.follow(peer, name, false);
            }
        }
    }

    // --- what comes of them

    sees(peer, collection, data) {
        return Boolean(data) && (collection !== 'owned' || peer instanceof MqttPeer || data.a === peer.user);
    }

    async write() {
        this.n++;
        const { peer, record, w } = this.make(this.writers.filter((p) => p.connected), NAMES);
        const { reference } = record;
        const zoned = /Z$|\+\d\d:\d\d$/.test(w.timestamp ?? '');
        const sentTime = Date.parse(zoned ? w.timestamp : `${w.timestamp}Z`);
        const before = { data: reference.data, updatedAt: reference.updatedAt };
        const begin = Date.now();
        const result = reference.write({ type: w.type, data: w.data, user: w.user, ...w.metadata, unbound: peer instanceof MqttPeer,
            sentTime, zoned, time: zoned && sentTime <= begin ? sentTime : Infinity });
        this.log.push(`${peer.name}: ${JSON.stringify(w)} on ${JSON.stringify(before.data)} => ${result.event ?? JSON.stringify(result)}, ${reference.version} ${JSON.stringify(reference.data)}`);
        record.sent.push(w);
        const answer = await peer.send(w);
        if (result.event) {
            await this.events(record, peer, { w, result, before, begin });
        }
        if (answer.http) {
            this.httpAnswer(record, w, result, answer.http);
        } else {
            this.answers(record, peer, w, result, answer.reason);
        }
    }

    async events(record, sender, { w, result, before, begin }) {
        const { collection, id, reference } = record;
        for (const peer of this.peers) {
            const [, following] = peer.following.find(([name]) => name === collection) ?? [];
            const was = this.sees(peer, collection, before.data), is = this.sees(peer, collection, reference.data);
            if (!following || (!was && !is)) {
                continue;
            }
            const lost = was && !is && Boolean(reference.data); // it is somebody else's now
            if (peer === sender && !peer.seesOwn && !lost) {
                following.records.delete(id);
                if (is) {
                    following.records.set(id, { version: reference.version, data: reference.data });
                }
                continue;
            }
            const e = await peer.next(collection);
            const where = `to ${peer.name}: ${JSON.stringify(e)}`;
            if (e.type === 'sync') { // with which a record may become his
                assert.ok(is && !was, where);
                following.takePages({ pages: [e], ...e.metadata }, true);
                assert.deepEqual(following.records.get(id), { version: reference.version, data: reference.data }, where);
                continue;
            }
            if (peer === this.observer) {
                this.accepted(record, result.change, e, { before, begin });
            }
            assert.deepEqual([e.type, e.recordId, e.metadata.version, e.metadata.seq, e.timestamp, e.metadata.userId],
                [!is ? 'delete' : !was ? 'insert' : result.event, id, reference.version, record.seq, iso(reference.updatedAt), w.user], where);
            assert.equal(e.metadata.mutationId, lost ? e.metadata.mutationId : w.metadata?.mutationId, where);
            assert.deepEqual(following.takeEvent(e, peer.full), is ? reference.data : undefined, where);
            const asSent = w.type === 'update' && was && is && !result.merged && !peer.full && collection !== 'owned';
            assert.deepEqual(e.data, asSent ? w.data : e.data, where);
        }
    }

    /** What only the event tells: seq, and when the write arrived. */
    accepted(record, change, { metadata: { seq }, timestamp }, { before, begin }) {
        const { collection, reference } = record;
        assert.ok(seq > (this.seqs[collection] ?? 0), `seq ${seq} after ${this.seqs[collection]}`);
        this.seqs[collection] = record.seq = change.seq = seq;
        if (reference.updatedAt === Infinity) {
            reference.updatedAt = Date.parse(timestamp);
            const arrived = reference.updatedAt >= begin && reference.updatedAt <= Date.now();
            assert.ok(arrived || reference.updatedAt === before.updatedAt, `arrived at ${timestamp}, sent after ${iso(begin)}`);
        }
    }

    answers({ collection, id, reference, seq }, peer, w, result, reason) {
        const { mutationId } = w.metadata ?? {};
        const got = peer.answers().map((m) => [m.type, m.code, m.metadata.version, m.metadata.seq, m.metadata.mutationId, m.metadata.conflict, m.data]);
        const expected = [];
        if (result.error) {
            expected.push(['error', result.error, result.version, undefined, mutationId, undefined, undefined]);
        }
        if (result.lost || result.merged) {
            expected.push([reference.data ? 'update' : 'delete', undefined, reference.version, seq, undefined, true, reference.data]);
        }
        if (mutationId && !result.error) {
            const change = result.copy ?? reference.changes.at(-1);
            expected.push(['ack', undefined, change.version, change.seq, mutationId, result.lost, undefined]);
        }
        assert.deepEqual(got, expected, `answers about ${collection}/${id}`);
        if (peer.version === 5 && w.qos) {
            assert.equal(reason === 0x87, Boolean(result.error), `reason code ${reason}`);
        }
    }

    httpAnswer({ reference }, w, result, { status, body, text }) {
        if (result.error === 'RECORD_NOT_FOUND' && w.type === 'delete') {
            assert.deepEqual([status, body.deleted], [200, true], text);
        } else if (result.error) {
            const wanted = { CONFLICT: 409, RECORD_NOT_FOUND: 404, UNAUTHORIZED: 403 }[result.error];
            assert.deepEqual([status, body.code, body.metadata.version], [wanted, result.error, result.version], text);
        } else {
            const change = result.copy ?? reference.changes.at(-1);
            const differs = Boolean(result.lost || result.merged);
            assert.deepEqual([status, body.version, body.seq], [200, change.version, change.seq], text);
            assert.deepEqual([body.conflict ?? false, body.data], [differs, differs ? reference.data : undefined], text);
        }
    }

    // --- who has what

    /** [id, version, updatedAt, data] of all that a peer sees, in the order of their last change. */
    state(collection, peer = this.observer) {
        return this.records.filter((r) => r.collection === collection && this.sees(peer, collection, r.reference.data))
            .sort((a, b) => a.seq - b.seq).map(({ id, reference: r }) => [id, r.version, iso(r.updatedAt), r.data]);
    }

    async follow(peer, collection, resume) {
        const since = resume ? peer.follows.get(collection).seq : -1;
        this.log.push(`${peer.name} follows ${collection}${resume ? ` since ${since}` : ''}`);
        const { subscribed, pages } = await peer.follow(collection, resume);
        const where = `${this.log.at(-1)}: ${JSON.stringify(pages)}`;
        const all = this.state(collection, peer);
        const changed = this.records.filter((r) => r.collection === collection && r.seq > since);
        assert.equal(subscribed.metadata.recordCount, all.length, where);
        assert.deepEqual(pages.flatMap((p) => p.data.records).map(row), all.filter(([id]) => changed.some((r) => r.id === id)), where);
        if (resume && collection !== 'owned') {
            assert.deepEqual(pages.flatMap((p) => p.data.deleted).map((r) => [r.id, r.version]).sort(),
                changed.filter((r) => !r.reference.data).map((r) => [r.id, r.reference.version]).sort(), where);
        }
    }

    /** Everybody has what there is, and was sent nothing else. */
    async settled() {
        for (const peer of this.peers.filter((p) => p.client && p.connected)) {
            assert.deepEqual(await peer.unread(), [], `${peer.name} was sent more`);
            for (const [collection, { records }] of peer.following) {
                const has = [...records].map(([id, r]) => [id, r.version, r.data]);
                assert.deepEqual(byId(has), byId(this.state(collection, peer).map(([id, version, , data]) => [id, version, data])), `${collection} of ${peer.name}`);
            }
        }
    }

    async views() {
        const late = await this.broker.client({ version: 5 });
        await late.subscribe('sync/+/rec/#');
        await late.settle();
        const retained = late.records.map((m) => m.json);
        for (const collection of NAMES) {
            const all = this.state(collection), his = this.state(collection, this.http);
            assert.deepEqual([...(await late.sync(collection)).records.values()].map(row), all, `sync of ${collection}`);
            assert.deepEqual(byId(this.broker.stored(collection).map(row)), byId(all), `export of ${collection}`);
            assert.deepEqual((await this.http.records(`/sync/${collection}`)).map(row), his, `GET ${collection}`);
            assert.deepEqual((await this.http.records(`/sync/${collection}/x0`)).map(row), his.filter(([id]) => id === 'x0'), `GET ${collection}/x0`);
            const kept = retained.filter((r, i) => late.records[i].topic.startsWith(`sync/${collection}/`));
            assert.deepEqual(byId(kept.map(row)), COLLECTIONS[collection].retain ? byId(all) : [], `retained of ${collection}`);
        }
        await late.close();
        execFileSync(ctl, ['--db', this.broker.database, '--quiet', 'check'], { stdio: 'pipe' });
    }

    // --- coming and going

    async comeBack(peer) {
        const before = [...peer.follows].filter(([, f]) => !f.off);
        await peer.connect();
        for (const [collection] of before) {
            await this.follow(peer, collection, this.chance(75));
        }
    }

    async move() {
        const peer = this.pick(this.movers), collection = this.pick(NAMES);
        const following = peer.follows.get(collection);
        if (!peer.connected) {
            await this.comeBack(peer);
        } else if (this.chance(25)) {
            this.log.push(`${peer.name} leaves`);
            await peer.leave(this.chance(50));
        } else if (following && !following.off && this.chance(60)) {
            await peer.unfollow(collection);
        } else {
            await this.follow(peer, collection, Boolean(following) && this.chance(65));
        }
    }

    async death() {
        const what = this.pick(['the broker', 'the bridge', 'the broker, by SIGTERM']);
        this.log.push(`the end of ${what}`);
        const there = this.movers.concat(this.observer).filter((peer) => peer.connected);
        if (what === 'the bridge') {
            await this.bridge.kill();
            this.bridge.write(this.config);
            await this.bridge.start();
        } else {
            const mark = this.bridge.log.length;
            await this.broker.restart({ kill: what === 'the broker' });
            await this.bridge.waitForLog(/MQS3010/, mark);
        }
        for (const peer of there) {
            const through = peer.tunnel || (peer instanceof WsPeer ? what === 'the bridge' : what !== 'the bridge');
            if (through) {
                await peer.client.waiters.until(() => peer.client.closed, () => `${peer.name} to be closed`);
                await this.comeBack(peer);
            }
        }
    }

    async go() {
        for (let i = 1; i <= OPS; i++) {
            await this.write();
            if (this.chance(8)) {
                await this.move();
            }
            if (i % 12 === 0) {
                await this.settled();
            }
            if (i % Math.ceil(OPS / (DEATHS + 1)) === 0) {
                await this.views();
                await this.death();
            }
        }
        await this.settled();
        await this.views();
    }
}

for (const [i, seed] of SEEDS.entries()) {
    const database = i % 2 === 0;
    test(`anything in any order is as foretold, ${database ? 'database' : 'broker'} (MQSYNC_SEED=${seed})`, async (t) => {
        const run = new Run(seed);
        await run.start({ database });
        t.after(() => run.bridge.stop().finally(() => run.broker.stop()));
        await run.go().catch((error) => {
            error.message = `MQSYNC_SEED=${seed}, write ${run.n}: ${error.message}\n${run.log.slice(-4).join('\n')}`;
            throw error;
        });
    });
}
