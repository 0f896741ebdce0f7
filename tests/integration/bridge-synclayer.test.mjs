// SPDX-License-Identifier: BSD-3-Clause
// Apps with an unmodified SyncLayer 1.7 (tests/lib/synclayer.mjs) at /ws/{collections}, beside an MQTT device and a client of the
// documented protocol: all of them end with what the database holds.
//
// MQSYNC_SEED=n plays the random part again as it was; MQSYNC_ROUNDS=n plays longer.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { Bridge, startBoth, token } from '../lib/bridge.mjs';
import { unique } from '../lib/client.mjs';
import { deadlineMs } from '../lib/env.mjs';
import { randomness, seed } from '../lib/random.mjs';
import { SyncLayerApp } from '../lib/synclayer.mjs';
import { poll } from '../lib/wait.mjs';

const { broker, bridge, stop } = await startBoth({ tombstoneDays: 1 });
const apps = new Set();
after(async () => {
    apps.forEach((app) => app.stop());
    await stop();
});

async function startApp(collections, options = {}) {
    const app = new SyncLayerApp({ url: bridge.url(`/ws/${collections.join(',')}`), collections, ...options }).start();
    apps.add(app);
    await app.untilOpen();
    return app;
}

const stored = (collection) => Object.fromEntries(broker.stored(collection).map(({ id, data }) => [id, data]));

/** Everybody shows what the database holds. */
async function equal(collection, replicas, why = '') {
    const differing = () => {
        const truth = stored(collection);
        return replicas.map((replica, i) => [i, replica(), truth]).filter(([, has, should]) => !isDeepStrictEqual(has, should));
    };
    await poll(() => differing().length === 0, '', deadlineMs).catch(() => {
        const [[i, has, should]] = differing();
        assert.deepEqual(has, should, `replica ${i} (left) and the database (right) ${why}`);
    });
    replicas.forEach((replica) => assert.deepEqual(replica.complaints?.() ?? [], []));
}

const shown = (app, collection) => Object.assign(() => app.local.visible(collection), { complaints: () => app.complaints });

/** A client of the documented protocol that keeps a replica: events in the order of their versions, its own writes by their acks. */
class Documented {
    constructor(collection) {
        this.collection = collection;
        this.records = new Map();
        this.mine = new Map();
    }

    async connect() {
        this.client = await bridge.client();
        this.client.socket.on('message', (text) => this.#take(JSON.parse(text)));
        const since = this.epoch === undefined ? {} : { metadata: { since: this.seq, epoch: this.epoch } };
        this.client.send({ type: 'subscribe', collection: this.collection, ...since });
        await this.client.take('subscribed');
        return this;
    }

    #apply(id, version, type, data) {
        const before = this.records.get(id)?.data;
        const merged = type === 'insert' ? data : { ...before, ...data };
        const kept = type === 'delete' ? undefined : Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null));
        this.records.set(id, { version, data: kept });
    }

    #take(m) {
        if (m.collection !== this.collection) {
            return;
        }
        if (m.type === 'sync') {
            if (m.metadata.full && !this.paging) {
                this.records.clear();
            }
            this.paging = m.metadata.more;
            m.data.records.forEach((r) => this.records.set(r.id, { version: r.version, data: r.data }));
            m.data.deleted?.forEach((r) => this.records.set(r.id, { version: r.version }));
            ({ seq: this.seq, epoch: this.epoch } = m.metadata);
        } else if (m.type === 'ack') {
            const { type, data } = this.mine.get(m.metadata.mutationId);
            const have = this.records.get(m.recordId)?.version ?? 0;
            if (m.metadata.version === have + 1 || (type === 'insert' && m.metadata.version > have)) {
                this.#apply(m.recordId, m.metadata.version, type, data);
            } else { // an event that came after the change was here before its ack: what the record is now, the server knows
                const since = { since: m.metadata.seq - 1, epoch: this.epoch };
                this.client.send({ type: 'sync', collection: this.collection, metadata: since });
            }
        } else if (['insert', 'update', 'delete'].includes(m.type)) {
            if (m.metadata.version > (this.records.get(m.recordId)?.version ?? 0)) {
                this.#apply(m.recordId, m.metadata.version, m.type, m.data);
            }
            this.seq = m.metadata.seq ?? this.seq;
        } else if (m.type === 'subscribed') {
            this.seq ??= m.metadata.seq;
            this.epoch ??= m.metadata.epoch;
        }
    }

    write(type, recordId, data) {
        const mutationId = unique('m');
        this.mine.set(mutationId, { type, data });
        this.client.send({ type, collection: this.collection, recordId, ...(data ? { data } : {}), metadata: { mutationId } });
    }

    async reconnect() {
        this.client.socket.terminate();
        await this.client.waitClosed();
        await this.connect();
    }

    get replica() {
        return () => Object.fromEntries([...this.records].filter(([, r]) => r.data).map(([id, r]) => [id, r.data]));
    }
}

