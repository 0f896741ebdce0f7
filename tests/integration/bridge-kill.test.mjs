// SPDX-License-Identifier: BSD-3-Clause
// The bridge and the broker die at any moment while clients write: what was acknowledged is there afterwards, and everybody
// ends with what the database holds. MQSYNC_ROUNDS=n: so many deaths (default 20); MQSYNC_SEED=n: the same again.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { startBoth } from '../lib/bridge.mjs';
import { unique } from '../lib/client.mjs';
import { deadlineMs, patience } from '../lib/env.mjs';
import { randomness, seed } from '../lib/random.mjs';
import { poll } from '../lib/wait.mjs';

const rounds = Number(process.env.MQSYNC_ROUNDS ?? 20);
const allRoundsMs = rounds * 60_000 * patience;

/** Writes without end, one connection after the other, and sends again what was not answered, as it was: same mutationId. */
class Writer {
    constructor(bridge, collection, name) {
        Object.assign(this, { bridge, collection, name });
        this.open = new Map();
        this.acked = new Map();
        this.n = 0;
        this.work = this.#run();
    }

    #send(mutationId) {
        const write = this.open.get(mutationId);
        if (!write) {
            return; // answered meanwhile
        }
        const { recordId, data } = write;
        write.at = Date.now();
        this.client.send({ type: 'insert', collection: this.collection, recordId, data, metadata: { mutationId } });
    }

    #take(message) {
        const id = message.metadata?.mutationId;
        const write = this.open.get(id);
        if (!write) {
            return; // answered before: the broker died before it could say that it had it
        }
        if (message.type === 'ack') {
            this.acked.set(write.recordId, write.data);
            this.open.delete(id);
        } else {
            assert.equal(message.code, 'SERVER_ERROR');
            this.again.push(id);
            return;
        }
        if (!this.done) {
            this.#next();
        }
        this.client.waiters.wake();
    }

    #next() {
        const mutationId = `${this.name}-${++this.n}`;
        this.open.set(mutationId, { recordId: `${this.name}-${this.n % 50}-${this.n}`, data: { n: this.n } });
        this.#send(mutationId);
    }

    async #run() {
        while (!this.done || this.open.size) {
            const client = await this.bridge.client().catch(() => undefined);
            if (!client?.opened) {
                await new Promise((resolve) => setTimeout(resolve, 20));
                continue;
            }
            this.client = client;
            this.again = [];
            client.socket.on('message', (text) => this.#take(JSON.parse(text)));
            [...this.open.keys()].forEach((id) => this.#send(id));
            while (this.open.size < 10 && !this.done) {
                this.#next();
            }
            // refused, or without an answer: a broker that dies between keeping a write and saying so says nothing of it
            const timer = setInterval(() => {
                const late = [...this.open].filter(([, write]) => Date.now() - write.at > 3000).map(([id]) => id);
                if (client.socket.readyState === 1) {
                    new Set([...this.again.splice(0), ...late]).forEach((id) => this.#send(id));
                }
            }, 50);
            await client.waiters.until(() => client.closed || (this.done && this.open.size === 0), () => 'the end', allRoundsMs);
            clearInterval(timer);
            client.socket.terminate();
            this.bridge.clients.delete(client);
        }
    }

    finish() {
        this.done = true;
        return this.work;
    }
}

/** Follows a collection across connections by seq and epoch. */
class Reader {
    constructor(bridge, collection) {
        Object.assign(this, { bridge, collection });
        this.records = new Map();
        this.connections = 0;
        this.snapshots = 0;
        /** How connections ended that it did not end itself. */
        this.closed = [];
        this.work = this.#run();
    }

    #take(m) {
        if (m.type === 'sync') {
            if (m.metadata.full && !this.paging) {
                this.records.clear();
                this.snapshots++;
            }
            this.paging = m.metadata.more;
            m.data.records.forEach((r) => this.records.set(r.id, r.data));
            ({ seq: this.seq, epoch: this.epoch } = m.metadata);
        } else if (m.type === 'insert' || m.type === 'update') {
            assert.equal(m.metadata.seq, this.seq + 1, 'an event that does not follow');
            this.records.set(m.recordId, { ...this.records.get(m.recordId), ...m.data });
            this.seq = m.metadata.seq;
        } else if (m.type === 'subscribed') {
            this.seq ??= m.metadata.seq;
            this.epoch ??= m.metadata.epoch;
        }
    }

    async #run() {
        while (!this.done) {
            const client = await this.bridge.client().catch(() => undefined);
            if (!client?.opened) {
                await new Promise((resolve) => setTimeout(resolve, 20));
                continue;
            }
            this.connections++;
            this.paging = false;
            client.socket.on('message', (text) => {
                try {
                    this.#take(JSON.parse(text));
                } catch (error) {
                    this.error ??= error;
                }
            });
            client.send({ type: 'subscribe', collection: this.collection,
                ...(this.epoch ? { metadata: { since: this.seq, epoch: this.epoch } } : {}) });
            // as apps do: who says nothing for bridge.idleTimeoutSeconds is closed, and this takes longer
            const heart = setInterval(() => client.socket.readyState === 1 && client.send({ type: 'ping' }), 10_000);
            await client.waiters.until(() => client.closed || this.done, () => 'the end', allRoundsMs);
            clearInterval(heart);
            if (client.closed) {
                this.closed.push(client.closed);
            }
            client.socket.terminate();
            this.bridge.clients.delete(client);
        }
    }

    finish() {
        this.done = true;
        this.bridge.clients.forEach((client) => client.waiters.wake());
        return this.work;
    }
}

