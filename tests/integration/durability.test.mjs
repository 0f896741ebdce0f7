// SPDX-License-Identifier: BSD-3-Clause
// What was acknowledged is there, whatever happened to the broker; and a broker that cannot keep it does not start.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { Bridge } from '../lib/bridge.mjs';
import { Broker, freePort, temporaryDirectory } from '../lib/broker.mjs';
import { eventBarrier } from '../lib/client.mjs';
import { poll, withDeadline } from '../lib/wait.mjs';

const ROUNDS = Number(process.env.MQSYNC_KILL_ROUNDS ?? 20);
const RECORDS = 10;

/**
 * Writes as fast as acknowledgements come, `window` ahead of them, and remembers which were acknowledged. The n-th
 * write of record r has
 * data {"n": n, ...}, so that what is found can be compared with what was sent.
 */
class Pump {
    constructor(broker, index, { qos, mutations }, sent, onAcknowledged) {
        Object.assign(this, { broker, index, qos, mutations, sent, onAcknowledged });
        this.acknowledged = new Map();
        this.pending = new Map();
        this.i = 0;
    }

    async start(window = 15) {
        this.raw = this.broker.raw({ version: this.index % 2 ? 4 : 5, clientId: `pump${this.index}` });
        await this.raw.connect();
        this.raw.onPacket = (p) => this.#packet(p);
        for (let i = 0; i < window; i++) {
            this.#send();
        }
    }

    #send() {
        const recordId = `p${this.index}-${this.i++ % RECORDS}`;
        const n = (this.sent.get(recordId) ?? 0) + 1;
        this.sent.set(recordId, n);
        const data = `{"n":${n},"text":"${'x'.repeat((n * 37) % 300)}"}`;
        if (this.mutations) {
            this.raw.publish(
                'sync/c/cmd',
                `{"type":"insert","recordId":"${recordId}","data":${data},"metadata":{"mutationId":"${n}"}}`,
                { qos: 0 },
            );
        } else {
            const id = this.raw.nextId();
            this.pending.set(id, [recordId, n]);
            this.raw.publish(`sync/c/cmd/${recordId}/insert`, data, { qos: this.qos, id });
        }
    }

    #packet(packet) {
        this.raw.packets.length = 0;
        if (packet.type === 'publish') {
            const { type, recordId, metadata } = JSON.parse(packet.payload);
            assert.equal(type, 'ack', `${packet.payload}`);
            this.#done([recordId, Number(metadata.mutationId)]);
        } else if (packet.type === 'puback' || packet.type === 'pubrec') {
            assert.ok(packet.reasonCode < 0x80, `reason ${packet.reasonCode}`);
            if (packet.type === 'pubrec') {
                this.raw.pubrel(packet.id);
            }
            this.#done(this.pending.get(packet.id));
        }
    }

    #done([recordId, n]) {
        this.acknowledged.set(recordId, Math.max(n, this.acknowledged.get(recordId) ?? 0));
        this.#send();
        this.onAcknowledged();
    }
}