test('the first connection: snapshot and deletions without a subscribe, then whole records', async () => {
    const collection = unique('c');
    const device = await broker.client();
    await device.short(collection, 'old', 'insert', { a: 1, b: 2 });
    await device.short(collection, 'gone', 'insert', { a: 1 });
    await device.short(collection, 'gone', 'delete');
    const app = await startApp([collection], { zoneMinutes: 330 });
    await equal(collection, [shown(app, collection)]);
    await device.short(collection, 'old', 'update', { b: 3 });
    await device.short(collection, 'new', 'insert', { c: 1 });
    await device.short(collection, 'new', 'update', { d: 1 });
    await equal(collection, [shown(app, collection)]);
    assert.deepEqual(app.get(collection, 'old'), { a: 1, b: 3 });
    await device.short(collection, 'old', 'delete');
    await equal(collection, [shown(app, collection)]);
    assert.equal(app.sent.subscribe, undefined);
});

test('save, update and delete arrive; local times without a zone do no harm, whatever the zone', async () => {
    const collection = unique('c');
    const [east, west] = [await startApp([collection], { zoneMinutes: 840 }), await startApp([collection], { zoneMinutes: -720 })];
    const replicas = [shown(east, collection), shown(west, collection)];
    east.save(collection, 'r', { text: 'a', done: false });
    await equal(collection, replicas);
    west.update(collection, 'r', { done: true });
    await equal(collection, replicas);
    assert.deepEqual(east.get(collection, 'r'), { text: 'a', done: true });
    east.save(collection, 'r', { text: 'b', done: false });
    await equal(collection, replicas);
    assert.deepEqual(west.get(collection, 'r'), { text: 'b', done: false });
    west.delete(collection, 'r');
    await equal(collection, replicas);
    assert.equal(east.get(collection, 'r'), undefined);
});

test('a lost connection: it subscribes again, and what happened meanwhile is there, deletions too', async () => {
    const collection = unique('c');
    const app = await startApp([collection], { reconnectMs: 300 });
    const device = await broker.client();
    for (const id of ['stays', 'changes', 'goes']) {
        app.save(collection, id, { a: 1 });
    }
    await equal(collection, [shown(app, collection)]);
    app.lose();
    await device.short(collection, 'changes', 'update', { a: 2 });
    await device.short(collection, 'goes', 'delete');
    await device.short(collection, 'comes', 'insert', { a: 3 });
    await poll(() => app.connections === 2 && app.open, 'the app to come back');
    await equal(collection, [shown(app, collection)]);
    assert.equal(app.sent.subscribe, 1);
    app.update(collection, 'comes', { b: 1 });
    await equal(collection, [shown(app, collection)]);
});

test('both change the same record at the same time, again and again: nobody keeps what is not so', async () => {
    const collection = unique('c');
    const [a, b] = [await startApp([collection]), await startApp([collection])];
    const documented = await new Documented(collection).connect();
    const device = await broker.client();
    const replicas = [shown(a, collection), shown(b, collection), documented.replica];
    a.save(collection, 'r', { a: 0, b: 0, c: 0, d: 0 });
    await equal(collection, replicas);
    for (let i = 1; i <= 60; i++) {
        a.update(collection, 'r', { a: i });
        b.update(collection, 'r', { b: i });
        if (i % 3 === 0) {
            documented.write('update', 'r', { c: i });
            await device.short(collection, 'r', 'update', { d: i });
        }
        if (i % 7 === 0) {
            b.save(collection, 'r', { ...b.get(collection, 'r'), b: -i });
        }
        if (i % 5 === 0) {
            await equal(collection, replicas, `in round ${i}`);
        }
    }
    await equal(collection, replicas);
});

test('the token goes into the URL as it is; without one nothing is shown', async () => {
    const secret = 'a secret of thirty-two bytes, here';
    const keyFile = path.join(broker.directory, 'jwt.key');
    fs.writeFileSync(keyFile, secret);
    const guarded = await Bridge.start(broker, { auth: { jwt: { algorithm: 'HS256', keyFile } } });
    const collection = unique('c');
    const app = new SyncLayerApp({ url: guarded.url(`/ws/${collection}`), collections: [collection], token: token(secret, { sub: 'ana' }) }).start();
    const stranger = new SyncLayerApp({ url: guarded.url(`/ws/${collection}`), collections: [collection], token: 'none', reconnectMs: 60_000 }).start();
    try {
        await (await broker.client()).short(collection, 'r', 'insert', { a: 1 });
        await equal(collection, [shown(app, collection)]);
        await poll(() => stranger.state === 'disconnected', 'the stranger to be shown out');
        assert.deepEqual(stranger.local.visible(collection), {});
        assert.deepEqual([app.complaints, stranger.complaints], [[], []]);
    } finally {
        app.stop();
        stranger.stop();
        await guarded.stop();
    }
});

