// SPDX-License-Identifier: BSD-3-Clause
// Snapshots, what has changed since, pages, and that a subscriber misses nothing and sees nothing twice.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { Broker } from '../lib/broker.mjs';
import { eventBarrier, unique } from '../lib/client.mjs';
import { ctl } from '../lib/env.mjs';
import { matrix, VERSIONS } from '../lib/matrix.mjs';
import { poll } from '../lib/wait.mjs';

const broker = await Broker.start({ config: { collections: { '*': {} }, limits: { maxRecordBytes: 2_000_000 } } });
after(() => broker.stop());

/** `count` records r0, r1, ... written as fast as the broker takes them. */
async function fill(client, collection, count, data = (i) => ({ i }), prefix = 'r') {
    await Promise.all(
        Array.from({ length: count }, (_, i) => client.short(collection, `${prefix}${i}`, 'insert', data(i))),
    );
}

const ids = (map) => [...map.keys()].sort();

matrix('an empty collection: no page unless asked, then live events', {}, async ({ version, qos }) => {
    const collection = unique('c');
    const client = await broker.client({ version, qos });
    await client.subscribe(`sync/${collection}/evt/#`);
    await client.cmd(collection, { type: 'subscribe', collection });
    const { metadata } = await client.answer('subscribed');
    assert.deepEqual([metadata.recordCount, metadata.seq], [0, 0]);
    await client.noAnswers(collection);
    const { records, seq, epoch, pages } = await client.sync(collection);
    assert.deepEqual([records.size, seq, epoch, pages.length, pages[0].metadata.total], [0, 0, metadata.epoch, 1, 0]);
    await client.cmd(collection, { type: 'subscribe', collection, metadata: { since: metadata.seq, epoch } });
    await client.answer('subscribed');
    const incremental = await client.pages(collection);
    assert.deepEqual(
        [incremental.pages[0].metadata.full, incremental.records.size, incremental.deleted.size],
        [false, 0, 0],
    );
    await client.cmd(collection, { type: 'insert', recordId: 'r', data: { a: 1 } });
    const event = await client.event();
    assert.ok(event.metadata.seq > seq);
    await client.noAnswers(collection);
});

matrix('updates: full: each change comes whole, as an answer, until the client does not want it any more', {}, async ({ version, qos }) => {
    const collection = unique('c');
    const [device, follower] = [await broker.client({ qos }), await broker.client({ version, qos })];
    await device.short(collection, 'r', 'insert', { a: 1, b: { c: 2 } });
    const follow = async (updates) => {
        await follower.cmd(collection, { type: 'subscribe', metadata: { sync: false, updates } });
        return (await follower.answer('subscribed')).metadata.updates;
    };
    assert.equal(await follow('full'), 'full');
    const told = async () => {
        const { json, qos: level } = await follower.answerPacket((m) => m.json.recordId);
        return [json.type, json.recordId, json.data, json.metadata.version, level];
    };
    await device.short(collection, 'r', 'update', { d: 3, a: null });
    assert.deepEqual(await told(), ['update', 'r', { b: { c: 2 }, d: 3 }, 2, qos]);
    await device.short(collection, 'r', 'insert', { n: null });
    assert.deepEqual(await told(), ['update', 'r', { n: null }, 3, qos], 'what is null is there, what is gone is not');
    await device.short(collection, 's', 'insert', { s: 1 });
    assert.deepEqual(await told(), ['insert', 's', { s: 1 }, 1, qos]);
    await device.short(collection, 'r', 'delete');
    assert.deepEqual(await told(), ['delete', 'r', undefined, 4, qos]);
    await device.short(unique('other'), 'r', 'insert', {});
    await device.short(collection, 's', 'update', { s: 1, t: 1 }, { qos: 0 });
    assert.equal((await told()).pop(), 0, 'no higher than the command');
    assert.equal(follower.events.length, 0, 'it has subscribed to no topic');

    await follow(undefined);
    await device.short(collection, 's', 'update', { t: 2 });
    assert.deepEqual(await told(), ['update', 's', { s: 1, t: 2 }, 3, qos], 'who does not say changes nothing');
    for (const stop of [() => follow('delta'),
        async () => { await follower.cmd(collection, { type: 'unsubscribe' }); await follower.answer('unsubscribed'); }]) {
        assert.equal(await follow('full'), 'full');
        await stop();
        await device.short(collection, 's', 'update', { n: 1 });
        await follower.noAnswers(collection);
    }
    assert.equal(await follow('full'), 'full');
    await follower.drop();
    const back = await broker.client({ version, qos, clientId: follower.clientId });
    await device.short(collection, 's', 'update', { n: 2 });
    await back.noAnswers(collection);
});