test(`kill -9 under load, ${ROUNDS} times: every acknowledged write is found`, async (t) => {
    const broker = await Broker.start({ config: { collections: { '*': {} } } });
    try {
        let sent = new Map();
        let total = 0;
        let epoch;
        let seq = 0;
        for (let round = 0; round < ROUNDS; round++) {
            const target = 1 + Math.floor(Math.random() * 600);
            let count = 0;
            let pumps;
            await withDeadline(
                new Promise((resolve, reject) => {
                    const acknowledged = () => {
                        if (++count === target) {
                            broker.process.kill('SIGKILL');
                            resolve();
                        }
                    };
                    pumps = [{ qos: 1 }, { qos: 2 }, { qos: 0, mutations: true }, { qos: 1 }].map(
                        (kind, i) => new Pump(broker, i, kind, sent, acknowledged),
                    );
                    Promise.all(pumps.map((pump) => pump.start())).catch(
                        (error) => broker.running && count < target && reject(error),
                    );
                }),
                () => `${target} acknowledgements (round ${round}); had ${count}`,
            );
            await broker.exited;
            pumps.forEach((pump) => pump.raw.destroy());
            await broker.start();
            const client = await broker.client({ version: 5 });
            const state = await client.sync('c');
            epoch ??= state.epoch;
            assert.equal(state.epoch, epoch, 'a killed process is no power cut: nothing is lost and the epoch stays');
            assert.ok(state.seq >= seq, 'seq went back');
            seq = state.seq;
            for (const pump of pumps) {
                for (const [recordId, n] of pump.acknowledged) {
                    const record = state.records.get(recordId);
                    assert.ok(record, `round ${round}: ${recordId} is gone, write ${n} was acknowledged`);
                    assert.ok(
                        record.data.n >= n,
                        `round ${round}: ${recordId} holds write ${record.data.n}, ${n} was acknowledged`,
                    );
                    assert.ok(record.data.n <= sent.get(recordId));
                    assert.equal(record.version, record.data.n, `version of ${recordId}`);
                    assert.equal(record.data.text.length, (record.data.n * 37) % 300);
                }
            }
            // What was on its way when the broker died was not written: go on counting from what is there.
            sent = new Map([...state.records].map(([id, r]) => [id, r.data.n]));
            total += count;
            await client.close();
        }
        t.diagnostic(`${total} acknowledged writes over ${ROUNDS} kills`);
        await broker.stop();
    } finally {
        await broker.kill();
        broker.removeDirectory();
    }
});

test('restart and kill -9 keep records, versions, tombstones, seq and epoch; since goes on', async () => {
    const broker = await Broker.start({ config: { collections: { '*': {} } } });
    try {
        let client = await broker.client({ version: 5 });
        for (let i = 0; i < 20; i++) {
            await client.short('c', `r${i}`, 'insert', { i });
        }
        await client.short('c', 'r1', 'update', { j: 1 });
        await client.short('c', 'r2', 'delete');
        await client.short('other', 'x', 'insert', { o: 1 });
        let before = await client.sync('c');
        for (const [i, kill] of [false, true, true, false].entries()) {
            await broker.restart({ kill });
            client = await broker.client({ version: 5 });
            const now = await client.sync('c');
            assert.deepEqual([now.seq, now.epoch], [before.seq, before.epoch]);
            assert.deepEqual([...now.records], [...before.records]);
            const nothing = await client.sync('c', { since: before.seq, epoch: before.epoch });
            assert.deepEqual(
                [nothing.records.size, nothing.deleted.size, nothing.pages[0].metadata.full],
                [0, 0, false],
            );
            await client.short('c', 'r3', 'update', { k: i });
            await client.cmd('c', { type: 'insert', recordId: 'r2', data: { back: 1 }, metadata: { mutationId: 'm' } });
            const ack = await client.answer('ack');
            assert.ok(ack.metadata.version === 3, `tombstone and mutationId are remembered: ${ack.metadata.version}`);
            const changed = await client.sync('c', { since: before.seq, epoch: before.epoch });
            assert.ok(changed.records.has('r3') && changed.records.size <= 2);
            assert.ok(changed.seq > before.seq);
            assert.equal((await client.read('other', 'x')).version, 1);
            before = await client.sync('c');
        }
        await broker.stop();
    } finally {
        await broker.kill();
        broker.removeDirectory();
    }
});

test('a change from before a restart, sent again at QoS 2 in a new session, makes no second event', async () => {
    const broker = await Broker.start();
    try {
        const message = { type: 'insert', recordId: 'r', data: { a: 1 }, metadata: { mutationId: 'first' } };
        let writer = await broker.client({ version: 5, qos: 2 });
        await writer.cmd('c', message);
        const ack = await writer.answer('ack');
        await writer.short('c', 'r', 'update', { a: 2 });
        for (const kill of [true, false]) {
            await broker.restart({ kill });
            const reader = await broker.client();
            await reader.subscribe('sync/c/evt/#');
            writer = await broker.client({ version: 5, qos: 2 });
            await writer.cmd('c', message);
            assert.deepEqual(await writer.answer('ack'), ack);
            await eventBarrier(writer, 'c', reader);
            assert.deepEqual(reader.events, [], 'to whom shows what comes, that would be a step back');
        }
        await broker.stop();
    } finally {
        await broker.kill();
        broker.removeDirectory();
    }
});