test('each change comes again by HTTP: one version, and what the connection lost is made up for', async () => {
    const collection = unique('c');
    const baseUrl = `http://127.0.0.1:${bridge.port}`;
    const [a, b] = [await startApp([collection], { baseUrl, zoneMinutes: 120, reconnectMs: 2000 }), await startApp([collection], { baseUrl, zoneMinutes: -300 })];
    const replicas = [shown(a, collection), shown(b, collection)];
    const version = async (id) => {
        const answer = await bridge.get(`/sync/${collection}/${id}`);
        return JSON.parse(answer.text).records?.[0].version ?? answer.text;
    };
    a.save(collection, 'r', { a: 1, b: 1 });
    await equal(collection, replicas);
    await a.syncNow();
    assert.equal(await version('r'), 1);
    b.update(collection, 'r', { b: 2 });
    await equal(collection, replicas);
    a.update(collection, 'r', { a: 2 });
    await equal(collection, replicas);
    // b's copy comes after a's change: it undoes nothing and counts as nothing
    await b.syncNow();
    await a.syncNow();
    await equal(collection, replicas);
    assert.equal(await version('r'), 3);
    assert.deepEqual(stored(collection).r, { a: 2, b: 2 });
    // without a connection: HTTP alone
    a.lose();
    await poll(() => a.state === 'disconnected', 'the app to notice');
    a.save(collection, 'offline', { c: 1 });
    a.update(collection, 'r', { a: 3 });
    await a.syncNow();
    await equal(collection, replicas);
    assert.deepEqual([stored(collection).offline, stored(collection).r], [{ c: 1 }, { a: 3, b: 2 }]);
    await poll(() => a.open, 'the app to come back');
    a.delete(collection, 'offline');
    await equal(collection, replicas);
    await a.syncNow();
    await equal(collection, replicas);
    assert.deepEqual([a.queue, b.queue], [[], []]);
});

test(`anything in any order, restarts too (MQSYNC_SEED=${seed})`, async () => {
    const random = randomness(seed);
    const pick = (list) => list[random(list.length)];
    const collection = unique('c');
    const players = [await startApp([collection], { zoneMinutes: 120 }), await startApp([collection], { zoneMinutes: -300, reconnectMs: 50 })];
    const documented = await new Documented(collection).connect();
    const replicas = [...players.map((app) => shown(app, collection)), documented.replica];
    let device = await broker.client();
    let n = 0;
    const living = (app) => Object.keys(app.local.visible(collection));
    const edit = async () => {
        const app = pick(players);
        const id = pick(living(app));
        const value = ++n;
        const field = pick(['a', 'b', 'c']);
        switch (random(id === undefined ? 1 : 8)) {
            case 0:
                app.save(collection, `r${++n}`, { a: value, b: 0, c: 0 });
                break;
            case 1:
                app.save(collection, id, { ...app.get(collection, id), [field]: value });
                break;
            case 2:
            case 3:
                app.update(collection, id, { [field]: value });
                break;
            case 4:
                app.delete(collection, id);
                break;
            case 5:
                documented.write('update', id, { [field]: value });
                break;
            case 6:
                documented.write('insert', `d${++n}`, { a: value });
                break;
            default:
                await device.short(collection, id, 'update', { [field]: value }).catch(() => {});
        }
    };
    const restart = [
        async () => {
            // what is on its way when a connection goes is gone: that is what the SDK's HTTP queue is for
            await equal(collection, replicas, 'before a connection is lost');
            const app = pick(players);
            const { connections } = app;
            app.lose();
            await device.short(collection, `m${++n}`, 'insert', { a: n });
            await poll(() => app.connections > connections && app.open, 'the app to come back');
        },
        () => documented.reconnect(),
        async () => {
            await equal(collection, replicas, 'before the bridge goes');
            await bridge.kill();
            bridge.write({});
            await bridge.start();
            await documented.connect();
            await poll(() => players.every((app) => app.open), 'the apps to come back');
        },
        async () => {
            await equal(collection, replicas, 'before the broker goes');
            const mark = bridge.log.length;
            await broker.restart({ kill: random(2) === 0 });
            await bridge.waitForLog(/MQS3010/, mark);
            device = await broker.client();
        },
    ];
    for (let round = 0; round < Number(process.env.MQSYNC_ROUNDS ?? 8); round++) {
        for (let i = random(40); i >= 0; i--) {
            await edit();
        }
        if (random(2)) {
            await equal(collection, replicas, `in round ${round}`);
        }
        await pick(restart)();
    }
    await equal(collection, replicas, 'at the end');
});