test('updates: full: no more than 16 clients for one collection', async () => {
    const collection = unique('c');
    const device = await broker.client();
    const followers = await Promise.all(Array.from({ length: 17 }, () => broker.client()));
    const answers = [];
    for (const follower of followers) {
        await follower.cmd(collection, { type: 'subscribe', metadata: { updates: 'full' } });
        answers.push((await follower.answer('subscribed')).metadata.updates);
    }
    assert.deepEqual(answers, [...Array(16).fill('full'), undefined]);
    await device.short(collection, 'r', 'insert', { a: 1 });
    await Promise.all(followers.slice(0, 16).map((follower) => follower.answer('insert')));
    await followers[16].noAnswers(collection);
    await followers[0].cmd(collection, { type: 'unsubscribe' });
    await followers[0].answer('unsubscribed');
    await followers[16].cmd(collection, { type: 'subscribe', metadata: { updates: 'full', sync: false } });
    assert.equal((await followers[16].answer('subscribed')).metadata.updates, 'full');
});

matrix('since: only what has changed, deletions too', {}, async ({ version, qos }) => {
    const collection = unique('c');
    const client = await broker.client({ version, qos });
    await fill(client, collection, 5);
    const { seq, epoch, records } = await client.sync(collection);
    assert.deepEqual(ids(records), ['r0', 'r1', 'r2', 'r3', 'r4']);
    await client.short(collection, 'r1', 'update', { j: 1 });
    await client.short(collection, 'r2', 'delete');
    await client.short(collection, 'new', 'insert', { n: 1 });
    await client.short(collection, 'short-lived', 'insert', { n: 1 });
    await client.short(collection, 'short-lived', 'delete');
    await client.short(collection, 'r1', 'update', { j: 2 });

    for (const type of ['sync', 'subscribe']) {
        await client.cmd(collection, { type, collection, metadata: { since: seq, epoch } });
        if (type === 'subscribe') {
            assert.equal((await client.answer('subscribed')).metadata.recordCount, 5);
        }
        const answer = await client.pages(collection);
        assert.deepEqual(ids(answer.records), ['new', 'r1']);
        assert.deepEqual(answer.records.get('r1').data, { i: 1, j: 2 });
        assert.equal(answer.records.get('r1').version, 3);
        assert.deepEqual(ids(answer.deleted), ['r2', 'short-lived']);
        assert.equal(answer.deleted.get('r2').version, 2);
        assert.deepEqual(
            answer.pages.map((p) => [p.metadata.full, p.metadata.total]),
            [[false, 4]],
        );
        assert.ok(answer.seq > seq);
        assert.equal(answer.epoch, epoch);
        // Nothing has changed since.
        await client.cmd(collection, { type, collection, metadata: { since: answer.seq, epoch } });
        if (type === 'subscribe') await client.answer('subscribed');
        const nothing = await client.pages(collection);
        assert.deepEqual(
            [
                nothing.pages.length,
                nothing.records.size,
                nothing.deleted.size,
                nothing.seq,
                nothing.pages[0].metadata.full,
            ],
            [1, 0, 0, answer.seq, false],
        );
    }
    // A full one tells live records alone.
    const full = await client.sync(collection);
    assert.deepEqual(ids(full.records), ['new', 'r0', 'r1', 'r3', 'r4']);
    assert.equal(full.deleted.size, 0);
    await client.noAnswers(collection);
});

test('unsubscribe ends the answer to subscribe, not that to sync', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    await fill(client, collection, 2000);
    const asked = ['subscribe', 'sync', 'unsubscribe'].map((type) => client.cmd(collection, { type }));
    await Promise.all(asked);
    await client.answer('unsubscribed');
    const ids = new Set();
    for (let more = true; more;) {
        const page = await client.answer('sync');
        for (const { id } of page.data.records) ids.add(id);
        more = page.metadata.more || ids.size < 2000;
    }
    assert.equal(ids.size, 2000);
});