test('durability "power" acknowledges too', async () => {
    const broker = await Broker.start({ config: { durability: 'power', collections: { '*': {} } } });
    try {
        for (const qos of [0, 1, 2]) {
            const client = await broker.client({ version: 5, qos });
            await client.cmd('c', { type: 'insert', recordId: `r${qos}`, data: {}, metadata: { mutationId: 'm' } });
            await client.answer('ack');
        }
        await broker.restart({ kill: true });
        assert.equal((await (await broker.client({ version: 5 })).sync('c')).records.size, 3);
        await broker.stop();
    } finally {
        await broker.kill();
        broker.removeDirectory();
    }
});

/** The lines of the log that speak of an error, without the broker's own start-up talk. */
const complaints = (log) => log.split('\n').filter((line) => /MQS\d{4}/.test(line));

test('a second broker on the same database is refused, and the first goes on', async () => {
    const first = await Broker.start({ config: { collections: { '*': {} } } });
    const second = new Broker({
        config: { collections: { '*': {} } },
        dbPath: false,
        pluginOptions: [`plugin_opt_db_path ${first.database}`],
    });
    try {
        const log = await second.startRefused();
        const lines = complaints(log);
        assert.ok(
            lines.some((line) => line.includes(first.database)),
            `no line names ${first.database}:\n${log}`,
        );
        assert.ok(lines.length <= 2, `one clear line was asked for:\n${lines.join('\n')}`);
        const client = await first.client({ version: 5 });
        await client.short('c', 'r', 'insert', '{}');
        assert.equal((await client.sync('c')).records.size, 1);
        // After its death, however sudden, the next one may.
        await first.kill();
        await second.start();
        assert.equal((await (await second.client()).sync('c')).records.size, 1);
        await second.stop();
    } finally {
        await Promise.all([first.kill(), second.kill()]);
        first.removeDirectory();
        second.removeDirectory();
    }
});

const WRONG = {
    'an unknown key': [{ collectoins: {} }, ['collectoins', 'collections']],
    'an unknown key of a collection': [{ collections: { todos: { upsrt: true } } }, ['todos', 'upsrt', 'upsert']],
    'an unknown strategy': [
        { collections: { todos: { conflict: { strategy: 'newest' } } } },
        ['collections.todos.conflict.strategy', 'lastWriteWins', 'deepMerge'],
    ],
    'a strategy without its fields': [
        { collections: { todos: { conflict: { strategy: 'mergeArrays' } } } },
        ['todos', 'fields'],
    ],
    'text for a truth value': [{ collections: { todos: { retain: 'yes' } } }, ['todos', 'retain', 'true']],
    'a collection of a bad name': [{ collections: { 'to dos': {} } }, ['to dos']],
    'a root with a wildcard': [{ root: 'sync/+' }, ['root']],
    'an empty root': [{ root: '' }, ['root']],
    'an unknown durability': [{ durability: 'best' }, ['durability', 'process', 'power']],
    'a negative interval': [{ syncIntervalMs: -1 }, ['syncIntervalMs']],
    'text for a number': [{ limits: { maxRecordBytes: 'much' } }, ['limits.maxRecordBytes']],
    'an unknown limit': [{ limits: { maxRecords: 1 } }, ['limits', 'maxRecords', 'maxRecordBytes']],
    'an array for an object': [{ collections: [] }, ['collections']],
    'a number for a list': [{ trustedUsers: 5 }, ['trustedUsers']],
    'no JSON': ['{"root": "sync",}', []],
    'a key twice': ['{"root": "sync", "root": "sync"}', ['duplicate']],
    nothing: ['', []],
};

