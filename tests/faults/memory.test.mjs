// SPDX-License-Identifier: BSD-3-Clause
// Memory runs out at each place of a conversation in turn: nothing dies, no refused write is kept and no kept one
// refused, whoever is not answered loses his connection, and afterwards all is as it was.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { Broker, temporaryDirectory } from '../lib/broker.mjs';
import { RawClient } from '../lib/raw-mqtt.mjs';

const nomemory = process.env.MQSYNC_NOMEMORY;
const stride = Number(process.env.MQSYNC_MEMORY_STRIDE ?? 1); // places from one to the next that is tried
const LONG = 300; // records: more than are answered at once
const SHORT = 20;
const OURS = 1, THE_BROKERS = 2; // see preload/nomemory.c

const config = {
    trustedUsers: ['gateway'],
    collections: {
        '*': {}, retained: { retain: true }, closed: { write: ['role:nobody'] },
        merged: { conflict: { strategy: 'deepMerge' } },
    },
};

class Orders {
    constructor(directory) {
        this.file = path.join(directory, 'orders');
        fs.writeFileSync(this.file, Buffer.alloc(20));
        this.fd = fs.openSync(this.file, 'r+');
    }
    give(whose, after = 0, fails = 0) {
        const bytes = Buffer.alloc(20);
        [0, after, fails, 0, 0].forEach((n, i) => bytes.writeUInt32LE(n, i * 4));
        fs.writeSync(this.fd, bytes, 0, 20, 0);
        bytes.writeUInt32LE(whose, 0);
        fs.writeSync(this.fd, bytes, 0, 4, 0);
    }
    failed() {
        const bytes = Buffer.alloc(4);
        fs.readSync(this.fd, bytes, 0, 4, 16);
        return bytes.readUInt32LE(0);
    }
}

/** Says all of it at once, with what may become of each. */
class Talk {
    constructor(client, word) {
        this.client = client;
        this.word = word;
        this.writes = [];
        this.syncs = [];
        client.packets.length = 0;
    }
    say(topic, payload, more) {
        return this.client.publish(topic, payload === undefined ? '' : JSON.stringify(payload), { qos: 1, ...more });
    }
    write(collection, type, data, { metadata, timestamp, may = 'both', key = 'x', short } = {}) {
        const recordId = `${this.word}-${key}`, mutationId = `${recordId}-${this.writes.length}`;
        const id = short
            ? this.say(`sync/${collection}/cmd/${recordId}/${type}`, data,
                { properties: { userProperties: Object.entries({ mutationId, ...short }) } })
            : this.say(`sync/${collection}/cmd`,
                { type, collection, recordId, data, timestamp, metadata: { mutationId, ...metadata } });
        this.writes.push({ id, collection, type, data, recordId, mutationId, may });
    }
    sync(collection, n) {
        this.syncs.push({ id: this.say(`sync/${collection}/cmd`, { type: 'sync', collection }), collection, n });
    }
    async all() {
        const { client } = this;
        this.write('talk', 'insert', { a: 1 });
        this.write('talk', 'update', { b: 'ü"'.repeat(50) });
        this.write('talk', 'update', { a: 3 }, { timestamp: '2001-01-01T00:00:00.000Z', may: 'lose' });
        this.write('talk', 'update', { a: 4 }, { metadata: { ifVersion: 77 }, may: 'refused' });
        this.write('merged', 'insert', { l: [1], o: { p: 1 } });
        this.write('merged', 'update', { l: [2] });
        // merges, if the one before was kept
        this.write('merged', 'update', { o: { q: 2 } }, { metadata: { baseVersion: 1 } });
        this.write('retained', 'insert', { a: 1 });
        this.write('retained', 'update', { b: 2 });
        this.sync('long', LONG);
        this.sync('short', SHORT);
        await this.end(); // the broker takes 20 at a time
        if (client.v5) {
            this.write('talk', 'update', { a: 5 }, { short: { ifVersion: '77' }, may: 'refused' });
            this.write('closed', 'insert', { a: 1 }, { short: { userId: 'eve' }, may: 'refused' });
            this.write('talk', 'insert', { a: 1 }, { short: { ack: '1', other: 'x' }, key: 'short' });
        }
        this.say('sync/talk/cmd',
            { type: 'subscribe', collection: 'talk', metadata: { updates: 'full', sync: false } });
        this.write('talk', 'insert', { a: 1 }, { key: 'y' });
        this.say('sync/talk/cmd', { type: 'unsubscribe', collection: 'talk' });
        this.write('talk', 'delete', undefined, { key: 'y' });
    }
    /** Until everything that was said has been carried out, and what is answered at once is here. */
    async end() {
        for (let i = 0; i < 2; i++) await this.client.ping().catch(() => {});
    }
    answers() {
        return this.client.packets.filter((p) => p.type === 'publish').map((p) => JSON.parse(p.payload.toString()));
    }
    /** Which contents a record may have now. */
    judge(states) {
        const answers = this.answers();
        for (const w of this.writes) {
            const name = `${w.collection}/${w.recordId}`, before = states.get(name) ?? new Set(['none']);
            const about = answers.filter((a) => a.metadata?.mutationId === w.mutationId);
            const puback = this.client.packets.find((p) => p.type === 'puback' && p.id === w.id);
            const told = about.some((a) => a.type === 'error') || puback?.reasonCode >= 128;
            const said = { kept: puback && !told, refused: told };
            const known = told || this.client.closed;
            if (w.may === 'refused') assert.ok(known, `${name}: ${w.type} of ${w.mutationId} was not refused`);
            if (w.may === 'lose' && !known) {
                const isWinner = (a) => a.metadata?.conflict && a.type === 'update' && a.recordId === w.recordId;
                assert.ok(answers.some(isWinner), `${name}: the loser was not told`);
            }
            if (w.may !== 'both') continue;
            const after = new Set(said.kept ? [] : before);
            for (const state of said.refused ? [] : before) {
                const changed = (data) =>
                    state !== 'none' && after.add(JSON.stringify({ ...JSON.parse(state), ...data }));
                if (w.type === 'insert') after.add(JSON.stringify(w.data));
                else if (w.type === 'delete') after.add('none');
                else changed(w.data);
                if (w.data?.o) changed({ o: { p: 1, ...w.data.o } });
            }
            states.set(name, after);
        }
    }
    /** A long answer comes later; but it comes, or an error does. */
    async judgeSyncs() {
        for (const { id, collection, n } of this.syncs) {
            const refused = (p) => p.type === 'puback' && p.id === id && p.reasonCode >= 128;
            if (this.client.packets.some(refused)) continue;
            const its = (a) => a.collection === collection || a.metadata?.collection === collection;
            const last = (a) => its(a) && (a.type === 'error' || (a.type === 'sync' && !a.metadata.more));
            await this.client.waiters.until(() => this.client.closed || this.answers().some(last),
                () => `the end of ${collection}`);
            if (this.answers().find(last)?.type !== 'sync') continue;
            const pages = this.answers().filter((a) => its(a) && a.type === 'sync');
            const records = pages.reduce((sum, page) => sum + page.data.records.length, 0);
            assert.equal(records, n, `records of ${collection} in ${pages.length} pages`);
        }
    }
}