async function survive(t, { database = true, die }) {
    const { broker, bridge, stop } = await startBoth({}, { database });
    t.after(stop);
    const random = randomness(seed);
    const collection = unique('c');
    const writers = ['a', 'b', 'c'].map((name) => new Writer(bridge, collection, name));
    const readers = [new Reader(bridge, collection), new Reader(bridge, collection)];
    for (let round = 0; round < rounds; round++) {
        const before = writers[0].acked.size;
        await poll(() => writers[0].acked.size > before + random(30), `writes to be acknowledged in round ${round}`);
        await die({ broker, bridge, random, round });
    }
    await Promise.all(writers.map((writer) => writer.finish()));
    const truth = new Map(broker.stored(collection).map(({ id, data }) => [id, data]));
    let acked = 0;
    for (const writer of writers) {
        acked += writer.acked.size;
        for (const [id, data] of writer.acked) {
            assert.deepEqual(truth.get(id), data, `${id} was acknowledged (MQSYNC_SEED=${seed})`);
        }
    }
    assert.equal(truth.size, acked, 'records that nobody has written');
    await poll(() => readers.every((reader) => isDeepStrictEqual(reader.records, truth)), '', deadlineMs).catch(() => {
        readers.forEach((reader) => assert.deepEqual(reader.records, truth, `a replica (left) and the database, MQSYNC_SEED=${seed}`));
    });
    readers.forEach((reader) => assert.equal(reader.error, undefined));
    t.diagnostic(`${acked} writes acknowledged, ${readers[0].connections} connections, ${readers[0].snapshots} full snapshots`);
    await Promise.all(readers.map((reader) => reader.finish()));
    return { readers };
}

const killBridge = async ({ bridge }) => {
    await bridge.kill();
    bridge.write({});
    await bridge.start();
};

for (const database of [true, false]) {
    test(`the bridge is killed again and again, ${database ? 'reading the database' : 'reading through the broker'}`, async (t) => {
        const { readers } = await survive(t, { database, die: killBridge });
        // they went on by seq: the whole state came once
        readers.forEach((reader) => assert.ok(reader.snapshots <= 1, `${reader.snapshots} snapshots`));
    });
}

test('the broker is killed again and again: clients stay, and see no more than a pause', async (t) => {
    const { readers } = await survive(t, {
        die: async ({ broker, bridge, random }) => {
            const mark = bridge.log.length;
            await (random(2) ? broker.kill() : broker.terminate());
            await broker.start();
            await bridge.waitForLog(/MQS3010/, mark);
        },
    });
    readers.forEach((reader) => assert.deepEqual(reader.closed, []));
});

test('a broker that hangs: soon writes are refused, then it is given up; what was on its way is answered truly', async (t) => {
    const { broker, bridge, stop } = await startBoth();
    t.after(stop);
    const [ana, bo] = [await bridge.client(), await bridge.client()];
    const collection = unique('c');
    await ana.subscribe(collection);
    await bo.subscribe(collection);
    await ana.write('insert', collection, 'before', { a: 1 });
    const mark = bridge.log.length;
    broker.process.kill('SIGSTOP');
    t.after(() => broker.process.kill('SIGCONT'));
    const start = Date.now();
    ana.send({ type: 'insert', collection, recordId: 'during', data: { a: 1 }, metadata: { mutationId: 'during' } });
    await bo.rest(); // its pong comes whatever the broker does
    let refused;
    for (let n = 0; !refused; n++) {
        bo.send({ type: 'insert', collection, recordId: `n${n}`, data: {}, metadata: { mutationId: `n${n}` } });
        await bo.rest().then((messages) => {
            refused = messages.find((m) => m.type === 'error');
        });
        assert.ok(Date.now() - start < 10_000 * patience, 'a write refused while the broker hangs');
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    t.diagnostic(`writes are refused after ${Date.now() - start} ms`);
    assert.equal(refused.code, 'SERVER_ERROR');
    // the keep-alive: 15 s, and as long again for the answer to a ping
    await bridge.waiters.until(() => /MQS3011/.test(bridge.log.slice(mark)), () => 'the bridge to give the broker up', 60_000 * patience);
    t.diagnostic(`given up after ${Date.now() - start} ms`);
    broker.process.kill('SIGCONT');
    await bridge.waitForLog(/MQS3010/, mark);
    await ana.take((m) => m.type === 'ack' && m.metadata.mutationId === 'during');
    const state = await bo.subscribe(collection);
    assert.ok(state.records.has('during'));
    assert.ok(!state.records.has(refused.metadata.recordId), 'refused, and yet there');
});