test('a wrong configuration stops the start, naming file, key and what is allowed', async (t) => {
    for (const [what, [config, words]] of Object.entries(WRONG)) {
        await t.test(what, async () => {
            const broker = new Broker({ config });
            try {
                const lines = complaints(await broker.startRefused());
                const text = lines.join('\n');
                assert.ok(
                    lines.length >= 1 && lines.length <= 2,
                    `one clear line was asked for:\n${text || broker.log}`,
                );
                for (const word of [broker.configFile, ...words]) {
                    assert.ok(text.includes(word), `"${word}" is missing in: ${text}`);
                }
            } finally {
                broker.removeDirectory();
            }
        });
    }
    await t.test('a file that is not there', async () => {
        const broker = new Broker({ config: null, pluginOptions: ['plugin_opt_config DIR/nobody.json'] });
        try {
            const text = complaints(await broker.startRefused()).join('\n');
            assert.ok(text.includes('nobody.json'), text || broker.log);
        } finally {
            broker.removeDirectory();
        }
    });
    await t.test('an unknown plugin option', async () => {
        const broker = new Broker({ config: {}, pluginOptions: ['plugin_opt_databse DIR/x'] });
        try {
            const text = complaints(await broker.startRefused()).join('\n');
            assert.ok(text.includes('databse'), text || broker.log);
        } finally {
            broker.removeDirectory();
        }
    });
});

test('a database path that cannot be used stops the start with one clear line', async (t) => {
    const directory = temporaryDirectory();
    const file = path.join(directory, 'file');
    fs.writeFileSync(file, 'not a directory');
    const paths = {
        'a file': file,
        'below a file': path.join(file, 'db'),
        'where nothing can be made': '/proc/mqsync/db',
    };
    for (const [what, where] of Object.entries(paths)) {
        await t.test(what, async () => {
            const broker = new Broker({ config: {}, dbPath: false, pluginOptions: [`plugin_opt_db_path ${where}`] });
            try {
                const lines = complaints(await broker.startRefused());
                assert.equal(lines.length, 1, broker.log);
                assert.ok(lines[0].includes(where), lines[0]);
            } finally {
                broker.removeDirectory();
            }
        });
    }
    fs.rmSync(directory, { recursive: true });
    // "database" in the file counts when the option is not there, and the option before it.
    await t.test('"database" in the configuration', async () => {
        const home = temporaryDirectory();
        const viaConfig = await Broker.start({ config: { database: path.join(home, 'a') }, dbPath: false });
        await viaConfig.stop();
        assert.ok(fs.readdirSync(path.join(home, 'a')).length > 0);
        const viaOption = await Broker.start({ config: { database: path.join(home, 'b') } });
        assert.ok(fs.readdirSync(viaOption.database).length > 0);
        assert.equal(fs.existsSync(path.join(home, 'b')), false);
        await viaOption.stop();
        fs.rmSync(home, { recursive: true });
    });
});

test('without a configuration every collection is served', async () => {
    const broker = await Broker.start({ config: null });
    try {
        const client = await broker.client({ version: 5 });
        await client.cmd('anything', { type: 'insert', recordId: 'r', data: {}, metadata: { mutationId: 'm' } });
        await client.answer('ack');
        await broker.stop();
    } finally {
        await broker.kill();
        broker.removeDirectory();
    }
});

test('started with its standard descriptors closed, nobody logs into the database', async () => {
    const under = ['/bin/sh', '-c', 'exec "$0" "$@" <&- >&- 2>&-'];
    const broker = await Broker.start({ under });
    const bridge = new Bridge(broker, {}, { under });
    try {
        const port = await freePort();
        bridge.write({ bridge: { listen: `127.0.0.1:${port}` } });
        bridge.spawn();
        const read = () => fetch(`http://127.0.0.1:${port}/sync/c`).then((r) => r.json(), () => undefined);
        await poll(async () => (await read())?.records, 'the bridge to answer');
        const client = await broker.client({ version: 5 });
        await client.short('c', 'r', 'insert', '{"kept":true}', { qos: 1 });
        assert.deepEqual((await read()).records.map((r) => r.data), [{ kept: true }]);
        for (const name of fs.readdirSync(broker.database)) {
            const content = fs.readFileSync(path.join(broker.database, name), 'latin1');
            assert.doesNotMatch(content, /mosquitto|MQS[123]\d{3}/, name);
        }
        await broker.restart({ kill: true });
        assert.deepEqual(broker.stored('c').map(({ data }) => data), [{ kept: true }]);
    } finally {
        await bridge.kill();
        await broker.stop();
    }
});