for (const version of VERSIONS) {
    test(`since 0 with the right epoch, and since with another epoch or past the end [MQTT ${version}]`, async () => {
        const collection = unique('c');
        const client = await broker.client({ version });
        await fill(client, collection, 3);
        await client.short(collection, 'r0', 'delete');
        const { seq, epoch } = await client.sync(collection);
        const wrong = epoch.replace(/./g, (c) => (c === '0' ? '1' : '0'));
        for (const metadata of [
            { since: seq, epoch: wrong },
            { since: 0, epoch: wrong },
            { since: seq, epoch: 'x' },
            { since: seq, epoch: '' },
            { since: 10_000_000, epoch: wrong },
        ]) {
            const answer = await client.sync(collection, metadata);
            assert.equal(answer.pages[0].metadata.full, true, JSON.stringify(metadata));
            assert.deepEqual(ids(answer.records), ['r1', 'r2']);
            assert.equal(answer.epoch, epoch);
        }
        const all = await client.sync(collection, { since: 0, epoch });
        assert.deepEqual(ids(all.records), ['r1', 'r2']);
        // A seq that this history has not reached cannot be of this history.
        const future = await client.sync(collection, { since: seq + 1000, epoch });
        assert.ok(future.pages[0].metadata.full === true || future.records.size === 0);
        assert.equal(future.seq, seq, 'the answer says where the history really is');
    });

    test(`sync: false sends no snapshot [MQTT ${version}]`, async () => {
        const collection = unique('c');
        const client = await broker.client({ version });
        await fill(client, collection, 3);
        for (const updates of ['delta', 'full']) {
            await client.cmd(collection, { type: 'subscribe', collection, metadata: { sync: false, updates } });
            assert.equal((await client.answer()).metadata.recordCount, 3);
            await client.noAnswers(collection);
        }
        await client.cmd(collection, { type: 'subscribe', collection, metadata: { sync: true } });
        await client.answer('subscribed');
        assert.equal((await client.pages(collection)).records.size, 3);
        await client.cmd(collection, { type: 'subscribe', collection, metadata: { sync: false } });
        await client.answer('subscribed');
        await client.noAnswers(collection);
    });
}

function assertPages(answer, total) {
    const { pages } = answer;
    pages.forEach((page, i) => {
        assert.equal(page.metadata.more, i < pages.length - 1, `more of page ${i}`);
        assert.equal(page.metadata.total, total, `total of page ${i}`);
        assert.equal(page.metadata.epoch, pages[0].metadata.epoch);
        assert.equal(page.metadata.full, pages[0].metadata.full);
        assert.ok(i === 0 || page.metadata.seq > pages[i - 1].metadata.seq, 'pages go in the order of seq');
    });
    const all = pages.flatMap((page) => [...page.data.records, ...(page.data.deleted ?? [])]);
    assert.equal(new Set(all.map((r) => r.id)).size, all.length, 'each record once');
    assert.equal(all.length, total);
}

matrix('more than 500 records come in pages', { qos: [0, 2] }, async ({ version, qos }) => {
    const collection = unique('c');
    const writer = await broker.client({ version: 5 });
    await fill(writer, collection, 1203);
    await writer.short(collection, 'r7', 'delete');
    const client = await broker.client({ version, qos });
    await client.cmd(collection, { type: 'subscribe', collection });
    const subscribed = await client.answer();
    assert.equal(subscribed.metadata.recordCount, 1202);
    const answer = await client.pages(collection);
    assertPages(answer, 1202);
    assert.deepEqual(
        answer.pages.map((p) => p.data.records.length),
        [500, 500, 202],
    );
    assert.equal(answer.seq, subscribed.metadata.seq);
    // Each page is a place to go on from.
    for (const page of answer.pages.slice(0, -1)) {
        const rest = await client.sync(collection, { since: page.metadata.seq, epoch: answer.epoch });
        const missing = answer.pages
            .slice(answer.pages.indexOf(page) + 1)
            .flatMap((p) => p.data.records.map((r) => r.id));
        assert.deepEqual(ids(rest.records), missing.sort());
        assert.equal(rest.pages[0].metadata.full, false);
    }
    await client.noAnswers(collection);
});