async function connected(broker, version) {
    const client = new RawClient({ port: broker.port, version, clientId: `talker${version}`, username: 'gateway' });
    client.onPacket = (p) => p.type === 'publish' && p.qos === 1 && client.puback(p.id);
    await client.connect();
    return client;
}

/** Compares what is there with what may be there; that is then what is there. */
async function look(reader, states) {
    for (const collection of ['talk', 'merged', 'retained', 'closed']) {
        const { records } = await reader.sync(collection);
        for (const [name, may] of states) {
            if (!name.startsWith(`${collection}/`)) continue;
            const record = records.get(name.split('/')[1]);
            const now = record ? JSON.stringify(record.data) : 'none';
            assert.ok(may.has(now), `${name} is ${now}, and may be ${[...may].join(' or ')}`);
            states.set(name, new Set([now]));
        }
    }
}

async function retainedAgrees(broker, states) {
    const wanted = [...states].filter(([name]) => name.startsWith('retained/'))
        .map(([name, may]) => [name.split('/')[1], [...may][0]]);
    for (let wrong, tries = 0; wrong !== 0; tries++) {
        assert.ok(tries < 20, `${wrong} retained records are not those of the database`);
        const reader = await broker.client({ version: 5 });
        await reader.subscribe('sync/retained/rec/#');
        await reader.settle();
        const got = new Map(reader.records.map((p) => [p.topic.split('/').at(-1), p.json]));
        const state = (id) => (got.has(id) ? JSON.stringify(got.get(id).data) : 'none');
        wrong = wanted.filter(([id, data]) => state(id) !== data).length;
        await reader.close();
        if (wrong) await new Promise((resolve) => setTimeout(resolve, 250));
    }
}

test('memory that runs out makes nothing wrong', async (t) => {
    assert.ok(nomemory && fs.existsSync(nomemory), 'MQSYNC_NOMEMORY names the preloaded library');
    const directory = temporaryDirectory();
    const orders = new Orders(directory);
    const env = { LD_PRELOAD: path.resolve(nomemory), MQSYNC_NOMEMORY: orders.file };
    const broker = await Broker.start({ config, conf: ['max_queued_messages 10000'], env });
    try {
        const reader = await broker.client({ version: 5 });
        for (const [collection, n] of [['long', LONG], ['short', SHORT]]) {
            await Promise.all(Array.from({ length: n }, (_, i) => reader.short(collection, `r${i}`, 'insert', { i })));
        }
        const ways = [4, 5].flatMap((version) => [OURS, THE_BROKERS].flatMap((whose) =>
            [1, 0xffffffff].map((fails) => ({ version, whose, fails }))));
        for (const { version, whose, fails } of ways) {
            const states = new Map();
            let client = await connected(broker, version), after = 0, lost = 0, failed = 1;
            for (; failed; after += fails === 1 ? stride : 3 * stride) {
                const talk = new Talk(client, `${version}${whose}${fails === 1 ? 'once' : 'on'}${after}`);
                orders.give(whose, after, fails);
                await talk.all();
                await talk.end();
                failed = orders.failed();
                orders.give(0);
                talk.judge(states);
                await talk.judgeSyncs();
                if (client.closed) {
                    lost++;
                    client = await connected(broker, version);
                }
                await look(reader, states);
                states.forEach((may, name) => !name.startsWith('retained/') && states.delete(name));
            }
            await retainedAgrees(broker, states);
            client.destroy();
            const who = whose === OURS ? 'the plugin' : 'the broker for it';
            const when = fails === 1 ? 'once' : 'from there on';
            t.diagnostic(`MQTT ${version}, ${who}, ${when}: ${after} places at most, ${lost} connections ended`);
        }
    } finally {
        await broker.stop();
        fs.rmSync(directory, { recursive: true, force: true });
    }
});