test('a page is at most 256 KiB, or one larger record', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    await fill(client, collection, 60, (i) => ({ i, text: 'x'.repeat(20_000) }));
    await client.short(collection, 'huge', 'insert', { text: 'y'.repeat(700_000) });
    await fill(client, collection, 3, (i) => ({ i }), 'after');
    const answer = await client.sync(collection);
    assertPages(answer, 64);
    const huge = answer.packets.find((p) => p.json.data.records.some((r) => r.id === 'huge'));
    assert.equal(huge.json.data.records.length, 1);
    const small = answer.packets.filter((p) => p !== huge).map((p) => p.payload.length);
    assert.ok(Math.max(...small) <= 256 * 1024, `${small}`);
    assert.ok(answer.pages.length <= 8, `${answer.pages.length} pages for 1.2 MB and one more: they are not filled`);
    assert.equal(answer.records.get('huge').data.text.length, 700_000);
});

test('pages of what has changed, deletions among them', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    await fill(client, collection, 1100);
    const { seq, epoch } = await client.sync(collection);
    await Promise.all(
        Array.from({ length: 1100 }, (_, i) =>
            i % 2 ? client.short(collection, `r${i}`, 'delete') : client.short(collection, `r${i}`, 'update', { j: i }),
        ),
    );
    const answer = await client.sync(collection, { since: seq, epoch });
    assertPages(answer, 1100);
    assert.equal(answer.records.size, 550);
    assert.equal(answer.deleted.size, 550);
    assert.equal(answer.pages.length, 3);
});

test('limit: at most so many, and go on from there', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    await fill(client, collection, 25);
    await client.short(collection, 'r3', 'delete');
    const seen = new Map();
    const { epoch } = await client.sync(collection);
    let rounds = 0;
    for (let since = 0, more = true; more; rounds++) {
        await client.cmd(collection, { type: 'sync', collection, metadata: { since, epoch, limit: 10 } });
        const page = await client.answer('sync');
        assert.ok(page.data.records.length + (page.data.deleted?.length ?? 0) <= 10);
        for (const record of page.data.records) {
            assert.ok(!seen.has(record.id), `${record.id} twice`);
            seen.set(record.id, record);
        }
        ({ seq: since, more } = page.metadata);
    }
    assert.ok(rounds <= 4, `${rounds} rounds`);
    assert.equal(seen.size, 24);
    await client.noAnswers(collection);
});

/** What a client that follows the protocol holds: pages first, then the events after them. */
class Replica {
    constructor() {
        this.records = new Map();
        this.versions = new Map();
        this.seq = -1;
    }

    load(answer) {
        for (const page of answer.pages) {
            page.data.records.forEach(({ id, data, version }) => {
                this.records.set(id, data);
                this.versions.set(id, version);
            });
            page.data.deleted?.forEach(({ id, version }) => {
                this.records.delete(id);
                this.versions.set(id, version);
            });
        }
        this.seq = answer.seq;
    }

    /**
     * Events up to the snapshot's seq are in it; every later one comes once, in order, and each record's versions
     * without a gap.
     */
    apply(event) {
        const { seq, version } = event.metadata;
        const id = event.recordId;
        if (seq <= this.seq) {
            assert.ok(!this.live, `event ${seq} of ${id} after ${this.seq}: twice, or out of order`);
            assert.ok(
                (this.versions.get(id) ?? 0) >= version || !this.versions.has(id),
                `${id} version ${version} is not in the snapshot of ${this.seq}`,
            );
            return;
        }
        this.live = true;
        this.seq = seq;
        const known = this.versions.get(id);
        // A full snapshot does not tell of what was deleted before it: the first version seen then is where counting
        // starts.
        assert.ok(
            known === undefined || version === known + 1,
            `${id}: version ${version} after ${known} (seq ${seq})`,
        );
        this.versions.set(id, version);
        if (event.type === 'delete') {
            assert.ok(this.records.delete(id), `${id} deleted twice`);
        } else if (event.type === 'insert') {
            assert.ok(!this.records.has(id), `${id} inserted twice`);
            this.records.set(id, event.data);
        } else {
            const data = { ...this.records.get(id) };
            for (const [key, value] of Object.entries(event.data)) {
                if (value === null) delete data[key];
                else data[key] = value;
            }
            this.records.set(id, data);
        }
    }
}

const byId = (map) => Object.fromEntries([...map].sort(([a], [b]) => (a < b ? -1 : 1)));

for (const { seeded, qos, version } of [
    { seeded: 0, qos: 1, version: 4 },
    { seeded: 0, qos: 1, version: 5 },
    { seeded: 1600, qos: 1, version: 5 },
    { seeded: 1600, qos: 2, version: 4 },
    { seeded: 700, qos: 0, version: 5 },
]) {
    test(`no gap and no repeat while four clients write [${seeded} records, QoS ${qos}, MQTT ${version}]`, async () => {
        const collection = unique('c');
        const writers = await Promise.all([0, 1, 2, 3].map(() => broker.client({ version, qos })));
        await fill(writers[0], collection, seeded, (i) => ({ i }), 'seed');
        const rounds = 200;
        let written = 0;
        const progress = [];
        const work = writers.map(async (writer, w) => {
            for (let i = 0; i < rounds; i++) {
                const id = `r${(i * 7 + w) % 23}`;
                const kind = (i * 13 + w * 5) % 10;
                if (kind < 5) await writer.write('long', { type: 'insert', collection, recordId: id, data: { w, i } });
                else if (kind < 8)
                    await writer.short(collection, id, 'update', { [`f${w}`]: i, w: kind === 7 ? null : w });
                else await writer.short(collection, id, 'delete');
                if (seeded && i % 10 === 0)
                    await writer.short(collection, `seed${(i * 31 + w * 397) % seeded}`, 'update', { touched: i });
                written++;
                progress.splice(0).forEach((wake) => wake());
            }
            await writer.settle(collection, { qos }); // at QoS 0 they may still be on their way
        });
        const reached = async (count) => {
            while (written < count) {
                await new Promise((resolve) => progress.push(resolve));
            }
        };
        const followers = [];
        for (let i = 0; i < 6; i++) {
            await reached(i * 110);
            const reader = await broker.client({ version, qos });
            await reader.subscribe(`sync/${collection}/evt/+`, { qos: Math.min(qos, 1) });
            await reader.cmd(collection, { type: 'subscribe', collection });
            followers.push(
                (async () => {
                    const subscribed = await reader.answer('subscribed');
                    const replica = new Replica();
                    replica.load(
                        subscribed.metadata.recordCount
                            ? await reader.pages(collection)
                            : { pages: [], seq: subscribed.metadata.seq },
                    );
                    return { reader, replica, epoch: subscribed.metadata.epoch };
                })(),
            );
        }
        const joined = await Promise.all(followers);
        await Promise.all(work);
        const barrier = await broker.client({ version, qos });
        await eventBarrier(
            barrier,
            collection,
            joined.map((f) => f.reader),
        );
        const truth = await barrier.sync(collection);
        const expected = new Map(
            [...truth.records].filter(([id]) => !id.startsWith('barrier')).map(([id, r]) => [id, r.data]),
        );
        // One that saw no event at all comes back with its snapshot's seq.
        const left = joined[0].replica;
        const back = await barrier.sync(collection, { since: left.seq, epoch: joined[0].epoch });
        const comeback = new Replica();
        Object.assign(comeback, { records: new Map(left.records), versions: new Map(left.versions) });
        comeback.load(back);
        for (const { reader, replica } of joined) {
            for (const { json } of reader.events) {
                if (!json.recordId.startsWith('barrier')) replica.apply(json);
            }
        }
        for (const replica of [...joined.map((f) => f.replica), comeback]) {
            const held = new Map([...replica.records].filter(([id]) => !id.startsWith('barrier')));
            assert.deepEqual(byId(held), byId(expected));
            for (const [id, record] of truth.records) {
                if (!id.startsWith('barrier'))
                    assert.equal(replica.versions.get(id), record.version, `version of ${id}`);
            }
        }
    });
}

test('events for a subscriber that is away wait for it (QoS 1, persistent session)', async () => {
    for (const version of VERSIONS) {
        const collection = unique('c');
        const clientId = unique('away');
        const session = {
            version,
            clientId,
            clean: false,
            ...(version === 5 && { properties: { sessionExpiryInterval: 600 } }),
        };
        const first = await broker.client(session);
        await first.subscribe(`sync/${collection}/evt/#`, { qos: 1 });
        first.drop();
        const writer = await broker.client({ version });
        for (let i = 0; i < 30; i++) {
            await writer.short(collection, 'r', 'insert', { i });
        }
        const again = await broker.client(session);
        for (let i = 1; i <= 30; i++) {
            assert.equal((await again.event()).metadata.version, i);
        }
        await again.close();
    }
});

test('a snapshot is whole although the broker queues few messages per client', async () => {
    const tight = await Broker.start({ config: { collections: { '*': {} } }, conf: ['max_queued_messages 100'] });
    try {
        const writer = await tight.client({ version: 5, qos: 0 });
        await fill(writer, 'c', 300, (i) => ({ i, text: 'x'.repeat(100_000) }));
        await writer.settle('c');
        for (const qos of [0, 1, 2]) {
            const client = await tight.client({ version: 5, qos });
            const answer = await client.sync('c');
            assertPages(answer, 300);
            await client.close();
        }
        const { log } = tight;
        assert.doesNotMatch(log, /being dropped/);
    } finally {
        await tight.stop();
    }
});

test('a large database: what has changed is found behind rows that later changes have made stale', async () => {
    const large = await Broker.start({ config: { collections: { '*': {} } } });
    try {
        const client = await large.client({ version: 5 });
        // more than is answered at once: first everything is moved into data.mdb
        const move = async () => {
            await client.cmd('c', { type: 'sync', metadata: { limit: 129 } });
            for (let n = 0; n < 129; ) {
                n += (await client.answer('sync')).data.records.length;
            }
        };
        const changed = async (since) => {
            await client.cmd('c', { type: 'sync', metadata: { since, limit: 20 } });
            return (await client.answer('sync')).data.records.map(({ id }) => id);
        };
        const range = (from, to) => Array.from({ length: to - from }, (_, i) => `r${from + i}`);
        await fill(client, 'c', 8400, (i) => ({ i, text: 'x'.repeat(9000) }));
        await move();
        assert.ok(fs.statSync(path.join(large.database, 'data.mdb')).size > 64 * 2 ** 20, 'not large');
        // more than the broker's thread passes over, less than the eighth that is removed
        await Promise.all(range(0, 1020).map((id, i) => client.short('c', id, 'update', { new: i })));
        await move();
        assert.deepEqual(await changed(1), range(1020, 1040));
        assert.deepEqual(await changed(8395), [...range(8395, 8400), ...range(0, 15)]);
        const check = execFileSync(ctl, ['--db', large.database, '--json', 'check'], { encoding: 'utf8' });
        assert.deepEqual(JSON.parse(check), { ok: true, wrong: [] });
    } finally {
        await large.stop();
    }
});

test('a full state fetched with a limit comes to its end although old deletions are forgotten', async () => {
    const short = await Broker.start({ config: { tombstoneDays: 0, collections: { '*': {} } } });
    try {
        const client = await short.client({ version: 5 });
        const page = async (metadata) => {
            await client.cmd('c', { type: 'sync', metadata });
            return client.answer('sync');
        };
        for (let i = 0; i < 30; i++) {
            await client.short('c', `r${i}`, 'insert', { i });
        }
        await client.short('c', 'gone', 'insert', {});
        await client.short('c', 'gone', 'delete');
        // forgotten within a moment: a resume from before it is answered with the full state then
        await poll(async () => {
            await client.short('c', unique('tick'), 'insert', {});
            return (await page({ since: 5, limit: 1 })).metadata.full;
        }, 'the deletion to be forgotten');
        const found = new Set();
        let since;
        for (let round = 0, more = true; more; round++) {
            assert.ok(round < 100, 'begins again and again');
            const { data, metadata } = await page({ limit: 7, ...(since !== undefined && { since }) });
            for (const { id } of data.records) {
                assert.ok(!found.has(id), `${id} twice`);
                found.add(id);
            }
            ({ more, seq: since } = metadata);
        }
        assert.ok(found.size >= 30, `${found.size} records`);
    } finally {
        await short.stop();
    }
});
